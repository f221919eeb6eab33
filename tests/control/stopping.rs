//! Starting without what is needed, and stopping.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::app::connect;
use super::common::gateway::Gateway;
use super::common::process::strait;
use super::common::wait_until;
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
    let mut gateway = gateway(&apps, "drainDelay: 6s, drainTimeout: 10m");
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
