//! The commands that look: check, explain, status, help.

use std::fs;
use std::process::Output;

use serde_json::Value;

use super::common::app::call_from;
use super::common::gateway::Gateway;
use super::common::process::strait;
use super::{Apps, routes};

/// Everything that a command printed.
fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn check_tells_every_error_of_a_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "\
cluster: west
limits: { helloTimeout: soon }
colour: blue
routes:
  - { name: \"bad name.example\", endpoints: [\"127.0.0.1:9000\"] }
  - { name: one.example, endpoints: [\"127.0.0.1:99999\"] }
";
    fs::write(folder.path().join("bad.yaml"), bad).unwrap();
    let output = strait(&["check", "bad.yaml"], folder.path());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for place in ["bad.yaml:2:", "bad.yaml:3:1", "bad.yaml:5:", "bad.yaml:6:"] {
        assert!(said.contains(place), "no {place} in {said}");
    }
    for text in ["soon", "colour", "bad name.example", "127.0.0.1:99999"] {
        assert!(said.contains(text), "no {text} in {said}");
    }
}

#[test]
fn check_accepts_a_good_file_and_warns_of_open_routes() {
    let folder = tempfile::tempdir().unwrap();
    let good =
        "cluster: west\nroutes:\n  - { name: one.example, endpoints: [\"127.0.0.1:9000\"] }\n";
    fs::write(folder.path().join("good.yaml"), good).unwrap();
    let output = strait(&["check", "good.yaml"], folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("open"), "{}", said(&output));
    let missing = strait(&["check", "missing.yaml"], folder.path());
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
}

/// One question to `explain`, and what a connection must come to.
struct Question {
    name: &'static str,
    from: &'static str,
    /// The app, or the alert.
    comes_to: Result<&'static str, &'static str>,
    /// What every form of the explanation has to name.
    names: &'static str,
}

const QUESTIONS: [Question; 6] = [
    question("one.example", "127.0.0.1", Ok("alpha"), "one.example"),
    question("ONE.example.", "127.0.0.9", Ok("alpha"), "one.example"),
    question("one.example", "127.0.7.1", Err("AccessDenied"), "127.0.0.0/24"),
    question("one.example", "127.9.0.1", Err("UnrecognisedName"), "127.0.0.0/24"),
    question("far.below.example", "127.0.0.1", Ok("beta"), "*.below.example"),
    question("none.example", "127.0.0.1", Err("UnrecognisedName"), "unknown_name"),
];

const fn question(
    name: &'static str,
    from: &'static str,
    comes_to: Result<&'static str, &'static str>,
    names: &'static str,
) -> Question {
    Question { name, from, comes_to, names }
}

#[test]
fn explain_foretells_what_a_connection_comes_to() {
    let apps = Apps::start();
    let gateway = Gateway::start(&format!(
        "\
routes:
  - {{ name: one.example, endpoints: [\"{alpha}\"], allow: [{{ network: 127.0.0.0/24 }}] }}
  - {{ name: \"*.below.example\", endpoints: [\"{beta}\"] }}
  - {{ name: other.example, endpoints: [\"{beta}\"], allow: [{{ network: 127.0.0.0/16 }}] }}
",
        alpha = apps.alpha.address,
        beta = apps.beta.address
    ));
    let (config, admin) = (gateway.config().display().to_string(), gateway.admin());
    for Question { name, from, comes_to, names } in QUESTIONS {
        let real = call_from(from.parse().unwrap(), gateway.ingress(), name, &apps.tls);
        assert_eq!(real, comes_to.map(str::to_owned).map_err(str::to_owned), "{name} from {from}");
        let asked = format!("/explain?name={name}&from={from}");
        let answer: Value = serde_json::from_str(&gateway.get(&asked).unwrap().text()).unwrap();
        let outcome = if comes_to.is_ok() { "routed" } else { "refused" };
        assert_eq!(answer["verdict"]["outcome"], outcome, "{answer:#}");
        assert!(answer.to_string().contains(names), "{answer:#}");
        for source in [["--config", &config], ["--admin", &admin]] {
            let [way, place] = source;
            let output = strait(&["explain", name, "--from", from, way, place], gateway.folder());
            let said = said(&output);
            assert!(said.contains(names), "{name} from {from} {way}: {said}");
        }
    }
}

#[test]
fn status_has_a_form_for_people_for_programs_and_for_probes() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    let ask = |more: &[&str]| {
        let admin = gateway.admin();
        strait(&[&["status", "--admin", &admin], more].concat(), gateway.folder())
    };
    let table = ask(&[]);
    assert_eq!(table.status.code(), Some(0));
    let ingress = gateway.ingress().to_string();
    for text in ["west", "one.example", &ingress, &apps.alpha.address.to_string()] {
        assert!(said(&table).contains(text), "no {text} in {}", said(&table));
    }
    let json: Value = serde_json::from_slice(&ask(&["--json"]).stdout).unwrap();
    assert_eq!(json["cluster"], "west");
    assert_eq!(ask(&["--ready"]).status.code(), Some(0));
    let nobody = strait(&["status", "--ready", "--admin", "unix:nobody.sock"], gateway.folder());
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "explain", "status", "demo"] {
        let output = strait(&[command, "--help"], folder.path());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("Example"), "{said}");
        assert!(said.contains(&format!("strait {command}")), "{said}");
        assert!(!said.contains('\u{1b}'), "colour without a terminal: {said}");
    }
}
