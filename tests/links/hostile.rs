//! Whoever has a good certificate and says something else than a link should.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::certificates::Ca;
use super::common::gateway::Gateway;
use super::common::{measured, wait_until};
use super::refusals::{Handmade, handmade, handmade_for};
use super::{Apps, EXPORT};

/// The beginning of every preamble.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";

struct East {
    ca: Ca,
    _folder: tempfile::TempDir,
    apps: Apps,
    gateway: Gateway,
}

impl East {
    fn start() -> Self {
        let (ca, folder, apps) = (Ca::new("links"), tempfile::tempdir().unwrap(), Apps::start());
        ca.fill(folder.path(), &ca.gateway("east"));
        let limits = format!("{EXPORT}limits: {{ helloTimeout: 2s }}\n");
        let config = super::east(folder.path(), apps.orders.address, &limits);
        Self { ca, _folder: folder, apps, gateway: Gateway::with_config(&config) }
    }

    fn link(&self, first: &[u8]) -> Handmade {
        handmade(self.gateway.ingress(), Some(&self.ca.gateway("west")), first).unwrap()
    }

    fn refused(&self, reason: &str) -> u64 {
        let labels = ["direction=\"in\"", &*format!("reason=\"{reason}\"")];
        self.gateway.metric("strait_links_refused_total", &labels)
    }
}

#[test]
fn what_is_no_preamble_is_refused_at_once_and_counted() {
    let east = East::start();
    let long = [SIGNATURE, b"\xff\xff"].concat();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    let bare = [SIGNATURE, &[0, 12], &[0; 12]].concat();
    let cases: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4", &long, local, &bare];
    for (number, first) in (1..).zip(cases) {
        let mut reply = Vec::new();
        east.link(first).read_to_end(&mut reply).unwrap();
        // Magic, version, refused, length; bad_preamble, no other cluster, no rule.
        assert_eq!(reply, b"STRAIT\x01\x01\0\x03\x07\0\0", "{first:?}");
        wait_until("it is counted", || east.refused("preamble") == number);
    }
    assert_eq!(east.apps.orders.accepted(), 0);
}

#[test]
fn a_preamble_that_never_ends_or_begins_is_given_up_in_time() {
    let east = East::start();
    let began = Instant::now();
    let mut drips = east.link(SIGNATURE);
    let dripping = thread::spawn(move || {
        // A byte at a time of a preamble of 4,000.
        let _ = drips.write_all(b"\x0f\xa0").and_then(|()| drips.flush());
        while drips.write_all(&[0]).and_then(|()| drips.flush()).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let silent = east.link(b"");
    wait_until("both are counted", || east.refused("late") == 2);
    let took = began.elapsed();
    measured(&format!("preambles without end are given up after {took:?}"));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    dripping.join().unwrap();
    drop(silent);
    let record = east.gateway.record("hello_timeout");
    assert!(record["reason"].as_str().unwrap().contains("preamble"), "{record}");
    wait_until("nothing stays open", || east.gateway.status()["connections"]["open"] == 0);
}

#[test]
fn a_link_that_ends_in_its_preamble_is_a_client_that_went() {
    let east = East::start();
    let mut link = east.link(SIGNATURE);
    link.conn.send_close_notify();
    link.flush().unwrap();
    east.gateway.record("client_gone");
    drop(link);
    // Nobody else has noticed.
    wait_until("nothing stays open", || east.gateway.status()["connections"]["open"] == 0);
}

/// A preamble with these TLVs behind those that must be there.
fn preamble(tlvs: &[u8]) -> Vec<u8> {
    let ends = [127, 0, 0, 1, 127, 0, 0, 1, 0, 1, 0, 2];
    let tlvs = [b"\x05\0\x02id\xe0\0\x01\x01", tlvs].concat();
    let length = u16::try_from(ends.len() + tlvs.len()).unwrap().to_be_bytes();
    [SIGNATURE, &length, &ends, &tlvs].concat()
}

#[test]
fn a_cluster_asks_on_so_many_links_and_its_calls_go_on() {
    const MOST: usize = 64;
    let east = East::start();
    let (west, first) = (east.ca.gateway("west"), preamble(b"\xe3\0\x01\x01"));
    let ask = || {
        let name = "exchange.east.strait.internal";
        let mut link = handmade_for(name, east.gateway.ingress(), Some(&west), &first).unwrap();
        let mut reply = [0; 8];
        link.read_exact(&mut reply).unwrap();
        (reply[7], link)
    };
    let mut open: Vec<_> = (0..MOST).map(|_| ask()).collect();
    assert!(open.iter().all(|(status, _)| *status == 0));
    let links =
        || east.gateway.metric("strait_links_open", &["cluster=\"west\"", "direction=\"in\""]);
    assert_eq!(links(), MOST as u64, "they are counted as links");
    let (status, mut refused) = ask();
    let mut rest = Vec::new();
    refused.read_to_end(&mut rest).unwrap();
    // Length; overloaded, another gateway may be tried, no rule.
    assert_eq!((status, &*rest), (1, &b"\0\x03\x05\x01\0"[..]));
    let record = east.gateway.record("overloaded");
    assert_eq!((&record["limit"], &record["cluster"]), (&"exchange".into(), &"west".into()));
    assert_eq!(east.gateway.metric("strait_limit_refusals_total", &["limit=\"exchange\""]), 1);
    // Of no consequence for who calls an app: accepted.
    let hello = super::hello::hello(super::ORDERS.as_bytes());
    let mut call = east.link(&[preamble(b""), hello].concat());
    let mut reply = [0; 8];
    call.read_exact(&mut reply).unwrap();
    assert_eq!(reply, *b"STRAIT\x01\0");
    open.pop();
    wait_until("one that ends makes room", || ask().0 == 0);
}

/// A preamble that does not say so, and then bytes that are no TLS: the word of a cluster is not enough.
#[test]
fn plain_bytes_are_seen_whatever_the_preamble_says() {
    let east = East::start();
    let first = [&*preamble(b""), b"PRI * HTTP/2.0\r\n\r\n"].concat();
    let mut reply = Vec::new();
    east.link(&first).read_to_end(&mut reply).unwrap();
    // Refused; denied.
    assert_eq!((&reply[..8], reply[10]), (&b"STRAIT\x01\x01"[..], 1), "{reply:?}");
    let record = east.gateway.record("denied");
    assert!(record["reason"].as_str().unwrap().contains("plain bytes"), "{record}");
    assert_eq!(east.apps.orders.accepted(), 0);
}
