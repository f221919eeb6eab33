//! The limits at an egress address, and those of a far gateway on links.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::common::gateway::Gateway;
use super::common::joined::{Joined, More, NAME, name_is_answered};
use super::common::{wait_for, wait_until};
use super::{
    HERE, dial, echo, hello, limit_descriptors, measured, padded_hello, raise_descriptors, refused,
    source, wait_until_open,
};

/// One of the two whose limits are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    West,
    East,
}

impl Of {
    fn gateway(self, pair: &Joined) -> &Gateway {
        if self == Self::West { &pair.west } else { &pair.east }
    }

    /// Puts limits in force.
    fn set(self, pair: &Joined, limits: &str) {
        let limits = format!("limits: {{ {limits} }}\n");
        let generation = || self.gateway(pair).metric("strait_table_generation", &[]);
        let before = generation();
        match self {
            Self::West => pair.rewrite_west(&More { west: &limits, ..More::default() }),
            Self::East => pair.rewrite_east(&More { east: &limits, ..More::default() }),
        }
        wait_until(&limits, || generation() > before);
    }
}

/// Whether a whole call from a source is answered by the app: its byte, and not an alert.
fn served(from: u8, at: SocketAddr) -> bool {
    let mut stream = dial(source(from), at);
    answered(&mut stream, &hello(NAME.as_bytes()))
}

fn answered(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut first = [0];
    stream.write_all(bytes).unwrap();
    stream.read(&mut first).is_ok_and(|length| length == 1) && first == *b"a"
}

fn overloaded(gateway: &Gateway, limit: &str) {
    assert!(refused(gateway, limit) > 0, "{limit}");
    let record = wait_for("its record", || {
        gateway.records().into_iter().find(|record| record["limit"] == limit)
    });
    assert_eq!(record["ending"], "overloaded", "{record}");
}

/// A connection to the app that lives. A loaded machine may not make a link within its half second, and is asked again.
fn established(from: IpAddr, at: SocketAddr) -> TcpStream {
    wait_for("the app answers", || {
        let mut stream = dial(from, at);
        answered(&mut stream, &hello(NAME.as_bytes())).then_some(stream)
    })
}

#[test]
fn limits_of_connections_hold_at_an_egress_address_and_on_links() {
    let app = echo();
    let pair = Joined::start(app.address, &More::default());
    let at = pair.egress;
    let mut held = established(source(1), at);
    for of in [Of::West, Of::East] {
        for limit in ["connections", "perListener", "perSource"] {
            of.set(&pair, &format!("{limit}: 1"));
            assert!(!served(1, at), "{of:?}, {limit}");
            overloaded(of.gateway(&pair), limit);
            // Another listener, or another source, has its own places; to a far gateway all of them are one: the near one.
            let (number, elsewhere) =
                if limit == "perListener" { (1, pair.west.ingress()) } else { (2, at) };
            if of == Of::West && limit != "connections" {
                drop(established(source(number), elsewhere));
            } else {
                assert!(!served(number, elsewhere), "{of:?}, {limit}");
            }
            assert!(answered(&mut held, b"still"), "{of:?}, {limit} cuts nothing");
            of.set(&pair, "connections: 0");
            // It is off again.
            drop(established(source(1), at));
        }
    }
    // East refuses before it knows that it is a link, so there is no reply; west tells where it failed.
    let record = pair.west.record("connect_failed");
    assert!(record["reason"].as_str().unwrap().starts_with("east, "), "{record}");
    drop(held);
    wait_until_open(&pair.west, 0);
    // Only the exchange is left.
    wait_until("no link is open", || {
        pair.east.metric("strait_connections_open", &["route=\"shop/orders\""]) == 0
    });
}

#[test]
fn limits_of_hellos_hold_at_an_egress_address_and_on_links() {
    let app = echo();
    let pair = Joined::start(app.address, &More::default());
    for (of, at) in [(Of::West, pair.egress), (Of::East, pair.east.ingress())] {
        for limit in ["pending", "pendingPerSource"] {
            of.set(&pair, &format!("{limit}: 1"));
            let gateway = of.gateway(&pair);
            // At east it comes from the same address as west's links.
            let from = if of == Of::West { source(1) } else { HERE };
            let mut waiting = dial(from, at);
            let pending = || super::used(gateway, "pending").unwrap()["used"] == 1;
            wait_until("it is counted", pending);
            assert!(!served(1, pair.egress), "{of:?}, {limit}");
            overloaded(gateway, limit);
            if of == Of::West {
                assert!(answered(&mut waiting, &hello(NAME.as_bytes())), "the first is heard");
            }
            drop(waiting);
            wait_until("nobody waits", || super::used(gateway, "pending").unwrap()["used"] == 0);
            of.set(&pair, "connections: 0");
            wait_until("links are opened again", || served(1, pair.egress));
        }
    }
    Of::West.set(&pair, "helloBytes: 2KiB");
    let mut long = dial(source(1), pair.egress);
    assert!(!answered(&mut long, &padded_hello(NAME.as_bytes(), 3000)));
    assert_eq!(pair.west.record("malformed_hello")["limit"], "helloBytes");
}

/// The same where nobody may accept it: then it waits.
fn served_soon(at: SocketAddr) -> bool {
    let mut stream = dial(source(1), at);
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    answered(&mut stream, &hello(NAME.as_bytes()))
}

#[test]
fn without_descriptors_calls_at_egress_addresses_and_links_wait_and_are_served_later() {
    raise_descriptors();
    let app = echo();
    for of in [Of::West, Of::East] {
        let pair = Joined::start(app.address, &More::default());
        let gateway = of.gateway(&pair);
        let mut held: Vec<_> =
            (1..=60).map(|number| established(source(number), pair.egress)).collect();
        let names = pair.name_server();
        // Fewer than are open already, so that the admin API has none either.
        let open = gateway.metric("process_open_fds", &[]);
        limit_descriptors(gateway, open - 20);
        let (since, cpu) = (Instant::now(), gateway.cpu_time());
        assert!(!served_soon(pair.egress));
        assert!(name_is_answered(names), "a datagram needs no descriptor");
        assert!(held.iter_mut().all(|stream| answered(stream, b"still")));
        let used = (gateway.cpu_time() - cpu) / since.elapsed().as_secs_f64();
        measured(&format!(
            "{of:?} has no descriptor left: {} connections live on, {used:.3} of a core",
            held.len()
        ));
        assert!(used < 0.5, "{used} of a core");
        held.truncate(5);
        wait_until("calls are served again", || served_soon(pair.egress));
        assert!(held.iter_mut().all(|stream| answered(stream, b"still")));
    }
}
