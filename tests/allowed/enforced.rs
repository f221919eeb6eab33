//! Documents in a store: given and taken while calls flow.

use std::time::{Duration, Instant};

use crate::common::app::{Connection, dial_from, handshake};
use crate::common::{measured, wait_for, wait_until};

use super::{BATCH, FRONTEND, NOBODY, ORDERS, STOCK, STORE, World};

const BOTH: &str = r#"{"app":"shop/frontend","allowed":[{"app":"orders","clusters":["east","south"]},{"app":"stock"}]}"#;
const STOCK_ALONE: &str = r#"{"allowed":[{"app":"shop/stock"}]}"#;

fn open(world: &World, name: &str) -> Connection {
    let stream = dial_from(FRONTEND, world.west.ingress()).unwrap();
    handshake(stream, name, &world.tls).unwrap()
}

#[test]
fn a_permission_is_given_and_taken_while_calls_flow() {
    let world = World::start(&format!("allowedApps: {{ {STORE} }}\n"), &[]);
    assert!(world.call(FRONTEND, ORDERS).is_err());
    let since = Instant::now();
    world.allow("shop/frontend", BOTH);
    world.waits_for(FRONTEND, ORDERS, "east");
    measured(&format!("an app may be called {:?} after its document was written", since.elapsed()));
    world.waits_for(FRONTEND, STOCK, "south");
    assert!(world.call(BATCH, ORDERS).is_err() && world.call(NOBODY, ORDERS).is_err());
    let (mut orders, mut stock) = (open(&world, ORDERS), open(&world, STOCK));
    assert_eq!((orders.who().unwrap(), stock.who().unwrap()), ("east".into(), "south".into()));
    let since = Instant::now();
    world.allow("shop/frontend", STOCK_ALONE);
    world.waits_for_refusal(FRONTEND, ORDERS);
    measured(&format!("a permission that is taken is refused {:?} later", since.elapsed()));
    world.waits_for(FRONTEND, STOCK, "south");
    // What lives is kept.
    assert_eq!((orders.who().unwrap(), stock.who().unwrap()), ("east".into(), "south".into()));
    world.remove("shop/frontend");
    world.waits_for_refusal(FRONTEND, STOCK);
    assert_eq!(stock.who().unwrap(), "south");
    assert!(world.west.records().iter().all(|record| record["ending"] != "revoked"));
}

#[test]
fn with_on_revoke_close_live_connections_end_and_no_others() {
    let more = format!("allowedApps: {{ {STORE}, onRevoke: close }}\n");
    let world = World::start(&more, &[("shop/frontend", BOTH)]);
    world.waits_for(FRONTEND, ORDERS, "east");
    world.waits_for(FRONTEND, STOCK, "south");
    let (mut orders, mut stock) = (open(&world, ORDERS), open(&world, STOCK));
    assert_eq!((orders.who().unwrap(), stock.who().unwrap()), ("east".into(), "south".into()));
    let since = Instant::now();
    world.allow("shop/frontend", STOCK_ALONE);
    orders.ended().unwrap();
    let took = since.elapsed();
    measured(&format!("a live connection is closed {took:?} after its permission was taken"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let record = world.west.record("revoked");
    assert_eq!(record["route"], "shop/orders");
    assert_eq!(record["reason"], "the caller may not call it any more");
    assert_eq!(stock.who().unwrap(), "south", "what is allowed lives on");
    // Another cluster than the one where it is.
    world.allow("shop/frontend", r#"{"allowed":[{"app":"stock","clusters":["east"]}]}"#);
    stock.ended().unwrap();
    world.waits_for(FRONTEND, STOCK, "east");
}

#[test]
fn a_document_alone_gives_an_egress_address() {
    let more = format!("allowedApps: {{ {STORE}, onRevoke: close }}\n");
    let world = World::start(&more, &[]);
    // Not at an address of another test's.
    let bind = format!("127.90.{}.1", std::process::id() % 250);
    let listener = format!("  egress: {{ bind: {bind}, ports: 21000-21009 }}\n  admin:");
    let text = world.base.replace("  admin:", &listener);
    world.west.rewrite_all(&format!("{text}{more}"));
    world.allow("shop/frontend", BOTH);
    let address = || {
        let status = world.west.status();
        let egress =
            status["egress"].as_array()?.iter().find(|one| one["app"] == "shop/orders")?.clone();
        egress["address"].as_str()?.parse().ok().filter(|_| egress["trouble"].is_null())
    };
    let address: std::net::SocketAddr = wait_for("the app has an egress address", address);
    let discovered = world.west.get("/v1/discover/shop/frontend").unwrap();
    let discovered: serde_json::Value = serde_json::from_slice(&discovered.body).unwrap();
    let orders = discovered["apps"].as_array().unwrap();
    let orders = orders.iter().find(|app| app["app"] == "shop/orders").unwrap();
    assert_eq!(orders["egress"], serde_json::json!([address.to_string()]));
    let open = |source| {
        dial_from(source, address).and_then(|stream| handshake(stream, ORDERS, &world.tls))
    };
    wait_until("it leads there", || open(FRONTEND).is_ok_and(|mut live| live.who().is_ok()));
    assert!(open(BATCH).is_err());
    let mut live = open(FRONTEND).unwrap();
    assert_eq!(live.who().unwrap(), "east");
    world.allow("shop/frontend", STOCK_ALONE);
    live.ended().unwrap();
    assert_eq!(world.west.record("revoked")["listener"], "egress");
    wait_until("the address goes", || dial_from(FRONTEND, address).is_err());
}
