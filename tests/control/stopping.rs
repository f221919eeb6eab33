//! Starting without what is needed, and stopping.

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::app::{Connection, connect, reply};
use super::common::gateway::{BASE, Gateway};
use super::common::process::strait;
use super::common::{noise, wait_until};
use super::{Apps, routes};

/// A gateway with these limits and one route, `one.example`.
fn gateway(apps: &Apps, limits: &str) -> Gateway {
    let routes = routes(&[("one.example", &apps.alpha)]);
    Gateway::start(&format!("limits: {{ {limits} }}\n{routes}"))
}

fn wait_until_unready(gateway: &Gateway) {
    wait_until("the gateway is not ready", || {
        gateway.get("/readyz").is_ok_and(|answer| answer.status == 503)
    });
}

#[test]
fn sigterm_is_unready_at_once_accepts_for_a_while_drains_and_ends_with_0() {
    let apps = Apps::start();
    let route = routes(&[("one.example", &apps.alpha)]).replace(" }", ", quietClose: false }");
    let limits = "limits: { drainDelay: 6s, drainTimeout: 10m }";
    let mut gateway = Gateway::start(&format!("{limits}\n{route}"));
    let ingress = gateway.ingress();
    let mut live = connect(ingress, "one.example", &apps.tls).unwrap();
    let asked = Instant::now();
    gateway.signal(Signal::TERM);
    wait_until_unready(&gateway);
    let mut late = connect(ingress, "one.example", &apps.tls).unwrap();
    assert!(asked.elapsed() < Duration::from_secs(6), "too slow a machine to see the delay");
    wait_until("it stops accepting", || TcpStream::connect(ingress).is_err());
    assert!(asked.elapsed() >= Duration::from_secs(6), "after {:?}", asked.elapsed());
    assert_eq!((live.who().unwrap(), late.who().unwrap()), ("alpha".into(), "alpha".into()));
    assert!(!gateway.has_ended(), "connections are still open");
    drop((live, late));
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn two_hundred_streams_end_whole_and_the_gateway_at_its_deadline() {
    const STREAMS: usize = 200;
    /// Several times what the streams need on a loaded machine; what never ends is cut then.
    const DEADLINE: Duration = Duration::from_secs(20);
    /// A loaded machine's; the figures are printed.
    const SLACK: Duration = Duration::from_secs(10);
    let apps = Apps::start();
    // A loaded machine may leave a stream without a byte for a second, and then it would seem to carry no call.
    let route = routes(&[("one.example", &apps.alpha)]).replace(" }", ", quietClose: false }");
    let mut gateway = Gateway::start(&format!("limits: {{ drainTimeout: 20s }}\n{route}"));
    let ingress = gateway.ingress();
    let connect = |_| connect(ingress, "one.example", &apps.tls).unwrap();
    let (streams, mut endless): (Vec<_>, _) = ((0..STREAMS).map(connect).collect(), connect(0));
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    let probe = thread::spawn(move || {
        let mut last = Instant::now();
        while !stop.load(Ordering::Acquire) {
            if TcpStream::connect_timeout(&ingress, Duration::from_millis(50)).is_ok() {
                last = Instant::now();
            }
        }
        last
    });
    let endless = thread::spawn(move || while endless.who().is_ok() {});
    let asked = Instant::now();
    gateway.signal(Signal::TERM);
    let whole = |(seed, mut stream): (usize, Connection)| {
        thread::spawn(move || {
            for call in 0..20 {
                let sent = noise((seed * 100 + call) as u64, 4000);
                assert!(stream.ask(&sent).unwrap() == reply("alpha", &sent), "bytes are lost");
                // A stream, not a burst.
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let streams: Vec<_> = streams.into_iter().enumerate().map(whole).collect();
    for stream in streams {
        stream.join().unwrap();
    }
    assert!(!gateway.has_ended(), "too slow a machine to see the deadline");
    assert_eq!(gateway.exit().code(), Some(0));
    let ended = asked.elapsed();
    endless.join().unwrap();
    stopped.store(true, Ordering::Release);
    let accepted = probe.join().unwrap().saturating_duration_since(asked);
    let _ = writeln!(io::stderr(), "SIGTERM: accepted for {accepted:?}, ended after {ended:?}");
    assert!(accepted < SLACK && ended >= DEADLINE && ended < DEADLINE + SLACK);
}

#[test]
fn a_connection_without_a_call_is_closed_long_before_the_deadline_and_one_with_calls_is_not() {
    let apps = Apps::start();
    let mut gateway = gateway(&apps, "drainTimeout: 10m");
    let mut idle = connect(gateway.ingress(), "one.example", &apps.tls).unwrap();
    let mut busy = connect(gateway.ingress(), "one.example", &apps.tls).unwrap();
    assert_eq!((idle.who().unwrap(), busy.who().unwrap()), ("alpha".into(), "alpha".into()));
    gateway.signal(Signal::TERM);
    wait_until("the connection without a call is closed", || {
        assert_eq!(busy.who().unwrap(), "alpha");
        gateway.records().iter().any(|record| {
            record["ending"] == "drained" && record["reason"] == "closed between two calls"
        })
    });
    idle.ended().unwrap();
    assert_eq!(busy.who().unwrap(), "alpha");
    drop(busy);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn an_old_connection_is_closed_between_calls_once_an_age_is_set() {
    let apps = Apps::start();
    let open = routes(&[("one.example", &apps.alpha)]);
    let gateway = Gateway::start(&open);
    let mut old = connect(gateway.ingress(), "one.example", &apps.tls).unwrap();
    assert_eq!(old.who().unwrap(), "alpha");
    gateway.rewrite(&format!("limits: {{ maxAge: 1s }}\n{open}"));
    old.ended().unwrap();
    assert_eq!(gateway.record("drained")["route"], "one.example");
    assert_eq!(apps.call(gateway.ingress(), "one.example").unwrap(), "alpha");
}

#[test]
fn who_accepts_nothing_any_more_takes_no_configuration() {
    let apps = Apps::start();
    let route = routes(&[("one.example", &apps.alpha)]).replace(" }", ", quietClose: false }");
    let mut gateway = Gateway::start(&format!("limits: {{ drainTimeout: 10m }}\n{route}"));
    let ingress = gateway.ingress();
    let mut live = connect(ingress, "one.example", &apps.tls).unwrap();
    gateway.signal(Signal::TERM);
    wait_until("it stops accepting", || TcpStream::connect(ingress).is_err());
    // A listener that began now would be one that nobody accepts from.
    let two = BASE.replace("[{", "[{ address: \"127.0.0.2:0\" }, {");
    gateway.rewrite_all(&format!("{two}{route}"));
    for signals in 1..=3 {
        gateway.signal(Signal::HUP);
        let told = || gateway.lines().iter().filter(|line| line.contains("SIGHUP")).count();
        wait_until("the signal is told", || told() == signals);
        // Time in which it would have been done.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(live.who().unwrap(), "alpha");
    }
    assert_eq!(gateway.get("/readyz").unwrap().status, 503);
    assert_eq!(gateway.bound("127.0.0.2:0"), None);
    drop(live);
    assert_eq!(gateway.exit().code(), Some(0));
    let in_force = gateway.lines().iter().filter(|line| line.contains("in force")).count();
    assert_eq!(in_force, 2, "the first table and configuration");
}

#[test]
fn what_has_not_drained_in_time_is_closed() {
    let apps = Apps::start();
    let mut gateway = gateway(&apps, "drainTimeout: 1s");
    let live = connect(gateway.ingress(), "one.example", &apps.tls).unwrap();
    gateway.signal(Signal::TERM);
    live.ended().unwrap();
    assert_eq!(gateway.exit().code(), Some(0));
    wait_until("the record of the connection", || {
        gateway.records().iter().any(|record| record["ending"] == "drained")
    });
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let apps = Apps::start();
    let mut gateway = gateway(&apps, "drainDelay: 10m, drainTimeout: 10m");
    let live = connect(gateway.ingress(), "one.example", &apps.tls).unwrap();
    gateway.signal(Signal::TERM);
    wait_until_unready(&gateway);
    assert!(!gateway.has_ended());
    gateway.signal(Signal::TERM);
    gateway.exit();
    live.ended().unwrap();
}

#[test]
fn signals_that_mean_nothing_are_ignored_and_told_once() {
    let gateway = Gateway::start("");
    let told = || gateway.lines().iter().filter(|line| line.contains("is ignored")).count();
    gateway.signal(Signal::USR1);
    wait_until("it is told", || told() == 1);
    gateway.signal(Signal::USR2);
    gateway.signal(Signal::HUP);
    wait_until("the reload is told", || gateway.lines().iter().any(|line| line.contains("again")));
    assert_eq!((told(), gateway.get("/healthz").unwrap().status), (1, 200));
}

#[test]
fn a_start_without_a_valid_configuration_ends_with_1_and_says_why() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = strait(&["run", "--config", "missing.yaml"], folder.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing.yaml"), "{missing:?}");

    fs::write(folder.path().join("bad.yaml"), "cluster: west\nroute: []\n")?;
    let bad = strait(&["run", "--config", "bad.yaml"], folder.path());
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("bad.yaml:2:1"), "{bad:?}");
    Ok(())
}
