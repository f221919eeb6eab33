//! Name servers that fail, lie, say nothing or change their mind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;

use super::common::dns::{DnsServer, Reply};
use super::common::gateway::Gateway;
use super::common::{dns_server, measured, wait_until};
use super::{INTERNAL_ERROR, NAME, ask, echo, echo_at, ended, open, rest};

const HOST: &str = "pods.example";

/// A gateway whose route leads to a name that stands for these addresses.
fn gateway(addresses: &[&str], port: u16) -> (Arc<DnsServer>, Gateway) {
    let dns = dns_server();
    dns.addresses(HOST, addresses);
    let gateway = Gateway::start(&format!(
        "\
resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}
routes: [{{ name: {NAME}, endpoints: [\"{HOST}:{port}\"] }}]
",
        dns.address
    ));
    (dns, gateway)
}

/// Whether the source is up, and its age in seconds.
fn source(gateway: &Gateway) -> (bool, f64) {
    let source = gateway.status()["sources"][0].clone();
    (source["up"].as_bool().unwrap(), source["age_seconds"].as_f64().unwrap_or_default())
}

#[test]
fn a_name_server_that_fails_in_any_way_leaves_the_last_answer_in_force_and_its_age_rises() {
    let app = echo();
    let (dns, gateway) = gateway(&["127.0.0.1"], app.address.port());
    let failures = [
        ("SERVFAIL", Reply::Code(ResponseCode::ServFail)),
        ("REFUSED", Reply::Code(ResponseCode::Refused)),
        ("silence", Reply::Silence),
        ("garbage", Reply::Garbage),
        ("an answer to another question", Reply::OtherId([203, 0, 113, 9].into())),
    ];
    for (what, failure) in failures {
        dns.set(HOST, failure);
        wait_until(&format!("{what} is noticed"), || !source(&gateway).0);
        let since = Instant::now();
        let (_, age) = source(&gateway);
        wait_until("the age rises", || source(&gateway).1 > age + 1.0);
        assert_eq!(gateway.metric("strait_discovery_up", &["source=\"dns\""]), 0);
        drop(open(gateway.ingress(), NAME).unwrap());
        dns.addresses(HOST, &["127.0.0.1"]);
        wait_until(&format!("the end of {what} is noticed"), || source(&gateway).0);
        measured(&format!(
            "DNS says {what}: last answer in force, up again after {:?}",
            since.elapsed()
        ));
    }
    // An answer that needs TCP because it does not fit.
    dns.set(HOST, Reply::OnlyOverTcp(vec![[127, 0, 0, 1].into()]));
    let asked = dns.asked(HOST);
    wait_until("it is asked again", || dns.asked(HOST) > asked + 4);
    assert!(source(&gateway).0);
    drop(open(gateway.ingress(), NAME).unwrap());
}

#[test]
fn a_name_that_exists_no_more_has_no_endpoints_and_its_return_counts() {
    let app = echo();
    let (dns, gateway) = gateway(&["127.0.0.1"], app.address.port());
    let mut live = open(gateway.ingress(), NAME).unwrap();
    dns.set(HOST, Reply::Code(ResponseCode::NXDomain));
    let gone = Instant::now();
    wait_until("the route has no endpoint", || open(gateway.ingress(), NAME).is_err());
    assert_eq!(rest(&mut ask(gateway.ingress(), NAME).unwrap()).unwrap(), INTERNAL_ERROR);
    measured(&format!("NXDOMAIN: refused {:?} later", gone.elapsed()));
    assert!(source(&gateway).0, "it is an answer");
    assert!(ended(&gateway, "no_healthy_endpoint") > 0);
    super::exchange(&mut live, b"still there?").unwrap();
    dns.addresses(HOST, &["127.0.0.1"]);
    wait_until("it is back", || open(gateway.ingress(), NAME).is_ok());
}

#[test]
fn an_answer_that_flaps_every_second_fails_no_call() {
    let first = echo();
    let port = first.address.port();
    let second = echo_at(&format!("127.0.0.2:{port}"));
    let (dns, gateway) = gateway(&["127.0.0.1"], port);
    let ingress = gateway.ingress();
    let mut live = open(ingress, NAME).unwrap();
    let generation = || gateway.metric("strait_table_generation", &[]);
    let (before, started, mut calls) = (generation(), Instant::now(), 0);
    for flap in 0..6 {
        let answers: &[&str] =
            [&["127.0.0.2"][..], &["127.0.0.1", "127.0.0.2"], &["127.0.0.1"]][flap % 3];
        dns.addresses(HOST, answers);
        while started.elapsed() < Duration::from_secs(1) * (u32::try_from(flap).unwrap() + 1) {
            drop(open(ingress, NAME).unwrap());
            calls += 1;
        }
    }
    let tables = generation() - before;
    measured(&format!("DNS answer that flaps for 6 s: {calls} calls, 0 failed, {tables} tables"));
    assert!((1..=14).contains(&tables), "{tables}");
    assert!(first.accepted() > 0 && second.accepted() > 0);
    super::exchange(&mut live, b"still there?").unwrap();
}
