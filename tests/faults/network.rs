//! What the network around does: hosts that vanish, paths that lose large packets, addresses that go away, too many SYNs, no port
//! or place left.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::common::gateway::{BASE, Gateway};
use super::common::net::Net;
use super::common::{PATIENCE, measured, wait_until};
use super::hello::{hello, padded_hello};
use super::process::counter;
use super::{
    INTERNAL_ERROR, NAME, SLACK, echo, echo_at, ended, exchange, gateway, open, rest, routes,
    wait_for_endings,
};

/// Connects from an address and, unless it is 0, a port.
fn dial_from(source: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Connects from one of the addresses 127.0.6.0/24.
fn dial(number: u8, to: SocketAddr) -> TcpStream {
    dial_from(([127, 0, 6, number], 0).into(), to)
}

#[test]
fn clients_whose_hosts_vanish_in_mid_hello_are_given_up_at_the_deadline() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    const CLIENTS: u8 = 20;
    let Some(net) = Net::with_filter("hosts that vanish in mid-hello") else { return };
    net.run(|| {
        let app = echo();
        let limits = "limits: { helloTimeout: 2s }\n";
        let gateway = Gateway::start(&format!("{limits}{}", routes(&[(NAME, &[app.address])])));
        let ingress = gateway.ingress();
        let descriptors = gateway.metric("process_open_fds", &[]);
        let asked = Instant::now();
        let begin = |number| {
            let mut stream = dial(number, ingress);
            stream.write_all(&hello(NAME.as_bytes())[..40]).unwrap();
            stream
        };
        let vanished: Vec<_> = (0..CLIENTS).map(begin).collect();
        net.drop_packets("ip daddr 127.0.6.0/24");
        net.drop_packets("ip saddr 127.0.6.0/24");
        drop(vanished);
        drop(open(ingress, NAME).unwrap());
        wait_for_endings(&gateway, "hello_timeout", CLIENTS.into());
        let took = asked.elapsed();
        measured(&format!("hosts vanished in mid-hello: given up after {took:?} of {TIMEOUT:?}"));
        assert!((TIMEOUT..TIMEOUT + SLACK).contains(&took), "{took:?}");
        wait_until("descriptors are given back", || {
            gateway.metric("process_open_fds", &[]) <= descriptors + 2
        });
    });
}

#[test]
fn a_path_that_loses_large_packets_is_told_as_that() {
    let Some(net) = Net::with_filter("a path that loses large packets") else { return };
    net.run(|| {
        let app = echo();
        let limits = "limits: { helloTimeout: 2s }\n";
        let gateway = Gateway::start(&format!("{limits}{}", routes(&[(NAME, &[app.address])])));
        let ingress = gateway.ingress();
        // As a tunnel whose ICMP messages are filtered: the hello of daprd is longer than one of its packets holds.
        net.drop_packets(&format!("tcp dport {} meta length > 1000", ingress.port()));
        let mut lost = dial(1, ingress);
        lost.write_all(&padded_hello(NAME.as_bytes(), 1400)).unwrap();
        drop(open(ingress, NAME).unwrap());
        wait_until("it is given up", || ended(&gateway, "hello_timeout") == 1);
        let hint = gateway.record("hello_timeout")["hint"].to_string();
        assert!(hint.contains("MTU"), "{hint}");
        net.heal();
        let mut whole = dial(2, ingress);
        exchange(&mut whole, &padded_hello(NAME.as_bytes(), 1400)).unwrap();
    });
}

#[test]
fn an_address_that_goes_away_costs_nobody_at_another_and_works_when_it_is_back() {
    let Some(net) = Net::new("an address that goes away") else { return };
    let address = |what| net.ip(&["address", what, "192.0.2.10/32", "dev", "lo"]);
    address("add");
    let there: SocketAddr = "192.0.2.10:8443".parse().unwrap();
    net.run(|| {
        let app = echo();
        let base = BASE.replace("[{", &format!("[{{ address: \"{there}\" }}, {{"));
        let one = routes(&[(NAME, &[app.address])]);
        let gateway = Gateway::with_config(&format!("{base}{one}"));
        let here = gateway.ingress();
        let (mut stays, mut cut_off) = (open(here, NAME).unwrap(), open(there, NAME).unwrap());
        address("delete");
        assert!(TcpStream::connect_timeout(&there, Duration::from_secs(1)).is_err());
        exchange(&mut stays, b"still there?").unwrap();
        drop(open(here, NAME).unwrap());

        // A change of something else must not fail for it.
        let two = routes(&[(NAME, &[app.address]), ("two.example", &[app.address])]);
        gateway.rewrite_all(&format!("{base}{two}"));
        wait_until("a change is in force", || open(here, "two.example").is_ok());
        assert_eq!(gateway.status()["config"]["errors"].to_string(), "[]");

        address("add");
        let back = Instant::now();
        wait_until("it serves there again", || open(there, NAME).is_ok());
        measured(&format!("an address that is back serves after {:?}", back.elapsed()));
        exchange(&mut cut_off, b"still there?").unwrap();
    });
}

#[test]
fn without_a_source_port_a_connection_is_refused_and_served_when_there_is_one() {
    const PORTS: usize = 10;
    let Some(net) = Net::new("no source port is left") else { return };
    net.run(|| {
        let app = echo();
        let gateway = gateway(&[app.address]);
        let ingress = gateway.ingress();
        // From here on, for each destination.
        net.set("ipv4/ip_local_port_range", &format!("40000 {}", 39_999 + PORTS));
        let port = Cell::new(50_000);
        let dial = || {
            port.set(port.get() + 1);
            dial_from((Ipv4Addr::LOCALHOST, port.get()).into(), ingress)
        };
        let call = || {
            let mut stream = dial();
            exchange(&mut stream, &hello(NAME.as_bytes())).map(|()| stream)
        };
        let mut held: Vec<_> = std::iter::from_fn(|| call().ok()).collect();
        assert_eq!(held.len(), PORTS);
        let mut refused = dial();
        refused.write_all(&hello(NAME.as_bytes())).unwrap();
        assert_eq!(rest(&mut refused).unwrap(), INTERNAL_ERROR);
        let record = gateway.record("overloaded");
        assert_eq!(record["limit"], "sockets", "{record}");
        assert!(record["hint"].to_string().contains("ip_local_port_range"), "{record}");
        assert!(held.iter_mut().all(|stream| exchange(stream, b"still there?").is_ok()));
        held.truncate(5);
        let freed = Instant::now();
        wait_until("a call is served", || call().is_ok());
        measured(&format!("source ports used up: served again after {:?}", freed.elapsed()));
    });
}

#[test]
fn a_flood_of_syns_keeps_no_client_out() {
    const HALF_OPEN: u16 = 1000;
    const CALLS: u32 = 50;
    let Some(net) = Net::with_filter("a flood of SYNs") else { return };
    // Nobody at these addresses hears that it was answered.
    net.drop_packets("ip daddr 127.9.0.0/16");
    net.run(|| {
        net.set("core/somaxconn", "64");
        let app = echo();
        let gateway = gateway(&[app.address]);
        let ingress = gateway.ingress();
        let flood = |number: u16| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let [high, low] = number.to_be_bytes();
            let from = SocketAddr::new(IpAddr::from([127, 9, high, low]), 0);
            socket.bind(&from.into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress, for good.
            let _ = socket.connect(&ingress.into());
            socket
        };
        let flood: Vec<_> = (1..=HALF_OPEN).map(flood).collect();
        let since = Instant::now();
        (0..CALLS).for_each(|_| drop(open(ingress, NAME).unwrap()));
        let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        let cookies = counter(&netstat, "SyncookiesSent");
        measured(&format!(
            "{HALF_OPEN} half-open connections, {cookies} cookies: {CALLS} calls in {:?}",
            since.elapsed()
        ));
        assert!(cookies > 0, "the queue was not full");
        wait_for_endings(&gateway, "completed", CALLS.into());
        drop(flood);
    });
}

#[test]
fn behind_a_firewall_whose_table_is_full_the_next_endpoint_serves() {
    const PLACES: usize = 20;
    let Some(net) = Net::with_filter("a firewall whose table is full") else { return };
    net.nft(&format!(
        "add rule inet faults out ip daddr 127.0.7.1 ct state new ct count over {PLACES} drop"
    ));
    net.run(|| {
        let (behind, beside) = (echo_at("127.0.7.1:443"), echo());
        let gateway = gateway(&[behind.address, beside.address]);
        let ingress = gateway.ingress();
        let mut held: Vec<_> = (0..PLACES).map(|_| open(ingress, NAME).unwrap()).collect();
        assert_eq!((behind.accepted(), beside.accepted()), (PLACES, 0));
        let asked = Instant::now();
        drop(open(ingress, NAME).unwrap());
        let took = asked.elapsed();
        measured(&format!("a firewall on the way is full: served by the next after {took:?}"));
        assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
        assert_eq!(beside.accepted(), 1);
        assert!(held.iter_mut().all(|stream| exchange(stream, b"still there?").is_ok()));
        // Places come back, and with them the endpoint that is preferred.
        held.clear();
        wait_until("the first endpoint serves", || {
            drop(open(ingress, NAME).unwrap());
            behind.accepted() > PLACES
        });
    });
}

#[test]
fn an_endpoint_may_have_an_address_of_its_link_alone() {
    let Some(net) = Net::new("a link-local endpoint") else { return };
    // 1 is the loopback's number in every network.
    net.ip(&["address", "add", "fe80::7/64", "dev", "lo", "nodad"]);
    net.run(|| {
        let app = echo_at("[fe80::7%1]:443");
        let gateway = gateway(&[app.address]);
        drop(open(gateway.ingress(), NAME).unwrap());
        // Without its interface it is nobody's address, which is told before it is tried.
        let nobodys = routes(&[(NAME, &["[fe80::7]:443".parse().unwrap()])]);
        gateway.rewrite(&nobodys);
        wait_until("it is told", || {
            gateway.status()["config"]["errors"].to_string().contains("link-local")
        });
        drop(open(gateway.ingress(), NAME).unwrap());
    });
}
