//! `strait allow`, `revoke` and `allowed`, as a user runs them.

use std::process::Output;

use serde_json::Value;

use crate::common::gateway::Gateway;
use crate::common::measured;
use crate::common::process::strait;

use super::{BATCH, FRONTEND, ORDERS, STORE, World};

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = gateway.admin();
    said(&strait(&[arguments, &["--admin", &admin]].concat(), gateway.folder()))
}

#[test]
fn a_permission_is_given_told_and_taken() {
    let world = World::start(&format!("allowedApps: {{ {STORE} }}\n"), &[]);
    let run = |arguments: &[&str]| run(&world.west, arguments);
    assert_eq!(run(&["allowed"]), (Some(0), "no document is in force\n".into(), String::new()));
    let allow =
        ["allow", "shop/frontend", "shop/orders", "--cluster", "east", "--cluster", "south"];
    let (code, out, err) = run(&allow);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "shop/frontend may call shop/orders in east, then south");
    assert!(lines[1].starts_with("version ") && lines[1].contains(", in force after "), "{out}");
    assert!(lines[2].starts_with(&format!("called as {ORDERS}")), "{out}");
    measured(&format!("strait allow: {}", lines[1]));
    world.waits_for(FRONTEND, ORDERS, "east");
    assert!(
        run(&allow)
            .1
            .starts_with("shop/frontend may call shop/orders in east, then south already\n")
    );
    let (_, out, _) = run(&["allow", "shop/nowhere", "shop/orders"]);
    assert!(
        out.contains("in every cluster that exports it") && out.contains("add `from`"),
        "{out}"
    );

    let (code, out, _) = run(&["allowed"]);
    assert_eq!(code, Some(0));
    for words in ["shop/frontend", "shop/nowhere", "east, south", "any", "store"] {
        assert!(out.contains(words), "no {words} in {out}");
    }
    assert!(!out.contains('\u{1b}'), "colour without a terminal: {out}");
    let (_, out, _) = run(&["allowed", "shop/frontend"]);
    assert!(
        out.contains("healthy") && out.contains(ORDERS) && !out.contains("shop/nowhere"),
        "{out}"
    );
    let (_, out, _) = run(&["allowed", "shop/frontend", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["discovered"]["apps"][0]["names"][0], ORDERS);

    let (code, out, _) = run(&["revoke", "shop/frontend", "shop/orders"]);
    assert!(
        code == Some(0)
            && out.contains("has shop/orders no more")
            && out.contains("in force after"),
        "{out}"
    );
    assert!(world.call(FRONTEND, ORDERS).is_err(), "in force is in force");
    let (code, out, _) = run(&["revoke", "shop/frontend", "shop/orders", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["changed"]), (Some(0), &Value::Bool(false)));
    assert!(world.call(BATCH, ORDERS).is_err());
}

#[test]
fn what_is_not_done_is_told_with_what_to_do() {
    let gateway = Gateway::start("");
    let (code, _, err) = run(&gateway, &["allow", "shop/frontend", "shop/orders"]);
    assert!(
        code == Some(1) && err.contains("there is no store") && err.contains("allowedApps.store"),
        "{err}"
    );
    for wrong in [
        &["allow", "frontend", "shop/orders"][..],
        &["allow", "shop/frontend", "shop/*"],
        &["revoke", "shop/a"],
    ] {
        assert_eq!(run(&gateway, wrong).0, Some(2), "{wrong:?}");
    }
    for command in ["allow", "revoke", "allowed"] {
        let (code, help, _) = said(&strait(&[command, "--help"], gateway.folder()));
        assert!(code == Some(0) && help.contains(&format!("strait {command}")), "{help}");
        assert!(help.contains("Exit codes"), "{help}");
    }
}
