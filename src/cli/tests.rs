//! Whole command lines, against a gateway's admin API over real sockets.

use std::sync::Arc;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::testing::printed;
use super::testing::Fake;
use super::*;
use crate::admin::listener::AdminListener;
use crate::admin::status::{Status, timestamp};
use crate::admin::{Answers, Scope, serve};
use crate::routing::explain::Verdict;

/// An admin API on a thread and runtime of its own, as the commands block; stops when dropped.
struct Gateway {
    address: String,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gateway {
    fn start(ready: Result<(), &'static str>) -> Self {
        let listener = AdminListener::tcp("127.0.0.1:0".parse().unwrap(), &[]).unwrap();
        let address = listener.address().unwrap().to_string();
        Self::over(listener, format!("http://{address}"), ready)
    }

    fn over(listener: AdminListener, address: String, ready: Result<(), &'static str>) -> Self {
        let stop = CancellationToken::new();
        let served = serve(listener, Scope::Admin, answers(ready), Arc::default(), stop.clone());
        let served = async { served.await.map_err(Failed::Output) };
        let thread = Some(std::thread::spawn(move || block_on(served).unwrap()));
        Self { address, stop, thread }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.thread.take().unwrap().join();
    }
}

fn answers(ready: Result<(), &'static str>) -> Arc<Answers> {
    Arc::new(Answers {
        ready: Box::new(move || ready.map_err(str::to_owned)),
        status: Box::new(status_of_tests),
        explain: Box::new(|name, asker| {
            let explanation = explanation(&format!("{name} for {asker}"), Verdict::Routed);
            serde_json::to_value(explanation).unwrap()
        }),
        metrics: Box::new(String::new),
        api: axum::Router::new(),
    })
}

fn status_of_tests() -> Status {
    Status {
        cluster: "west".into(),
        version: "0".into(),
        pid: 1,
        started: timestamp(std::time::SystemTime::now()),
        ready: true,
        generation: 3,
        changed: timestamp(std::time::SystemTime::now()),
        ..Status::default()
    }
}

fn explanation(written: &str, verdict: Verdict) -> Explanation {
    Explanation {
        side: None,
        written: written.into(),
        name: Some(written.into()),
        route: None,
        policy: None,
        egress: None,
        priorities: vec![],
        absent: vec![],
        verdict,
        hint: None,
    }
}

/// Whether the command succeeds, and what it prints.
fn strait(work: &Fake, words: &[&str]) -> (bool, String, String) {
    let arguments = Arguments::try_parse_from([&["strait"], words].concat()).unwrap();
    let (code, out, err) = printed(false, |out| exit_code(execute(&arguments, work, out), out));
    (code == ExitCode::SUCCESS, out, err)
}

fn ask(words: &[&str], gateway: &str) -> (bool, String, String) {
    strait(&Fake::default(), &[words, &["--admin", gateway]].concat())
}

#[test]
fn the_definitions_hold_together() {
    Arguments::command().debug_assert();
}

#[test]
fn every_help_has_an_example_and_the_exit_codes() {
    for name in ["run", "check", "explain", "status", "certs", "demo"] {
        let error = Arguments::try_parse_from(["strait", name, "--help"]).unwrap_err();
        let help = error.to_string();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
        assert!(help.contains(&format!("\n  strait {name}")), "{help}");
        assert!(help.contains("\nExit codes:\n  0  "), "{help}");
    }
}

#[test]
fn what_is_not_understood_ends_with_2() {
    for words in [
        &["strait", "flee"][..],
        &["strait", "check"],
        &["strait", "status", "--ready", "--json"],
        &["strait", "status", "--admin", "ftp://a:1"],
        &["strait", "explain", "a", "--config", "x", "--admin", "a:1"],
        &["strait", "explain", "a", "--from", "here"],
        &["strait", "explain", "a", "--from", "10.0.0.1", "--cluster", "east"],
        &["strait", "explain", "a", "--app", "shop/a"],
        &["strait", "explain", "a", "--cluster", "east", "--app", "frontend"],
        &["strait", "demo", "--calls", "0"],
    ] {
        let error = Arguments::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn run_and_demo_get_what_was_written() {
    let (done, _, err) = strait(&Fake::default(), &["run"]);
    assert_eq!((done, err.as_str()), (false, "error: ran with config/strait.yaml\n"));
    let (done, out, _) = strait(&Fake::default(), &["demo", "--calls", "3"]);
    assert_eq!((done, out.as_str()), (true, "demo of Some(3) calls\n"));
}

#[test]
fn status_for_people_for_programs_and_for_probes() {
    let gateway = Gateway::start(Ok(()));
    let (done, out, err) = ask(&["status"], &gateway.address);
    assert!(done && out.starts_with("west  ready\n") && err.is_empty(), "{out}{err}");
    assert!(!out.contains('\x1b'));
    let (done, out, _) = ask(&["status", "--json"], &gateway.address);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(done && told["generation"] == json!(3), "{out}");
    let silent = (true, String::new(), String::new());
    assert_eq!(ask(&["status", "--ready"], &gateway.address), silent);
}

#[test]
fn a_probe_of_a_gateway_that_is_not_ready_fails_with_the_reason() {
    let gateway = Gateway::start(Err("draining"));
    let told = (false, String::new(), "not ready: draining\n".to_owned());
    assert_eq!(ask(&["status", "--ready"], &gateway.address), told);
    assert!(ask(&["status"], &gateway.address).0);
}

#[test]
fn without_a_gateway_the_question_is_whether_it_runs() {
    let (gone, nobody) = {
        let gateway = Gateway::start(Ok(()));
        (gateway.address.clone(), ["status", "status --ready", "explain a"])
    };
    for words in nobody {
        let (done, out, err) = ask(&words.split(' ').collect::<Vec<_>>(), &gone);
        assert!(!done && out.is_empty());
        assert!(
            err.starts_with(&format!("error: cannot reach the admin API at {gone}: ")),
            "{err}"
        );
        assert!(err.contains("Is the gateway running?"), "{err}");
    }
}

#[test]
fn a_unix_socket_is_asked_in_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = AdminListener::unix(&path).unwrap();
    let gateway = Gateway::over(listener, format!("unix:{}", path.display()), Ok(()));
    assert!(ask(&["status"], &gateway.address).1.starts_with("west  ready\n"));
}

#[test]
fn explain_asks_the_gateway_or_a_file() {
    let gateway = Gateway::start(Ok(()));
    let (done, out, _) = ask(&["explain", "a&b", "--from", "2001:db8::1"], &gateway.address);
    assert!(done && out.starts_with("Name       a&b for 2001:db8::1\n"), "{out}");
    let arguments = ["explain", "a", "--cluster", "east", "--app", "shop/frontend"];
    let (done, out, _) = ask(&arguments, &gateway.address);
    assert!(done && out.starts_with("Name       a for shop/frontend of cluster east\n"), "{out}");
    let refused = Verdict::Refused { ending: "denied".into(), alert: "access_denied".into() };
    let work = Fake { explanation: Some(explanation("a", refused)), ..Fake::default() };
    let (done, out, _) = strait(&work, &["explain", "a", "--config", "x"]);
    assert!(!done && out.contains("refused: denied"), "{out}");
    let (done, out, _) = strait(&Fake::default(), &["explain", "a", "--config", "x"]);
    assert!(!done && out.is_empty());
}
