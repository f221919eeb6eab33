//! The API as curl sees it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::gateway::Gateway;
use crate::common::process::{Process, run};
use crate::common::{counterpart, wait_for, wait_until};

use super::{FRONTEND, ORDERS, STORE, World};

const JSON: &str = "Content-Type: application/json";
const FRONTEND_AT: &str = "/v1/allowed/shop/frontend";

/// What curl got.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    headers: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    }

    fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {self:?}")).to_owned()
    }
}

/// Runs curl. `None`: there is no curl, and the test has said so.
pub(super) fn curl(test: &str, arguments: &[&str]) -> Option<Answer> {
    let mut command = Command::new(counterpart(test, "curl")?);
    let output =
        run(command.args(["-sS", "-i", "--max-time", "60", "-H", "Expect:"]).args(arguments));
    let received = String::from_utf8_lossy(&output.stdout).into_owned();
    let (headers, body) = received.split_once("\r\n\r\n").unwrap_or_default();
    let code = headers.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Some(Answer { code, headers: headers.to_owned(), body: body.to_owned() })
}

/// Asks a gateway at its socket; what a change needs is sent with it.
fn ask(gateway: &Gateway, method: &str, path: &str, more: &[&str]) -> Option<Answer> {
    let socket = gateway.folder().join("admin.sock").display().to_string();
    let url = format!("http://localhost{path}");
    let common = ["--unix-socket", &socket, "-X", method, "-H", JSON, &url];
    curl("api", &[&common, more].concat())
}

/// The kind of a problem, which must be one, and say what to do.
fn kind(answer: &Answer) -> (u16, String) {
    let problem = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert_eq!(problem["status"], answer.code, "{answer:?}");
    assert!(problem["fix"].as_str().is_some_and(|fix| fix.len() > 5), "{answer:?}");
    let kind = problem["type"].as_str().unwrap_or_default();
    (answer.code, kind.trim_start_matches("urn:strait:problem:").to_owned())
}

fn world() -> World {
    World::start(&format!("allowedApps: {{ {STORE} }}\n"), &[])
}

#[test]
fn every_verb_does_what_it_says() {
    if counterpart("every_verb_does_what_it_says", "curl").is_none() {
        return;
    }
    let world = world();
    let ask =
        |method: &str, path: &str, more: &[&str]| ask(&world.west, method, path, more).unwrap();
    assert_eq!(ask("GET", "/v1/allowed", &[]).json(), json!({ "documents": [] }));
    assert_eq!(kind(&ask("GET", FRONTEND_AT, &[])), (404, "no-document".into()));

    let orders = r#"{"allowed":[{"app":"orders","clusters":["east"]}]}"#;
    let absent = ["-H", "If-None-Match: *", "-d", orders];
    let made = ask("PUT", FRONTEND_AT, &absent);
    assert_eq!((made.code, &made.json()["changed"]), (201, &json!(true)), "{made:?}");
    let known = kind(&ask("PUT", FRONTEND_AT, &absent));
    assert_eq!(known, (412, "conflict".into()));
    let read = ask("GET", FRONTEND_AT, &[]);
    assert_eq!((read.code, read.etag()), (200, made.etag()));
    let whole = json!({ "app": "shop/frontend", "allowed": [{ "app": "shop/orders", "clusters": ["east"] }] });
    assert_eq!(read.json(), whole);
    let cached = ask("GET", FRONTEND_AT, &["-H", &format!("If-None-Match: {}", read.etag())]);
    assert_eq!(cached.code, 304);

    let matching = format!("If-Match: {}", made.etag());
    let south = r#"{"app":"shop/frontend","allowed":[{"app":"shop/orders","clusters":["south"]}]}"#;
    let waiting = format!("{FRONTEND_AT}?wait=60");
    let set = ask("PUT", &waiting, &["-H", &matching, "-d", south]);
    assert_eq!((set.code, &set.json()["inForce"]), (200, &json!(true)), "{set:?}");
    world.waits_for(FRONTEND, ORDERS, "south");
    let late = ask("PUT", FRONTEND_AT, &["-H", &matching, "-d", orders]);
    assert_eq!(kind(&late), (412, "conflict".into()));
    assert_eq!(late.json()["version"], set.json()["version"]);

    let allow = |body: &str| ask("POST", &format!("{FRONTEND_AT}:allow?wait=60"), &["-d", body]);
    let allowed = allow(r#"{"app":"stock"}"#);
    assert_eq!(allowed.json()["document"]["allowed"][1], json!({ "app": "shop/stock" }));
    assert_eq!(allow(r#"{"app":"shop/stock"}"#).json()["changed"], false);
    let revoke = |body: &str| ask("POST", &format!("{FRONTEND_AT}:revoke?wait=60"), &["-d", body]);
    assert_eq!(revoke(r#"{"app":"orders"}"#).json()["changed"], true);
    assert!(world.call(FRONTEND, ORDERS).is_err());
    assert_eq!(kind(&revoke(r#"{"app":"stock","clusters":["east"]}"#)).0, 400);
    let listed = ask("GET", "/v1/allowed?app=shop/frontend", &[]).json();
    let listed = &listed["documents"][0];
    assert_eq!(
        (&listed["source"], &listed["document"]["allowed"][0]["app"]),
        (&json!("store"), &json!("shop/stock"))
    );

    assert_eq!(kind(&ask("DELETE", FRONTEND_AT, &["-H", "If-Match: \"old\""])).0, 412);
    let removed = ask("DELETE", &waiting, &[]).json();
    assert_eq!((&removed["inForce"], &removed["version"]), (&json!(true), &Value::Null));
    assert_eq!(kind(&ask("DELETE", FRONTEND_AT, &[])).0, 404);
    told(&world.west);
}

/// The log names who has changed what.
fn told(gateway: &Gateway) {
    let lines = gateway.log();
    let changes: Vec<_> = lines.iter().filter(|line| line["what"].is_string()).collect();
    let user = rustix::process::getuid().as_raw();
    for change in &changes {
        assert_eq!(change["caller"], "shop/frontend", "{change}");
        let operator = change["operator"].as_str().unwrap_or_default();
        assert!(operator.starts_with(&format!("user {user} (process ")), "{change}");
    }
    let allowed = changes.iter().find(|change| change["what"] == "allow").unwrap();
    assert_eq!(allowed["called"], "shop/stock");
    assert!(allowed["version"].is_string(), "{allowed}");
}

#[test]
fn a_document_that_cannot_be_kept_is_refused_with_where_and_why() {
    if counterpart("a_document_that_cannot_be_kept_is_refused", "curl").is_none() {
        return;
    }
    let world = world();
    let put = |more: &[&str]| ask(&world.west, "PUT", FRONTEND_AT, more).unwrap();
    for (body, line, column) in [
        ("{\n \"allowed\": [{ \"app\": \"*\" }] }", 2, 23),
        (r#"{"allowed":[{"app":"a||b"}]}"#, 1, 22),
        (r#"{"allow":[]}"#, 1, 8),
        (r#"{"app":"shop/other"}"#, 1, 8),
        ("[]", 1, 1),
    ] {
        let answer = put(&["-d", body]);
        assert_eq!(kind(&answer), (400, "bad-document".into()), "{body}");
        let at = (answer.json()["line"].as_u64(), answer.json()["column"].as_u64());
        assert_eq!(at, (Some(line), Some(column)), "{answer:?}");
    }
    let large = world.west.folder().join("large");
    for size in [70 << 10, 900 << 10] {
        fs::write(&large, " ".repeat(size)).unwrap();
        let body = format!("@{}", large.display());
        let answer = put(&["--data-binary", &body]);
        assert_eq!(kind(&answer), (413, "too-large".into()), "{size}");
    }
    nothing_is_written(&world.west);
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    if counterpart("what_cannot_be_done_is_refused_with_what_to_do", "curl").is_none() {
        return;
    }
    let world = world();
    for (method, path, more, expected) in [
        (
            "PUT",
            FRONTEND_AT,
            &["-H", "Content-Type: text/plain", "-d", "{}"][..],
            (415, "content-type"),
        ),
        (
            "PUT",
            FRONTEND_AT,
            &["-H", "Origin: http://evil.example", "-d", "{}"],
            (403, "foreign-origin"),
        ),
        ("PUT", FRONTEND_AT, &["-H", "If-None-Match: \"1\"", "-d", "{}"], (400, "condition")),
        ("PUT", "/v1/allowed/shop/frontend?wait=1000", &["-d", "{}"], (400, "bad-request")),
        ("PUT", "/v1/allowed/shop/a%7C%7Cb", &["-d", "{}"], (400, "bad-request")),
        ("POST", "/v1/allowed/shop/frontend:grant", &["-d", "{}"], (404, "no-path")),
        ("POST", FRONTEND_AT, &["-d", "{}"], (405, "method")),
        ("PATCH", FRONTEND_AT, &["-d", "{}"], (405, "method")),
        ("PUT", "/v1/allowed", &["-d", "{}"], (405, "method")),
        ("GET", "/v1/allowed?watch=perhaps", &[], (400, "bad-request")),
        ("GET", "/v1/nothing", &[], (404, "no-path")),
    ] {
        // The one header that is given twice is curl's last.
        let more: Vec<_> = more.to_vec();
        let answer = if more.contains(&"Content-Type: text/plain") {
            let socket = world.west.folder().join("admin.sock").display().to_string();
            let url = format!("http://localhost{path}");
            curl("api", &[&["--unix-socket", &socket, "-X", method, &url], &*more].concat())
                .unwrap()
        } else {
            ask(&world.west, method, path, &more).unwrap()
        };
        assert_eq!(kind(&answer), (expected.0, expected.1.to_owned()), "{method} {path}");
    }
    nothing_is_written(&world.west);
}

/// The store has no document.
fn nothing_is_written(gateway: &Gateway) {
    assert!(
        fs::read_dir(gateway.folder().join("allowed"))
            .unwrap()
            .all(|file| { !file.unwrap().file_name().to_string_lossy().ends_with(".json") }),
        "nothing was written"
    );
}

#[test]
fn writers_that_meet_lose_nothing_of_each_other() {
    if counterpart("writers_that_meet_lose_nothing_of_each_other", "curl").is_none() {
        return;
    }
    let world = world();
    // Fewer writes in all than a change is tried, so that none can be beaten by the others for good.
    thread::scope(|scope| {
        for writer in 0..4 {
            let west = &world.west;
            scope.spawn(move || {
                for number in 0..4 {
                    let body = format!("{{\"app\":\"app{writer}-{number}\"}}");
                    let answer = ask(west, "POST", &format!("{FRONTEND_AT}:allow"), &["-d", &body]);
                    assert_eq!(answer.unwrap().code, 200);
                }
            });
        }
    });
    let read = ask(&world.west, "GET", FRONTEND_AT, &[]).unwrap();
    assert_eq!(read.json()["allowed"].as_array().map(Vec::len), Some(16));
    // Of two that replace the same version one is told that he is late.
    let matching = format!("If-Match: {}", read.etag());
    let codes: Vec<u16> = thread::scope(|scope| {
        let write = |_| {
            let (west, matching) = (&world.west, &matching);
            scope.spawn(move || {
                let body = "{\"allowed\":[]}";
                ask(west, "PUT", FRONTEND_AT, &["-H", matching, "-d", body]).unwrap().code
            })
        };
        let writers: Vec<_> = (0..2).map(write).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 412).count(), 1, "{codes:?}");
}

/// A watch: curl, and the lines that it gets.
struct Watch {
    _curl: Process,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(gateway: &Gateway) -> Self {
        let socket = gateway.folder().join("admin.sock");
        let mut command = Command::new("curl");
        command.args(["-sSN", "--unix-socket"]).arg(socket);
        command.arg("http://localhost/v1/allowed?watch=true");
        let mut child: Child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _curl: Process(child), lines }
    }

    /// The next event that is no heartbeat; nothing at the end.
    fn next(&mut self) -> Option<Value> {
        let events = self.lines.by_ref().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        events.into_iter().find(|event: &Value| event["event"] != "heartbeat")
    }
}

#[test]
fn a_watch_tells_what_is_in_force_then_what_changes_until_the_gateway_stops() {
    if counterpart("a_watch_tells_what_is_in_force", "curl").is_none() {
        return;
    }
    let mut world = World::start(
        &format!("allowedApps: {{ {STORE} }}\nlimits: {{ drainTimeout: 0s }}\n"),
        &[("shop/batch", r#"{"allowed":[{"app":"stock"}]}"#)],
    );
    let mut watch = Watch::start(&world.west);
    let first = watch.next().unwrap();
    assert_eq!(
        (&first["event"], &first["document"]["app"]),
        (&json!("document"), &json!("shop/batch"))
    );
    assert_eq!(watch.next().unwrap(), json!({ "event": "complete" }));
    // Another writer, past the gateway.
    world.allow("shop/frontend", r#"{"allowed":[{"app":"orders"}]}"#);
    let changed = watch.next().unwrap();
    assert_eq!(changed["document"]["allowed"][0]["app"], "shop/orders");
    world.remove("shop/frontend");
    let gone = json!({ "event": "gone", "source": "store", "app": "shop/frontend" });
    assert_eq!(watch.next().unwrap(), gone);

    let mut others: Vec<_> = (0..15).map(|_| Watch::start(&world.west)).collect();
    assert!(others.iter_mut().all(|watch| watch.next().is_some()));
    let refused = ask(&world.west, "GET", "/v1/allowed?watch=true", &[]).unwrap();
    assert_eq!(kind(&refused), (503, "too-many-watches".into()));
    drop(others.pop());
    wait_until("there is room again", || {
        let mut watch = Watch::start(&world.west);
        watch.next().is_some_and(|event| event["event"] == "document")
    });

    world.west.signal(Signal::TERM);
    assert_eq!(watch.next(), None);
    world.west.exit();
}

#[test]
fn without_a_store_and_with_one_that_is_down_writers_are_told() {
    if counterpart("without_a_store_and_with_one_that_is_down_writers_are_told", "curl").is_none() {
        return;
    }
    let configured = "allowed: [{ app: shop/frontend, allowed: [{ app: orders }] }]\n";
    let world = World::start(configured, &[]);
    let put = || ask(&world.west, "PUT", FRONTEND_AT, &["-d", "{}"]).unwrap();
    let refused = put();
    assert_eq!(kind(&refused), (409, "no-store".into()));
    assert!(refused.body.contains("allowedApps.store"), "{refused:?}");
    let read = ask(&world.west, "GET", FRONTEND_AT, &[]).unwrap();
    assert_eq!(read.json()["allowed"][0]["app"], "shop/orders");
    assert_eq!(ask(&world.west, "GET", "/v1/allowed/shop/batch", &[]).unwrap().code, 404);

    // A port that nobody can have.
    let down = "allowedApps: { store: { redis: { url: \"redis://127.0.0.1:1/0\" } } }\n";
    world.west.rewrite_all(&format!("{}{down}", world.base));
    let refused = wait_for("the store is configured", || Some(put()).filter(|it| it.code != 409));
    assert_eq!(kind(&refused), (503, "store-unavailable".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(
        ask(&world.west, "GET", "/v1/allowed", &[]).unwrap().code,
        200,
        "what is in force is told"
    );
}

#[test]
fn a_caller_discovers_what_it_may_call_and_whether_that_is_well() {
    if counterpart("a_caller_discovers_what_it_may_call", "curl").is_none() {
        return;
    }
    let says = r#"{"allowed":[{"app":"orders","clusters":["east","south"]},{"app":"missing"}]}"#;
    let world = World::start(&format!("allowedApps: {{ {STORE} }}\n"), &[("shop/frontend", says)]);
    let discover = |app: &str| {
        ask(&world.west, "GET", &format!("/v1/discover/shop/{app}"), &[]).unwrap().json()
    };
    let orders = || {
        let apps = discover("frontend")["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter().find(|app| app["app"] == "shop/orders").unwrap_or_default()
    };
    let both =
        json!([{ "cluster": "east", "healthy": true }, { "cluster": "south", "healthy": true }]);
    wait_until("both clusters are heard", || orders()["clusters"] == both);
    assert_eq!((&orders()["names"], &orders()["healthy"]), (&json!([ORDERS]), &json!(true)));
    assert_eq!(discover("frontend")["known"], true);
    wait_until("it is known that nobody offers the other app", || {
        let apps = discover("frontend")["apps"].as_array().cloned().unwrap_or_default();
        apps.iter().any(|app| app["app"] == "shop/missing" && app["healthy"] == false)
    });
    world.others[0].signal(Signal::KILL);
    let lost =
        json!([{ "cluster": "east", "healthy": false }, { "cluster": "south", "healthy": true }]);
    wait_until("east is lost", || orders()["clusters"] == lost);
    assert_eq!(orders()["healthy"], true);
    assert_eq!(discover("nobody"), json!({ "app": "shop/nobody", "known": false, "apps": [] }));
}

#[test]
fn the_description_is_that_of_the_types_and_is_served() {
    let made = format!("{:#}\n", strait::permissions::api::openapi());
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/strait/v1/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    let text = fs::read_to_string(kept).unwrap_or_default();
    assert!(text == made, "run UPDATE_OPENAPI=1 cargo test --test allowed the_description");
    let gateway = Gateway::start("");
    let served = gateway.get("/v1/openapi.json").unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&served.body).unwrap(),
        strait::permissions::api::openapi()
    );
    // Every path and method of it is there; a body is missing, and whoever reads is told so.
    let paths = strait::permissions::api::openapi()["paths"].as_object().cloned().unwrap();
    for (path, methods) in paths {
        let path = path.replace("{namespace}", "shop").replace("{app}", "frontend");
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let Some(answer) = ask(&gateway, &method, &path, &[]) else { return };
            assert!(!answer.body.contains("problem:method"), "{method} {path}: {answer:?}");
            assert!(!answer.body.contains("problem:no-path"), "{method} {path}: {answer:?}");
        }
    }
}
