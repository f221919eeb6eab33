//! Endpoints that refuse, are silent, are not reachable or break during the connect.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::common::app::App;
use super::common::gateway::Gateway;
use super::common::net::Net;
use super::common::{measured, wait_for};
use super::{
    INTERNAL_ERROR, NAME, SLACK, ask, echo, echo_at, ended, gateway, open, rest, routes,
    wait_for_endings,
};

/// `limits.connectTimeout` and `limits.connectTotal` as they are by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TOTAL: Duration = Duration::from_secs(3);

/// How long one connection through the gateway takes until its first bytes are back, with so many attempts.
fn first_bytes(gateway: &Gateway, attempts: u64) -> Duration {
    let asked = Instant::now();
    drop(open(gateway.ingress(), NAME).unwrap());
    let took = asked.elapsed();
    assert_eq!(gateway.record("completed")["attempts"], attempts);
    took
}

#[test]
fn an_endpoint_that_refuses_gives_way_at_once() {
    let app = echo();
    // Other addresses for every route: one that has refused three times is not asked any more.
    let names: Vec<_> = (0..20).map(|number| format!("app{number}.example")).collect();
    let endpoints: Vec<_> = (0..20_u8)
        .map(|number| [SocketAddr::from(([127, 0, 9, number], 1)), app.address])
        .collect();
    let list: Vec<_> =
        names.iter().zip(&endpoints).map(|(name, list)| (&**name, &list[..])).collect();
    let gateway = Gateway::start(&routes(&list));
    let ingress = gateway.ingress();
    let mut took: Vec<_> = names
        .iter()
        .map(|name| {
            let asked = Instant::now();
            drop(open(ingress, name).unwrap());
            asked.elapsed()
        })
        .collect();
    took.sort_unstable();
    measured(&format!("next endpoint after a refusal: median {:?}, most {:?}", took[10], took[19]));
    wait_for_endings(&gateway, "completed", 20);
    let records =
        wait_for("all records", || Some(gateway.records()).filter(|records| records.len() == 20));
    assert!(records.iter().all(|record| record["attempts"] == 2), "{records:#?}");
    assert!(took[0] < Duration::from_millis(50), "{took:?}");
}

#[test]
fn without_any_endpoint_a_connection_is_refused_in_time_and_counted() {
    let refusing: [SocketAddr; 3] =
        [1, 2, 3].map(|number| SocketAddr::from(([127, 0, 8, number], 1)));
    let gateway = gateway(&refusing);
    let asked = Instant::now();
    assert_eq!(rest(&mut ask(gateway.ingress(), NAME).unwrap()).unwrap(), INTERNAL_ERROR);
    measured(&format!("three endpoints that refuse: refused after {:?}", asked.elapsed()));
    assert!(asked.elapsed() < CONNECT_TOTAL);
    wait_for_endings(&gateway, "connect_failed", 1);
}

#[test]
fn endpoints_behind_a_wall_are_given_up_within_the_total() {
    let Some(net) = Net::with_filter("endpoints behind a wall") else { return };
    net.drop_packets("ip daddr 127.0.7.0/24");
    let walled: [SocketAddr; 6] =
        [1, 2, 3, 4, 5, 6].map(|number| SocketAddr::from(([127, 0, 7, number], 443)));
    net.run(|| {
        let gateway = gateway(&walled);
        let asked = Instant::now();
        assert_eq!(rest(&mut ask(gateway.ingress(), NAME).unwrap()).unwrap(), INTERNAL_ERROR);
        let took = asked.elapsed();
        measured(&format!("six endpoints whose packets are dropped: refused after {took:?}"));
        assert!((CONNECT_TOTAL..CONNECT_TOTAL + SLACK).contains(&took), "{took:?}");
        wait_for_endings(&gateway, "connect_failed", 1);
    });
}

#[test]
fn an_endpoint_whose_host_does_not_answer_gives_way_within_the_connect_timeout() {
    let Some(net) = Net::with_filter("an endpoint whose host does not answer") else { return };
    net.drop_packets("ip daddr 127.0.7.1");
    net.run(|| {
        let app = echo();
        let took = first_bytes(&gateway(&[([127, 0, 7, 1], 443).into(), app.address]), 2);
        measured(&format!("host that drops packets: served by the next after {took:?}"));
        assert!((CONNECT_TIMEOUT..CONNECT_TIMEOUT + SLACK).contains(&took), "{took:?}");
    });
}

#[test]
fn a_reset_or_an_icmp_error_during_the_connect_gives_way_at_once() {
    let Some(net) = Net::with_filter("a reset during the connect") else { return };
    net.nft("add rule inet faults out ip daddr 127.0.7.1 tcp dport 443 reject with tcp reset");
    net.nft("add rule inet faults out ip daddr 127.0.7.2 reject with icmp type host-unreachable");
    net.ip(&["route", "add", "unreachable", "192.0.2.0/24"]);
    net.ip(&["route", "add", "prohibit", "198.51.100.0/24"]);
    net.run(|| {
        let app = echo();
        for broken in [[127, 0, 7, 1], [127, 0, 7, 2], [192, 0, 2, 1], [198, 51, 100, 1]] {
            let took = first_bytes(&gateway(&[(broken, 443).into(), app.address]), 2);
            measured(&format!("connect to {broken:?} broken: served by the next after {took:?}"));
            assert!(took < CONNECT_TIMEOUT, "{broken:?}: {took:?}");
        }
    });
}

#[test]
fn an_endpoint_whose_queue_overflows_gives_way_within_the_connect_timeout() {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let at = full.local_addr().unwrap().as_socket().unwrap();
    let step = Duration::from_millis(200);
    let _queued: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&at, step).ok()).collect();
    let app = echo();
    let took = first_bytes(&gateway(&[at, app.address]), 2);
    measured(&format!("endpoint with a full queue: served by the next after {took:?}"));
    assert!((CONNECT_TIMEOUT..CONNECT_TIMEOUT + SLACK).contains(&took), "{took:?}");
}

#[test]
fn an_endpoint_that_accepts_and_says_nothing_holds_up_nobody_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = echo();
    let silent_at = silent.local_addr().unwrap();
    let gateway =
        Gateway::start(&routes(&[("silent.example", &[silent_at]), (NAME, &[app.address])]));
    let ingress = gateway.ingress();
    let waiting: Vec<_> = (0..50).map(|_| ask(ingress, "silent.example").unwrap()).collect();
    let accepted: Vec<_> = waiting.iter().map(|_| silent.accept().unwrap().0).collect();
    drop(open(ingress, NAME).unwrap());
    // The client decides how long it waits; when it leaves, the endpoint learns it.
    drop(waiting);
    for mut endpoint in accepted {
        assert!(!rest(&mut endpoint).unwrap().is_empty(), "the hello");
    }
    wait_for_endings(&gateway, "completed", 51);
}

#[test]
fn an_endpoint_that_accepts_and_breaks_is_told_as_that_and_gives_way_where_there_is_another() {
    let broken = App::serve("127.0.0.1:0".parse().unwrap(), |stream| {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    });
    let alone = gateway(&[broken.address]);
    let mut client = ask(alone.ingress(), NAME).unwrap();
    assert_ne!(rest(&mut client).unwrap_or_default(), INTERNAL_ERROR);
    wait_for_endings(&alone, "reset_by_endpoint", 1);
    let app = echo();
    let two = gateway(&[broken.address, app.address]);
    drop(open(two.ingress(), NAME).unwrap());
    assert_eq!(app.accepted(), 1);
}

#[test]
fn an_endpoint_that_is_killed_and_started_again_serves_again() {
    let app = echo();
    let at = app.address.to_string();
    let gateway = gateway(&[app.address]);
    let ingress = gateway.ingress();
    drop(open(ingress, NAME).unwrap());
    drop(app);
    wait_for("its port is closed", || TcpListener::bind(&at).ok());
    assert!(open(ingress, NAME).is_err());
    let back = echo_at(&at);
    let asked = Instant::now();
    wait_for("a call", || {
        thread::sleep(Duration::from_millis(20));
        open(ingress, NAME).ok()
    });
    measured(&format!("an endpoint that is back serves after {:?}", asked.elapsed()));
    assert!(back.accepted() > 0 && ended(&gateway, "connect_failed") > 0);
}
