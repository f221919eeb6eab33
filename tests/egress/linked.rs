//! Egress addresses that lead to another cluster: with any server name, with none, and in plain text.

use std::io::{Read, Write};
use std::net::Shutdown;

use rustix::process::Signal;

use super::common::app::{App, dial_from, handshake};
use super::common::authority::Authority;
use super::common::joined::{Joined, More, NAME, name_is_answered};
use super::common::{PATIENCE, wait_until};
use super::{CALLER, ip};

/// Sends bytes and the end to the app's own address, and reads all that comes.
fn exchange(pair: &Joined, sent: &[u8]) -> Vec<u8> {
    let mut stream = dial_from(ip(CALLER), pair.egress).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

/// What both sides say of plain bytes.
const BOTH: More<'_> =
    More { import: ", plaintext: true", export: ", plaintext: true", west: "", east: "" };

fn echo() -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        let mut writing = stream.try_clone()?;
        std::io::copy(&mut stream, &mut writing)?;
        writing.shutdown(Shutdown::Write)
    })
}

#[test]
fn a_caller_crosses_without_a_server_name_and_with_any() {
    let authority = Authority::new();
    let app = App::start(&authority, "orders", &["127.0.0.1", "other.example", "orders.example"]);
    let pair = Joined::start(app.address, &More::default());
    for name in ["127.0.0.1", "other.example", "orders.example"] {
        let stream = dial_from(ip(CALLER), pair.egress).unwrap();
        let mut connection = handshake(stream, name, &authority.client()).unwrap();
        assert_eq!(connection.who().unwrap(), "orders", "{name}");
    }
    let record = pair.west.record("completed");
    assert_eq!((&record["listener"], &record["via"]), (&"egress".into(), &"east".into()));
    assert_eq!(pair.east.record("completed")["cluster"], "west");
}

#[test]
fn plain_bytes_cross_where_import_and_export_say_so() {
    let app = echo();
    let pair = Joined::start(app.address, &BOTH);
    for sent in [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), b"x".to_vec(), vec![0; 300_000]] {
        assert_eq!(exchange(&pair, &sent), sent);
    }
}

#[test]
fn plain_bytes_do_not_cross_where_only_the_import_says_so() {
    let app = echo();
    let pair = Joined::start(app.address, &More { export: "", ..BOTH });
    assert!(exchange(&pair, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").is_empty());
    let record = pair.west.record("refused_by_far");
    assert!(record["reason"].as_str().unwrap().contains("takes no plain bytes"), "{record}");
    let record = pair.east.record("denied");
    assert!(record["hint"].as_str().unwrap().contains("`plaintext: true`"), "{record}");
    assert_eq!(app.accepted(), 0);
}

#[test]
fn what_came_by_an_egress_address_is_closed_between_calls_by_age_and_by_a_stop() {
    let authority = Authority::new();
    let app = App::start(&authority, "orders", &[NAME]);
    let aged = More { west: "limits: { maxAge: 1s }\n", ..More::default() };
    let mut pair = Joined::start(app.address, &aged);
    let (at, tls) = (pair.egress, authority.client());
    let open = || {
        let mut connection = handshake(dial_from(ip(CALLER), at).unwrap(), NAME, &tls).unwrap();
        assert_eq!(connection.who().unwrap(), "orders");
        connection
    };
    let quiet = |count: usize| {
        let records = pair.west.records();
        let quiet = |record: &&serde_json::Value| record["reason"] == "closed between two calls";
        records.iter().filter(quiet).count() == count
    };
    open().ended().unwrap();
    wait_until("it is told", || quiet(1));

    let generation = || pair.west.metric("strait_table_generation", &[]);
    let before = generation();
    pair.rewrite_west(&More { west: "limits: { drainTimeout: 10m }\n", ..More::default() });
    wait_until("ages count no more", || generation() > before);
    let (idle, mut busy, names) = (open(), open(), pair.name_server());
    pair.west.signal(Signal::TERM);
    wait_until("the one without a call is closed", || {
        assert_eq!(busy.who().unwrap(), "orders");
        quiet(2)
    });
    idle.ended().unwrap();
    assert!(dial_from(ip(CALLER), at).is_err(), "nobody listens any more");
    assert_eq!(busy.who().unwrap(), "orders");
    assert!(name_is_answered(names), "for as long as the process is there");
    drop(busy);
    assert_eq!(pair.west.exit().code(), Some(0));
}
