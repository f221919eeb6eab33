//! Calls that cross, and what both gateways say of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use super::common::app::{App, Connection, connect, dial_from, handshake, reply};
use super::common::gateway::{Gateway, STRAIT};
use super::common::process::run;
use super::common::{PATIENCE, noise, wait_until};
use super::{Apps, EXPORT, FRONTEND, Folders, IMPORT, NOBODY, ORDERS, Pair, hello};

/// Calls of a caller that stays connected.
fn connected(pair: &Pair) -> Connection {
    let stream = dial_from(FRONTEND, pair.west.ingress()).unwrap();
    handshake(stream, ORDERS, &pair.apps.tls).unwrap()
}

#[test]
fn a_call_crosses_and_both_logs_tell_of_one_connection() {
    let pair = Pair::start();
    assert_eq!(pair.apps.call_from(FRONTEND, &pair.west).unwrap(), "orders");
    let (near, far) = (pair.west.record("completed"), pair.east.record("completed"));
    assert_eq!(near["id"], far["id"], "one id in both logs");
    assert_eq!((&near["via"], &near["caller"]), (&"east".into(), &"shop/frontend".into()));
    assert_eq!((&far["cluster"], &far["caller"]), (&"west".into(), &"shop/frontend".into()));
    let source = |record: &Value| record["client"].as_str().unwrap().to_owned();
    assert_eq!(source(&near), source(&far), "the caller's address, as west claims it");
    assert!(source(&far).starts_with("127.0.0.3:"));
    assert_eq!(near["route"], "shop/orders");
    // What the sidecars say to each other is counted alike; what links add is not.
    for bytes in ["bytes_up", "bytes_down"] {
        assert_eq!(near[bytes], far[bytes], "{near} {far}");
        assert!(near[bytes].as_u64().unwrap() > 100);
    }
}

/// Those that west has opened to east, and those that east has accepted.
fn open_links(pair: &Pair) -> (u64, u64) {
    let open = |gateway: &Gateway, cluster: &str, direction: &str| {
        let labels = [format!("cluster=\"{cluster}\""), format!("direction=\"{direction}\"")];
        gateway.metric("strait_links_open", &[&labels[0], &labels[1]])
    };
    (open(&pair.west, "east", "out"), open(&pair.east, "west", "in"))
}

#[test]
fn many_calls_on_many_connections_arrive_whole() {
    let pair = Pair::start();
    let (west, tls) = (pair.west.ingress(), &pair.apps.tls);
    thread::scope(|scope| {
        for caller in 0..20 {
            scope.spawn(move || {
                let mut connection = connect(west, ORDERS, tls).unwrap();
                for call in 0..20 {
                    let sent = noise(caller * 100 + call, 50_000);
                    assert!(connection.ask(&sent).unwrap() == reply("orders", &sent));
                }
            });
        }
    });
    wait_until("all links are counted as closed, but for the exchange's", || {
        open_links(&pair) == (1, 1)
    });
}

#[test]
fn open_links_stand_in_status_and_metrics() {
    let pair = Pair::start();
    let mut connection = connected(&pair);
    assert_eq!(connection.who().unwrap(), "orders");
    wait_until("both are counted, the call's and the exchange's", || open_links(&pair) == (2, 2));
    let links = pair.west.status()["links"].clone();
    assert_eq!(links, serde_json::json!([{ "cluster": "east", "opened": 2, "accepted": 0 }]));
    let links = pair.east.status()["links"].clone();
    assert_eq!(links, serde_json::json!([{ "cluster": "west", "opened": 0, "accepted": 2 }]));
    let status = run(Command::new(STRAIT).args(["status", "--admin", &pair.west.admin()]));
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(told.contains("LINKS WITH") && told.contains("FOR LINKS"), "{told}");
    let text = pair.west.get("/metrics").unwrap().text();
    let expiry = text.lines().find_map(|line| {
        line.strip_prefix("strait_certificate_expiry_timestamp_seconds{role=\"certificate\"} ")
    });
    let expiry: f64 = expiry.unwrap().parse().unwrap();
    assert!(expiry > 1.7e9, "{expiry}");
    drop(connection);
}

/// An app that reads until the end of what it is sent, and answers only then.
pub(crate) fn late_app() -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        let mut came = Vec::new();
        stream.read_to_end(&mut came)?;
        let turned: Vec<u8> = came.iter().map(|byte| !byte).collect();
        stream.write_all(&turned)?;
        stream.shutdown(Shutdown::Write)
    })
}

/// Sends a hello and bytes behind it, ends its direction and gives back all that comes.
pub(crate) fn half_closed(gateway: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    came
}

/// A hello for the app and much behind it.
pub(crate) fn sent() -> Vec<u8> {
    [hello::hello(ORDERS.as_bytes()), noise(7, 1 << 20)].concat()
}

#[test]
fn the_end_of_one_direction_crosses_and_the_other_goes_on() {
    let (folders, app) = (Folders::new(), late_app());
    let east = Gateway::with_config(&super::east(&folders.of("east"), app.address, EXPORT));
    let west = Gateway::with_config(&super::west(&folders.of("west"), east.ingress(), IMPORT));
    let sent = sent();
    let expected: Vec<u8> = sent.iter().map(|byte| !byte).collect();
    assert!(half_closed(west.ingress(), &sent) == expected, "the answer is not what was sent");
    assert_eq!(west.record("completed")["bytes_up"], sent.len());
    assert_eq!(east.record("completed")["bytes_down"], sent.len());
}

#[test]
fn a_stranger_gets_no_way_onto_a_link() {
    let folders = Folders::new();
    let apps = Apps::start();
    let east = Gateway::with_config(&super::east(&folders.of("east"), apps.orders.address, EXPORT));
    let config = super::west(&folders.of("west"), east.ingress(), IMPORT)
        .replace("127.0.0.0/8", "127.0.0.3/32");
    let west = Gateway::with_config(&config);
    assert_eq!(apps.call_from(NOBODY, &west).unwrap_err(), "UnrecognisedName");
    assert_eq!(
        west.record("unknown_name")["reason"],
        "it is imported and not exported: it is there for local clients alone"
    );
    assert_eq!(apps.call_from(FRONTEND, &west).unwrap(), "orders");
}

#[test]
fn links_count_for_limits_as_connections_do() {
    let pair = Pair::with(&format!("{EXPORT}limits: {{ perListener: 1 }}\n"), IMPORT);
    let mut open = connected(&pair);
    assert_eq!(open.who().unwrap(), "orders");
    assert_eq!(pair.apps.call(&pair.west).unwrap_err(), "InternalError");
    assert_eq!(pair.east.record("overloaded")["limit"], "perListener");
    drop(open);
    wait_until("there is room again", || pair.apps.call(&pair.west).is_ok());
}

#[test]
fn idle_links_end_at_the_idle_limit() {
    let pair = Pair::with(EXPORT, &format!("{IMPORT}limits: {{ idleTimeout: 15s }}\n"));
    let mut connection = connected(&pair);
    assert_eq!(connection.who().unwrap(), "orders");
    connection.ended().unwrap();
    pair.west.record("idle_timeout");
}

#[test]
fn a_drain_closes_links_between_calls_and_never_during_one() {
    for drains in ["near", "far"] {
        let slack = "limits: { drainTimeout: 10m }\n";
        let mut pair = Pair::with(&format!("{EXPORT}{slack}"), &format!("{IMPORT}{slack}"));
        let (mut idle, mut busy) = (connected(&pair), connected(&pair));
        assert_eq!((idle.who().unwrap(), busy.who().unwrap()), ("orders".into(), "orders".into()));
        let gateway = if drains == "near" { &pair.west } else { &pair.east };
        gateway.signal(Signal::TERM);
        wait_until("the link without a call is closed", || {
            assert_eq!(busy.who().unwrap(), "orders");
            gateway.records().iter().any(|record| {
                record["ending"] == "drained" && record["reason"] == "closed between two calls"
            })
        });
        idle.ended().unwrap();
        assert_eq!(busy.who().unwrap(), "orders");
        drop(busy);
        let gateway = if drains == "near" { &mut pair.west } else { &mut pair.east };
        assert_eq!(gateway.exit().code(), Some(0), "{drains}");
    }
}

#[test]
fn old_links_are_closed_between_calls() {
    let pair = Pair::with(EXPORT, &format!("{IMPORT}limits: {{ maxAge: 2s }}\n"));
    let mut connection = connected(&pair);
    assert_eq!(connection.who().unwrap(), "orders");
    connection.ended().unwrap();
    assert_eq!(pair.west.record("drained")["reason"], "closed between two calls");
}
