//! Callers as Dapr's sidecars are, between two clusters that see nothing of each other but their gateways.

use super::apart::{Apart, FRONTEND};
use super::common::authority::Authority;
use super::common::wait_until;
use super::grpc::{ANOTHER_APP, Answer, Caller, Sidecar, Way};

const OF_EAST: &str = "\
apps:
  - { app: shop/orders, endpoints: [\"10.2.1.1:50002\"] }
  - { app: shop/plain, endpoints: [\"10.2.1.2:50002\"] }
exports:
  - { app: shop/orders, allow: [{ cluster: west, apps: [shop/frontend] }] }
  - { app: shop/plain, allow: [{ cluster: west }], plaintext: true }
";
const OF_WEST: &str = "\
apps: [{ app: shop/frontend, from: [{ network: 10.1.4.7/32 }] }]
imports:
  - { app: shop/orders, clusters: [east], allow: [shop/frontend] }
  - { app: shop/plain, clusters: [east], allow: any, plaintext: true }
";

/// A call and what came back: who has answered, and who the callee says has called.
fn who(caller: &mut Caller) -> (String, String) {
    let Answer { app, caller, body } = caller.call("who?").unwrap();
    assert_eq!(body, "who?");
    (app, caller)
}

#[test]
fn grpc_callers_cross_by_name_by_address_and_in_plain_text() {
    let Some(apart) = Apart::start("gRPC callers", OF_WEST, OF_EAST) else { return };
    let root = Authority::new();
    let orders = apart.callees.serve(Apart::callee(1), "shop/orders", Some(&root));
    let plain = apart.callees.serve(Apart::callee(2), "shop/plain", None);
    for callee in [orders, plain] {
        apart.dial(callee).expect_err("nothing of east but its gateway is reachable from west");
    }
    let frontend = Sidecar::new(FRONTEND, "shop/frontend", &root);
    let identity = "spiffe://public/ns/shop/frontend";
    let named = Apart::named("orders.shop.mesh.example");
    let dialled = Way::Dialled(apart.egress("shop/orders"));
    let in_plain_text = Way::Plain(apart.egress("shop/plain"));
    let ways = [
        (&named, "shop/orders", identity),
        (&dialled, "shop/orders", identity),
        (&in_plain_text, "shop/plain", "nobody"),
    ];
    for (way, app, known_as) in ways {
        let mut caller = apart.callers.connect(&frontend, way, app).unwrap();
        for _ in 0..3 {
            assert_eq!(who(&mut caller), (app.to_owned(), known_as.to_owned()), "{way:?}");
        }
        assert_eq!(caller.dials(), 1, "{way:?}");
    }
    // That both sidecars prove themselves to each other, gateways or not.
    let error = apart.callers.connect(&frontend, &dialled, "shop/stock").err().unwrap();
    assert!(error.contains(ANOTHER_APP), "{error}");
    let nobody = Sidecar { certificate: None, ..Sidecar::new(FRONTEND, "shop/frontend", &root) };
    let mut nobody = apart.callers.connect(&nobody, &dialled, "shop/orders");
    assert!(nobody.as_mut().map_or(true, |caller| caller.who().is_err()));

    drop(apart.callers);
    // Of the callers by address none had a name, as daprd with the resolver of Kubernetes or mDNS.
    let ended = |listener: &str, named: bool| {
        let of = |record: &serde_json::Value| {
            record["listener"] == listener && record["name"].is_string() == named
        };
        apart.near.records().iter().any(of)
    };
    wait_until("the records of both listeners", || {
        ended("10.1.0.1:8443", true) && ended("egress", false)
    });
    for record in apart.near.records() {
        assert_eq!((&record["via"], &record["caller"]), (&"east".into(), &"shop/frontend".into()));
    }
    for record in apart.far.records().iter().filter(|record| record["route"] != "exchange") {
        assert_eq!(
            (&record["cluster"], &record["caller"]),
            (&"west".into(), &"shop/frontend".into())
        );
        assert!(record["client"].as_str().unwrap().starts_with("10.1.4.7:"), "{record}");
    }
}
