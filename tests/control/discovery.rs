//! Endpoints that are DNS names: the gateway dials what they stand for now.

use std::net::IpAddr;

use super::common::app::{App, connect};
use super::common::authority::Authority;
use super::common::gateway::Gateway;
use super::common::{app, dns_server, wait_until};

/// The name that a headless Service has.
const HEADLESS: &str = "checkout-dapr.shop.svc.cluster.example";

/// Two replicas on the same port, as a headless Service's pods have it.
fn replicas(authority: &Authority) -> (App, App) {
    let start = |at, name| App::start_at(at, authority, name, &["one.example"]);
    let first = start("127.0.0.1:0".parse().unwrap(), "first");
    let mut beside = first.address;
    beside.set_ip(IpAddr::from([127, 0, 0, 2]));
    (start(beside, "second"), first)
}

#[test]
fn an_endpoint_that_is_a_name_is_followed_as_its_addresses_change() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HEADLESS, &["127.0.0.1"]);
    let (second, first) = replicas(&authority);
    let gateway = Gateway::start(&format!(
        "\
resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}
routes:
  - {{ name: one.example, endpoints: [\"{HEADLESS}:{}\"] }}
",
        dns.address,
        first.address.port()
    ));
    let (ingress, tls) = (gateway.ingress(), authority.client());
    let leads_to = |app: &str| app::call(ingress, "one.example", &tls).is_ok_and(|who| who == app);
    wait_until("the first address", || leads_to("first"));
    let mut live = connect(ingress, "one.example", &tls).unwrap();

    dns.addresses(HEADLESS, &["127.0.0.2"]);
    wait_until("the second address", || leads_to("second"));
    for _ in 0..10 {
        assert!(leads_to("second"), "the first address is still in use");
    }
    assert_eq!(live.who().unwrap(), "first", "a live connection stays where it is");
    // Else the less loaded of the two would always be the second.
    drop(live);

    dns.addresses(HEADLESS, &["127.0.0.1", "127.0.0.2"]);
    let seen = (first.accepted(), second.accepted());
    wait_until("both addresses", || {
        let _ = leads_to("first");
        first.accepted() > seen.0 && second.accepted() > seen.1
    });

    dns.set(HEADLESS, super::common::dns::Reply::Silence);
    let asked = dns.asked(HEADLESS);
    wait_until("the server is asked in vain", || dns.asked(HEADLESS) > asked + 1);
    let who = app::call(ingress, "one.example", &tls).expect("what was last known is kept");
    assert!(["first", "second"].contains(&who.as_str()), "{who}");
}
