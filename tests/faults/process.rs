//! What is done to the process: signals, stops, kills, a second one at the same port, too few rights.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::net::Net;
use super::common::process::{Process, run, strait};
use super::common::{measured, wait_until};
use super::files::unprivileged;
use super::{NAME, SLACK, echo, exchange, gateway, open, routes};

fn generation(gateway: &Gateway) -> u64 {
    gateway.metric("strait_table_generation", &[])
}

#[test]
fn signals_that_mean_nothing_change_nothing() {
    let app = echo();
    let mut gateway = gateway(&[app.address]);
    let mut live = open(gateway.ingress(), NAME).unwrap();
    for signal in [Signal::PIPE, Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::CHILD] {
        for _ in 0..100 {
            gateway.signal(signal);
        }
        exchange(&mut live, b"still there?").unwrap();
        drop(open(gateway.ingress(), NAME).unwrap());
    }
    assert!(!gateway.has_ended());
    let told = gateway.lines().iter().filter(|line| line.contains("is ignored")).count();
    assert_eq!(told, 1, "once, not five hundred times");
}

#[test]
fn a_storm_of_sighup_makes_two_tables_a_second_and_hides_no_change() {
    let app = echo();
    let gateway = gateway(&[app.address]);
    let (before, cpu, started) = (generation(&gateway), gateway.cpu_time(), Instant::now());
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(4) {
        gateway.signal(Signal::HUP);
        sent += 1;
        if sent == 500 {
            gateway.rewrite(&routes(&[(NAME, &[app.address]), ("two.example", &[app.address])]));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let (tables, took) = (generation(&gateway) - before, started.elapsed());
    let share = (gateway.cpu_time() - cpu) / took.as_secs_f64();
    measured(&format!("{sent} SIGHUP in {took:?}: {tables} tables, {share:.3} of a core"));
    assert!(tables <= 2 * took.as_secs() + 4, "{tables}");
    wait_until("the change", || open(gateway.ingress(), "two.example").is_ok());
}

#[test]
fn a_gateway_that_was_stopped_goes_on_where_it_was() {
    // Scaled down from ten seconds: longer than every deadline that runs meanwhile.
    const STOPPED: Duration = Duration::from_secs(3);
    let app = echo();
    let limits = "limits: { helloTimeout: 1s, connectTimeout: 1s }\n";
    let gateway = Gateway::start(&format!("{limits}{}", routes(&[(NAME, &[app.address])])));
    let ingress = gateway.ingress();
    let mut live: Vec<_> = (0..20).map(|_| open(ingress, NAME).unwrap()).collect();
    gateway.signal(Signal::STOP);
    let stopped = Instant::now();
    // The kernel takes these meanwhile.
    let waiting: Vec<_> =
        (0..20).map(|_| thread::spawn(move || open(ingress, NAME).map(drop))).collect();
    thread::sleep(STOPPED);
    gateway.signal(Signal::CONT);
    for connection in waiting {
        connection.join().unwrap().unwrap();
    }
    for connection in &mut live {
        exchange(connection, b"still there?").unwrap();
    }
    measured(&format!(
        "stopped for {STOPPED:?}: 40 connections served after {:?}",
        stopped.elapsed()
    ));
    assert_eq!(super::ended(&gateway, "hello_timeout"), 0);
}

#[test]
fn a_second_gateway_at_the_same_port_says_so_and_leaves_the_first_alone() {
    let app = echo();
    let first = gateway(&[app.address]);
    let other = tempfile::tempdir().unwrap();
    let config = format!(
        "cluster: west\nlisteners:\n  ingress: [{{ address: \"{}\" }}]\n  admin: {{ address: \"unix:{}/a.sock\" }}\n",
        first.ingress(),
        other.path().display()
    );
    fs::write(other.path().join("strait.yaml"), config).unwrap();
    let second = strait(&["run", "--config", "strait.yaml"], other.path());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use") && said.contains(&first.ingress().to_string()), "{said}");
    // Not one connection may have gone to the other.
    for _ in 0..50 {
        drop(open(first.ingress(), NAME).unwrap());
    }
}

#[test]
fn a_killed_gateway_can_be_started_again_at_once() {
    let app = echo();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let config = format!("{BASE}{}", routes(&[(NAME, &[app.address])]));
    let config = config.replace("127.0.0.1:0", &port.to_string());
    let mut first = Gateway::with_config(&config);
    // Its ends of these will be in FIN-WAIT or TIME-WAIT, and its admin socket stays.
    let _held: Vec<_> = (0..20).map(|_| open(port, NAME).unwrap()).collect();
    first.signal(Signal::KILL);
    first.exit();
    let socket = filled("{folder}/admin.sock", first.folder());
    assert!(fs::metadata(&socket).is_ok(), "it could not clean up");
    let mut again = Command::new(STRAIT);
    again.args(["run", "--config"]).arg(first.config()).stderr(Stdio::null());
    let killed = Instant::now();
    let again = Process(again.spawn().unwrap());
    wait_until("it serves again", || open(port, NAME).is_ok());
    measured(&format!("killed and started again: serves after {:?}", killed.elapsed()));
    wait_until("it answers again", || {
        first.get("/readyz").is_ok_and(|answer| answer.status == 200)
    });
    drop(again);
}

#[test]
fn when_its_own_queue_overflows_every_client_is_served_in_the_end() {
    const CLIENTS: usize = 60;
    let Some(net) = Net::new("its own queue overflows") else { return };
    net.run(|| {
        let app = echo();
        // What listens already keeps its queue.
        net.set("core/somaxconn", "8");
        let gateway = gateway(&[app.address]);
        let ingress = gateway.ingress();
        // Nobody accepts: the kernel's queue is full after a few, and further SYNs are dropped.
        gateway.signal(Signal::STOP);
        let started = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| open(ingress, NAME).map(drop))).collect();
            thread::sleep(Duration::from_secs(1));
            gateway.signal(Signal::CONT);
            for client in clients {
                client.join().unwrap().unwrap();
            }
        });
        let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        measured(&format!(
            "queue of 8, {CLIENTS} clients at once: all served after {:?}, {} SYNs dropped",
            started.elapsed(),
            counter(&netstat, "ListenDrops")
        ));
        assert!(counter(&netstat, "ListenDrops") > 0, "the queue did not overflow");
    });
}

/// A counter of /proc/net/netstat: names in one line, values in the next.
pub(super) fn counter(netstat: &str, name: &str) -> u64 {
    let mut lines = netstat.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let place = names.split_whitespace().position(|word| word == name);
        if let Some(value) = place.and_then(|place| values.split_whitespace().nth(place)) {
            return value.parse().unwrap();
        }
    }
    panic!("no {name} in {netstat}");
}

#[test]
fn it_serves_as_nobody_without_any_capability() {
    let app = echo();
    let test = "as nobody without any capability";
    let Some(mut gateway) = unprivileged(test, &routes(&[(NAME, &[app.address])])) else { return };
    let status =
        fs::read_to_string(format!("/proc/{}/status", gateway.pid().as_raw_nonzero())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "65534 65534 65534 65534");
    assert_eq!((field("CapEff:"), field("CapPrm:")), ("0".repeat(16), "0".repeat(16)));
    drop(open(gateway.ingress(), NAME).unwrap());
    gateway.signal(Signal::HUP);
    gateway.rewrite(&routes(&[("two.example", &[app.address])]));
    wait_until("a change", || open(gateway.ingress(), "two.example").is_ok());
    gateway.signal(Signal::TERM);
    let left: Duration = SLACK;
    let asked = Instant::now();
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(25) + left);
    // No file but its own was made in the folder.
    let listed = run(Command::new("ls").arg(gateway.folder()));
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["strait", "strait.yaml"]);
}
