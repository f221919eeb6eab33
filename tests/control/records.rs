//! What the gateway says of each connection: one record, one count, and a hint where it refuses.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::common::app::handshake;
use super::common::gateway::Gateway;
use super::common::{PATIENCE, wait_until};
use super::{Apps, routes};

/// Sends bytes, reads to the end.
fn send(gateway: &Gateway, bytes: &[u8]) {
    let mut stream = TcpStream::connect(gateway.ingress()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A hello without a name: rustls sends none where it is asked for an address.
fn call_without_a_name(apps: &Apps, gateway: &Gateway) {
    let stream = TcpStream::connect(gateway.ingress()).unwrap();
    assert!(handshake(stream, "127.0.0.1", &apps.tls).is_err());
}

#[test]
fn every_connection_has_one_record_and_is_counted_once() {
    let apps = Apps::start();
    let gateway =
        Gateway::start(&routes(&[("one.example", &apps.alpha), ("two.example", &apps.beta)]));
    let ingress = gateway.ingress();
    for (name, times) in [("one.example", 5), ("two.example", 3), ("none.example", 2)] {
        for _ in 0..times {
            let _ = apps.call(ingress, name);
        }
    }
    call_without_a_name(&apps, &gateway);
    send(&gateway, b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n");
    // As a balancer's probe: counted, but not worth a line.
    drop(TcpStream::connect(ingress).unwrap());

    let count = |labels: &[&str]| gateway.metric("strait_connections_total", labels);
    wait_until("all connections are counted", || count(&[]) >= 13);
    wait_until("all records are there", || gateway.records().len() >= 12);
    let ended = |route: &str| {
        ["completed", "reset_by_client", "reset_by_endpoint"]
            .map(|ending| count(&[&format!("route=\"{route}\""), &format!("ending=\"{ending}\"")]))
            .iter()
            .sum::<u64>()
    };
    assert_eq!((ended("one.example"), ended("two.example")), (5, 3));
    assert_eq!(count(&["ending=\"unknown_name\""]), 2);
    assert_eq!(count(&["ending=\"no_server_name\""]), 1);
    assert_eq!(count(&["ending=\"not_tls\""]), 1);
    assert_eq!(count(&["ending=\"client_gone\""]), 1);
    assert_eq!(gateway.metric("strait_connections_open", &[]), 0);
    assert_eq!((count(&[]), gateway.records().len()), (13, 12), "none twice");
    assert!(gateway.metric("strait_bytes_total", &["route=\"one.example\""]) > 0);
    assert_eq!(gateway.status()["connections"]["total"], 13);
}

#[test]
fn a_refusal_tells_the_operator_what_to_do() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    call_without_a_name(&apps, &gateway);
    send(&gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let hint = |ending: &str| gateway.record(ending)["hint"].to_string();
    let nameless = hint("no_server_name");
    assert!(nameless.contains("nameformat") && nameless.contains("mdns"), "{nameless}");
    let plain = hint("not_tls");
    assert!(plain.contains("mTLS"), "{plain}");
    let _ = apps.call(gateway.ingress(), "none.example");
    assert_ne!(gateway.record("unknown_name")["hint"], serde_json::Value::Null);
}

#[test]
fn what_a_client_sends_is_escaped_in_every_line() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    send(&gateway, b"\x1b[31mred\r\n{\"ending\":\"completed\"}\n\xff\xfe\0");
    gateway.record("not_tls");
    // Reads every line as JSON.
    assert_eq!(gateway.records().len(), 1);
    assert!(gateway.lines().iter().all(|line| !line.contains('\u{1b}')));
}

#[test]
fn the_log_may_be_kept_to_refusals() {
    let apps = Apps::start();
    let routes = routes(&[("one.example", &apps.alpha)]);
    let gateway = Gateway::start(&format!("log: {{ connections: refusals }}\n{routes}"));
    for name in ["one.example", "none.example", "one.example"] {
        let _ = apps.call(gateway.ingress(), name);
    }
    wait_until("all connections are counted", || {
        gateway.metric("strait_connections_total", &[]) >= 3
    });
    gateway.record("unknown_name");
    assert_eq!(gateway.records().len(), 1);
}

#[test]
fn a_client_that_never_finishes_its_hello_is_let_go_by_the_deadline() {
    let apps = Apps::start();
    let routes = routes(&[("one.example", &apps.alpha)]);
    let gateway = Gateway::start(&format!("limits: {{ helloTimeout: 1s }}\n{routes}"));
    let connected = std::time::Instant::now();
    send(&gateway, b"\x16\x03\x01");
    assert!(connected.elapsed() >= Duration::from_millis(900), "{:?}", connected.elapsed());
    gateway.record("hello_timeout");
}

#[test]
fn metrics_tell_of_sources_and_endpoints() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    let endpoints = ["route=\"one.example\"", "state=\"healthy\""];
    assert_eq!(gateway.metric("strait_endpoints", &endpoints), 1);
    assert_eq!(gateway.metric("strait_discovery_up", &["source=\"dns\""]), 1);
    assert_eq!(gateway.metric("strait_table_routes", &[]), 1);
}
