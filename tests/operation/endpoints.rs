//! Which endpoints are dialled, and when none is.

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::common::gateway::Gateway;
use super::common::{wait_for, wait_until};
use super::{Came, INTERNAL_ERROR, ask, dns_server, ended, health, marked};

/// How often each app answers.
fn shares(gateway: &Gateway, calls: usize) -> HashMap<Came, usize> {
    let ingress = gateway.ingress();
    let mut shares = HashMap::new();
    for _ in 0..calls {
        *shares.entry(ask(ingress, "one.example")).or_default() += 1;
    }
    shares
}

#[test]
fn every_address_of_a_name_and_every_weight_gets_its_share() {
    let dns = dns_server();
    let first = marked("127.0.0.1:0", b'a');
    let port = first.address.port();
    let _second = marked(&format!("127.0.0.2:{port}"), b'b');
    let third = marked("127.0.0.1:0", b'c');
    dns.addresses("pods.example", &["127.0.0.1", "127.0.0.2"]);
    let gateway = Gateway::start(&format!(
        "\
resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}
routes:
  - name: one.example
    endpoints: [\"pods.example:{port}\", {{ address: \"{}\", weight: 6 }}]
",
        dns.address, third.address
    ));
    let shares = shares(&gateway, 800);
    // 100, 100 and 600 on average, with a standard deviation of 12 at most; without weights it would be 267 each. On a busy machine
    // the call before is still open at times, and the less loaded endpoint is preferred then.
    for (app, share) in [(b'a', 40..230), (b'b', 40..230), (b'c', 400..700)] {
        let got = shares.get(&Came::App(app)).copied().unwrap_or_default();
        assert!(share.contains(&got), "{}: {shares:?}", char::from(app));
    }
}

#[test]
fn the_next_priority_serves_while_the_first_is_away() {
    let first = marked("127.0.0.1:0", b'a');
    let at = first.address;
    let second = marked("127.0.0.1:0", b'b');
    let gateway = Gateway::start(&format!(
        "\
routes:
  - name: one.example
    endpoints: [{{ address: \"{}\", priority: 1 }}, {{ address: \"{at}\" }}]
",
        second.address
    ));
    assert_eq!(shares(&gateway, 20), [(Came::App(b'a'), 20)].into());
    drop(first);
    wait_until("the port is free", || TcpListener::bind(at).is_ok());
    assert_eq!(shares(&gateway, 20), [(Came::App(b'b'), 20)].into(), "not one call fails");
    assert!(health(&gateway).contains(&"ejected".to_owned()));
    assert!(gateway.metric("strait_endpoints", &["state=\"ejected\""]) > 0);
    // Three failures eject; later ones only after growing pauses. All others go to the second without a detour.
    let records = wait_for("all records", || {
        Some(ended(&gateway, "completed")).filter(|records| records.len() == 40)
    });
    let detours = records.iter().filter(|record| record["attempts"] == 2).count();
    assert!((3..=10).contains(&detours), "{detours}");

    let _first = marked(&at.to_string(), b'a');
    let ingress = gateway.ingress();
    wait_until("the first serves again", || ask(ingress, "one.example") == Came::App(b'a'));
    assert_eq!(shares(&gateway, 20), [(Came::App(b'a'), 20)].into());
}

#[test]
fn the_last_endpoint_is_dialled_although_it_fails_until_its_check_takes_it_down() {
    let app = marked("127.0.0.1:0", b'a');
    let at = app.address;
    let route = |check: &str| {
        format!("routes:\n  - {{ name: one.example, endpoints: [\"{at}\"]{check} }}\n")
    };
    let gateway = Gateway::start(&route(""));
    drop(app);
    wait_until("the port is free", || TcpListener::bind(at).is_ok());
    assert_eq!(shares(&gateway, 20), [(INTERNAL_ERROR, 20)].into());
    let records = wait_for("all records", || {
        Some(ended(&gateway, "connect_failed")).filter(|records| records.len() == 20)
    });
    assert!(records.iter().all(|record| record["attempts"] == 1), "{records:?}");

    gateway.rewrite(&route(
        ", check: { kind: tcp, interval: 100ms, timeout: 100ms, rise: 2, fall: 2 }",
    ));
    wait_until("the check takes it down", || health(&gateway) == ["down"]);
    let asked = Instant::now();
    assert_eq!(ask(gateway.ingress(), "one.example"), INTERNAL_ERROR);
    assert!(asked.elapsed() < Duration::from_secs(3), "at once");
    assert_eq!(gateway.record("no_healthy_endpoint")["attempts"], 0, "nobody is dialled");

    let _app = marked(&at.to_string(), b'a');
    wait_until("the check brings it up", || health(&gateway) == ["healthy"]);
    assert_eq!(ask(gateway.ingress(), "one.example"), Came::App(b'a'));
}
