//! Every setting takes effect without a restart.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::gateway::Gateway;
use super::common::{PATIENCE, wait_until};
use super::hello::{hello, padded_hello};
use super::{
    Came, INTERNAL_ERROR, UNRECOGNIZED_NAME, ask, dns_server, ended, marked, send, silent,
};

const A: Came = Came::App(b'a');
const B: Came = Came::App(b'b');

/// One setting: as it stands first, as it stands then, and what a call for a name comes to in either case.
struct Case {
    what: &'static str,
    before: String,
    after: String,
    name: &'static str,
    comes_to: (Came, Came),
}

fn case(
    what: &'static str,
    texts: [String; 2],
    name: &'static str,
    comes_to: (Came, Came),
) -> Case {
    let [before, after] = texts;
    Case { what, before, after, name, comes_to }
}

/// A text with `{}` in it, for two values.
fn each(text: &str, values: [&str; 2]) -> [String; 2] {
    values.map(|value| text.replace("{}", value))
}

/// Apps and their exports.
fn of_apps(a: &str, b: &str) -> Vec<Case> {
    let app = format!("apps: [{{ app: shop/one, endpoints: [\"{a}\"] }}]\n");
    let export = "exports: [{ app: shop/one, allow: any }]\n";
    let refused = UNRECOGNIZED_NAME;
    vec![
        case(
            "names",
            each(
                &format!("{app}{export}names: [\"{{}}\"]\n"),
                ["{app}-{namespace}.example", "{app}.{namespace}.example"],
            ),
            "one.shop.example",
            (refused, A),
        ),
        case(
            "exports[].name",
            each(
                &format!("{app}exports: [{{ app: shop/one, name: {{}}, allow: any }}]\n"),
                ["old.example", "new.example"],
            ),
            "new.example",
            (refused, A),
        ),
        case(
            "exports[].allow",
            each(
                &format!("{app}exports: [{{ app: shop/one, name: one.example, allow: {{}} }}]\n"),
                ["[{ network: 192.0.2.0/24 }]", "any"],
            ),
            "one.example",
            (refused, A),
        ),
        case(
            "apps[].endpoints",
            each(
                "apps: [{ app: shop/one, endpoints: [\"{}\"] }]\nexports: [{ app: shop/one, name: one.example, allow: any }]\n",
                [b, a],
            ),
            "one.example",
            (B, A),
        ),
    ]
}

/// Plain routes.
fn of_routes(a: &str, b: &str) -> Vec<Case> {
    let refused = UNRECOGNIZED_NAME;
    vec![
        case(
            "clusters[].networks",
            each(
                &format!(
                    "clusters: {{ east: {{ networks: [\"{{}}\"] }} }}\nroutes: [{{ name: one.example, endpoints: [\"{a}\"], allow: [{{ networksOf: east }}] }}]\n"
                ),
                ["192.0.2.0/24", "127.0.0.0/8"],
            ),
            "one.example",
            (refused, A),
        ),
        case(
            "routes[].name",
            each(
                &format!("routes: [{{ name: \"{{}}\", endpoints: [\"{a}\"] }}]\n"),
                ["one.example", "*.example"],
            ),
            "two.example",
            (refused, A),
        ),
        case(
            "routes[].endpoints[].priority",
            each(
                &format!(
                    "routes: [{{ name: one.example, endpoints: [{{ address: \"{a}\", priority: {{}} }}, {{ address: \"{b}\", priority: 5 }}] }}]\n"
                ),
                ["4", "6"],
            ),
            "one.example",
            (A, B),
        ),
    ]
}

#[test]
fn what_is_routed_follows_every_setting() {
    let (alpha, beta) = (marked("127.0.0.1:0", b'a'), marked("127.0.0.1:0", b'b'));
    let (a, b) = (alpha.address.to_string(), beta.address.to_string());
    let cases = of_apps(&a, &b).into_iter().chain(of_routes(&a, &b));
    let gateway = Gateway::start("");
    let ingress = gateway.ingress();
    for Case { what, before, after, name, comes_to } in cases {
        for (text, expected) in [(before, comes_to.0), (after, comes_to.1)] {
            change(&gateway, &text);
            assert_eq!(ask(ingress, name), expected, "{what}: {text}");
        }
    }
}

fn errors(gateway: &Gateway) -> String {
    gateway.status()["config"]["errors"].to_string()
}

#[test]
fn files_of_routes_the_resolver_and_the_clusters_name_may_change() {
    let (alpha, beta) = (marked("127.0.0.1:0", b'a'), marked("127.0.0.2:0", b'b'));
    let port = alpha.address.port();
    let beta_too = marked(&format!("127.0.0.2:{port}"), b'b');
    let gateway = Gateway::start("");
    let ingress = gateway.ingress();
    let map = gateway.folder().join("names.map");
    fs::write(&map, format!("one.example {}\n", alpha.address)).unwrap();
    gateway.rewrite("routesFiles: [names.map]\n");
    wait_until("the file's route", || ask(ingress, "one.example") == A);
    fs::write(&map, format!("one.example {}\n", beta.address)).unwrap();
    wait_until("the file's other route", || ask(ingress, "one.example") == B);

    let (first, second) = (dns_server(), dns_server());
    first.addresses("pods.example", &["127.0.0.1"]);
    second.addresses("pods.example", &["127.0.0.2"]);
    let resolver = |server: SocketAddr, local: bool| {
        format!(
            "resolver: {{ servers: [\"{server}\"], allowLocalAddresses: {local} }}\nroutes: [{{ name: one.example, endpoints: [\"pods.example:{port}\"] }}]\n"
        )
    };
    gateway.rewrite(&resolver(first.address, true));
    wait_until("the first server's answer", || ask(ingress, "one.example") == A);
    gateway.rewrite(&resolver(second.address, true));
    wait_until("the second server's answer", || ask(ingress, "one.example") == B);
    gateway.rewrite(&resolver(second.address, false));
    wait_until("no local address", || ask(ingress, "one.example") == INTERNAL_ERROR);
    drop(beta_too);

    gateway.rewrite_all(&super::common::gateway::BASE.replace("west", "north"));
    wait_until("the new name", || gateway.status()["cluster"] == "north");
}

/// Waits until the settings that have just been written are those of new connections.
fn change(gateway: &Gateway, more: &str) {
    let before = gateway.metric("strait_table_generation", &[]);
    gateway.rewrite(more);
    wait_until("the change is in force", || {
        assert_eq!(errors(gateway), "[]", "{more}");
        gateway.metric("strait_table_generation", &[]) > before
    });
}

#[test]
fn limits_of_hellos_may_change() {
    let app = marked("127.0.0.1:0", b'a');
    let routes = format!("routes: [{{ name: one.example, endpoints: [\"{}\"] }}]\n", app.address);
    let gateway =
        Gateway::start(&format!("limits: {{ helloTimeout: 1h, helloBytes: 64KiB }}\n{routes}"));
    let ingress = gateway.ingress();
    let long = || send(TcpStream::connect(ingress).unwrap(), &padded_hello(b"one.example", 3000));
    assert_eq!(long(), A);
    let early = TcpStream::connect(ingress).unwrap();
    wait_until("it is accepted", || gateway.status()["connections"]["open"] == 1);
    change(&gateway, &format!("limits: {{ helloTimeout: 200ms, helloBytes: 2KiB }}\n{routes}"));
    // Code 22, record_overflow (RFC 8446 §6).
    assert_eq!(long(), Came::Alert(22));
    assert_eq!(ask(ingress, "one.example"), A);
    let mut late = TcpStream::connect(ingress).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(late.read(&mut [0]).unwrap(), 0);
    assert_eq!(ended(&gateway, "malformed_hello").len(), 1);
    gateway.record("hello_timeout");
    assert_eq!(send(early, &hello(b"one.example")), A, "accepted under the old limit");
}

#[test]
fn limits_of_connects_and_connections_may_change() {
    let app = marked("127.0.0.1:0", b'a');
    let (silent, _queued, _full) = silent().unwrap();
    let routes = format!(
        "routes: [{{ name: one.example, endpoints: [\"{silent}\", {{ address: \"{}\", priority: 1 }}] }}]\n",
        app.address
    );
    let limits = |limits: &str| format!("limits: {{ {limits} }}\n{routes}");
    let gateway = Gateway::start(&limits("connectTimeout: 1h, connectTotal: 1h"));
    let ingress = gateway.ingress();
    change(&gateway, &limits("connectTimeout: 100ms, connectTotal: 1h"));
    assert_eq!(ask(ingress, "one.example"), A, "the next endpoint, soon");
    change(&gateway, &limits("connectTimeout: 1h, connectTotal: 100ms"));
    assert_eq!(ask(ingress, "one.example"), INTERNAL_ERROR, "no time is left for the next");

    let held = TcpStream::connect(ingress).unwrap();
    wait_until("it is accepted", || gateway.status()["connections"]["open"] == 1);
    change(&gateway, &limits("connectTimeout: 100ms, connections: 1"));
    assert_eq!(ask(ingress, "one.example"), Came::Nothing);
    assert_eq!(gateway.metric("strait_limit_refusals_total", &["limit=\"connections\""]), 1);
    change(&gateway, &limits("connectTimeout: 100ms, connections: 0"));
    assert_eq!(ask(ingress, "one.example"), A);
    drop(held);
}

#[test]
fn the_idle_limit_may_change() {
    let app = marked("127.0.0.1:0", b'a');
    // Silent endpoints: nothing is answered.
    let mute = super::App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let routes = |limit: &str| {
        format!(
            "limits: {{ idleTimeout: {limit}, firstByteTimeout: 0 }}\nroutes: [{{ name: one.example, endpoints: [\"{}\"] }}, {{ name: mute.example, endpoints: [\"{}\"] }}]\n",
            app.address, mute.address
        )
    };
    let gateway = Gateway::start(&routes("1h"));
    change(&gateway, &routes("15s"));
    let connected = Instant::now();
    assert_eq!(ask(gateway.ingress(), "mute.example"), Came::Nothing);
    assert!(connected.elapsed() >= Duration::from_secs(15), "{:?}", connected.elapsed());
    gateway.record("idle_timeout");
}

#[test]
fn what_is_logged_and_measured_may_change() {
    let app = marked("127.0.0.1:0", b'a');
    let at = app.address;
    let routes = format!(
        "routes: [{{ name: one.example, endpoints: [\"{at}\"] }}, {{ name: two.example, endpoints: [\"{at}\"] }}]\n"
    );
    let gateway = Gateway::start(&routes);
    let call = || {
        let before = gateway.metric("strait_connections_total", &[]);
        for name in ["one.example", "two.example", "none.example"] {
            ask(gateway.ingress(), name);
        }
        wait_until("they are counted", || {
            gateway.metric("strait_connections_total", &[]) >= before + 3
        });
    };
    call();
    wait_until("three records", || gateway.records().len() == 3);
    change(&gateway, &format!("log: {{ connections: none }}\n{routes}"));
    call();
    change(&gateway, &format!("log: {{ connections: refusals }}\n{routes}"));
    call();
    wait_until("one more record", || gateway.records().len() == 4);
    assert_eq!(gateway.records()[3]["ending"], "unknown_name", "and none of the second round");

    let two = ["route=\"two.example\"", "ending=\"completed\""];
    assert_eq!(gateway.metric("strait_connections_total", &two), 3);
    assert_eq!(gateway.metric("strait_connections_total", &["route=\"other\""]), 0);
    change(&gateway, &format!("metrics: {{ routes: 1 }}\n{routes}"));
    call();
    assert_eq!(gateway.metric("strait_connections_total", &["route=\"other\""]), 1);
}

#[test]
fn limits_of_draining_may_change() {
    let gateway_limits = |delay: &str, timeout: &str| {
        format!("limits: {{ drainDelay: {delay}, drainTimeout: {timeout} }}\n")
    };
    let mut gateway = Gateway::start(&gateway_limits("1h", "1h"));
    let mut held = TcpStream::connect(gateway.ingress()).unwrap();
    wait_until("it is accepted", || gateway.status()["connections"]["open"] == 1);
    change(&gateway, &gateway_limits("0s", "100ms"));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(matches!(held.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn checks_may_come_and_go_and_so_may_headers_for_endpoints() {
    let headers = super::App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        // A PROXY header of version 2 begins with a CR, a hello with 22.
        let mark = if first == *b"\r" { b'b' } else { b'a' };
        std::io::Write::write_all(&mut stream, &[mark])?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let route = |more: &str| {
        format!("routes: [{{ name: one.example, endpoints: [\"{}\"]{more} }}]\n", headers.address)
    };
    let gateway = Gateway::start(&route(""));
    let ingress = gateway.ingress();
    assert_eq!(ask(ingress, "one.example"), A);
    change(&gateway, &route(", sendProxy: v2"));
    assert_eq!(ask(ingress, "one.example"), B);
    let before = headers.accepted();
    change(&gateway, &route(", check: { kind: tcp, interval: 100ms }"));
    wait_until("checks", || headers.accepted() > before + 3);
    change(&gateway, &route(""));
    assert_eq!(ask(ingress, "one.example"), A);
}
