//! What an address outlives: restarts, other apps, and hands that edit the lock.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::common::app::App;
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::strait;
use super::common::{wait_for, wait_until};
use super::{Bench, address_of, app, egress_of, own_address, problems};

fn lock(bench: &Bench) -> std::path::PathBuf {
    bench.gateway.folder().join("egress.lock")
}

/// Another process with the configuration of the first one, which is gone.
fn again(bench: &mut Bench) {
    let config = bench.gateway.config().to_owned();
    bench.gateway.signal(rustix::process::Signal::KILL);
    bench.gateway.exit();
    let mut command = Command::new(super::common::gateway::STRAIT);
    command.args(["run", "--config"]).arg(config);
    let mut gateway = bench.gateway.beside(command);
    gateway.wait_until_ready();
    bench.gateway = gateway;
}

#[test]
fn addresses_stay_over_restarts_and_whatever_becomes_of_other_apps() {
    let mut bench = Bench::start(4);
    let before: Vec<_> = (0..4).map(|number| bench.address(number)).collect();
    bench.import(&[1, 3], "");
    assert_eq!([1, 3].map(|number| bench.address(number)), [before[1], before[3]]);
    again(&mut bench);
    assert_eq!([1, 3].map(|number| bench.address(number)), [before[1], before[3]]);
    assert_eq!(bench.who(before[3]).unwrap(), app(3));
    assert!(bench.who(before[0]).is_err(), "nobody listens where an app was");
    let text = fs::read_to_string(lock(&bench)).unwrap();
    assert!(text.starts_with("# ") && text.contains("21000 shop/app0 free-since "), "{text}");
    bench.import(&[0, 1, 2, 3], "");
    assert_eq!((0..4).map(|number| bench.address(number)).collect::<Vec<_>>(), before);
}

#[test]
fn a_state_dir_holds_the_lock() {
    let bench = Bench::start(1);
    bench.import(&[0], "stateDir: state\n");
    wait_until("the lock is in the folder", || {
        bench.gateway.folder().join("state/egress.lock").exists()
    });
}

#[test]
fn a_read_only_lock_refuses_a_missing_app_with_the_line_to_add() {
    let mut bench = Bench::start(2);
    bench.import(&[0], "");
    fs::write(lock(&bench), format!("21000 {}\n", app(0))).unwrap();
    fs::set_permissions(lock(&bench), Permissions::from_mode(0o444)).unwrap();
    again(&mut bench);
    bench.import(&[0, 1], "");
    let told = wait_for("the app is refused", || {
        problems(&bench.gateway).into_iter().find(|it| it.contains("shop/app1"))
    });
    assert!(told.contains("add the line `21001 shop/app1`"), "{told}");
    assert_eq!(egress_of(&bench.gateway, &app(1)), None);
    assert_eq!(bench.who(bench.address(0)).unwrap(), app(0));
    // Where the file comes from, somebody adds it.
    fs::set_permissions(lock(&bench), Permissions::from_mode(0o644)).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(lock(&bench))
        .unwrap()
        .write_all(b"21001 shop/app1\n")
        .unwrap();
    fs::set_permissions(lock(&bench), Permissions::from_mode(0o444)).unwrap();
    assert_eq!(bench.who(bench.address(1)).unwrap(), app(1));
    assert_eq!(problems(&bench.gateway), Vec::<String>::new());
}

#[test]
fn a_garbled_lock_is_told_with_its_line_and_moves_nobody() {
    let mut bench = Bench::start(2);
    bench.import(&[0], "");
    let address = bench.address(0);
    fs::write(lock(&bench), format!("21000 {}\n21001\n", app(0))).unwrap();
    again(&mut bench);
    bench.import(&[0, 1], "");
    let told = wait_for("it is told", || {
        problems(&bench.gateway).into_iter().find(|it| it.contains("egress.lock:2: expected"))
    });
    assert!(told.contains("20001 shop/orders"), "{told}");
    assert_eq!((bench.address(0), bench.who(address).unwrap()), (address, app(0)));
    assert_eq!(egress_of(&bench.gateway, &app(1)), None);
    assert_eq!(fs::read_to_string(lock(&bench)).unwrap().lines().count(), 2, "left as it is");
}

#[test]
fn without_a_place_for_a_lock_only_pinned_ports_are_served() {
    let bind = own_address();
    let base = BASE.replace(
        "  admin:",
        &format!("  egress: {{ bind: {bind}, ports: 21000-21009 }}\n  admin:"),
    );
    let gateway = Gateway::with_config(&format!(
        "{base}stateDir: /proc/strait\n\
         apps: [{{ app: shop/a, endpoints: [\"127.0.0.1:1\"] }}, {{ app: shop/b, endpoints: [\"127.0.0.1:2\"] }}]\n\
         imports:\n  - {{ app: shop/a, name: a.example, clusters: [west], allow: any, egress: {{ port: 21005 }} }}\n\
         \x20 - {{ app: shop/b, name: b.example, clusters: [west], allow: any }}\n"
    ));
    assert_eq!(address_of(&gateway, "shop/a").unwrap().port(), 21_005);
    assert_eq!(address_of(&gateway, "shop/b"), None);
    let told = problems(&gateway).join("\n");
    assert!(told.contains("only pinned egress addresses are served"), "{told}");
    assert!(told.contains("shop/b: there is no place where its address could be kept"), "{told}");
}

#[test]
fn an_address_that_changes_its_app_closes_the_connections_that_came_by_it_first() {
    let bench = Bench::start(2);
    let [first, second] = [0, 1].map(|number| bench.address(number));
    let mut moved = bench.open(first).unwrap();
    let mut kept = bench.open(second).unwrap();
    assert_eq!(moved.who().unwrap(), app(0));
    // An operator gives the address of one app to another, which rests for nobody.
    fs::write(
        lock(&bench),
        format!("{} {}\n{} {}\n", first.port(), app(1), second.port() + 5, app(0)),
    )
    .unwrap();
    bench.import(&[0, 1], "log: { connections: all }\n");
    moved.ended().unwrap();
    assert_eq!(bench.gateway.record("revoked")["route"], "shop/app0");
    assert_eq!(bench.address(1), first);
    assert_eq!(bench.who(first).unwrap(), app(1));
    assert_eq!(bench.who(bench.address(0)).unwrap(), app(0));
    assert_eq!(
        kept.who().unwrap(),
        app(1),
        "where its address is nobody else's, a connection lives on"
    );
}

#[test]
fn explain_tells_without_a_gateway_which_address_the_lock_holds() {
    let bench = Bench::start(2);
    bench.import(&[0], "");
    let address = bench.address(0).to_string();
    let explain = |folder: &Path, number: usize| {
        let config = folder.join("strait.yaml").display().to_string();
        let told = strait(&["explain", &super::name(number), "--config", &config], folder);
        String::from_utf8(told.stdout).unwrap()
    };
    let told = explain(bench.gateway.folder(), 0);
    assert!(told.contains(&format!("Egress     {address}")), "{told}");
    // Where no gateway has been yet.
    let elsewhere = tempfile::tempdir().unwrap();
    let text = super::config(&bench.egress, &bench.apps, &[0, 1], "");
    fs::write(elsewhere.path().join("strait.yaml"), text).unwrap();
    let none = "Egress     it has no line in egress.lock yet";
    let told = explain(elsewhere.path(), 0);
    assert!(told.contains(none), "{told}");
    fs::write(elsewhere.path().join("egress.lock"), format!("21000 {}\n", app(0))).unwrap();
    let told = [0, 1].map(|number| explain(elsewhere.path(), number));
    assert!(told[0].contains(&address) && told[1].contains(none), "{told:?}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 2, "nothing is written");
}

/// They import other apps and start at the same moment, which is when nothing stands in the lock that could keep them apart.
#[test]
fn gateways_that_share_a_lock_give_no_address_twice() {
    const EACH: usize = 10;
    let shared = tempfile::tempdir().unwrap();
    let bind = own_address();
    let egress = format!("{{ bind: {bind}, ports: 21000-21099 }}");
    let authority = Authority::new();
    let apps: Vec<_> =
        (0..2 * EACH).map(|number| App::start(&authority, &app(number), &[&*bind])).collect();
    let more = format!("stateDir: {}\n", shared.path().display());
    let start = |numbers: std::ops::Range<usize>| {
        let numbers: Vec<_> = numbers.collect();
        let gateway = Gateway::with_config(&super::config(&egress, &apps, &numbers, &more));
        let address =
            |number: &usize| wait_for("it is served", || address_of(&gateway, &app(*number)));
        let addresses: Vec<_> = numbers.iter().map(address).collect();
        (gateway, addresses)
    };
    let ((_one, first), (_other, second)) = thread::scope(|scope| {
        let other = scope.spawn(|| start(EACH..2 * EACH));
        (start(0..EACH), other.join().unwrap())
    });
    let all: BTreeSet<_> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), 2 * EACH, "{first:?} {second:?}");
    let text = fs::read_to_string(shared.path().join("egress.lock")).unwrap();
    assert!((0..2 * EACH).all(|number| text.contains(&app(number))), "{text}");
}
