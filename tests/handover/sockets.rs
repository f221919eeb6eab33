//! Listening sockets that go from one process to another, or go away.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustls::ClientConfig;

use super::common::app::{self, App};
use super::common::authority::Authority;
use super::common::gateway::{BASE, STRAIT};
use super::common::joined::own_address;
use super::common::{counterpart, wait_for, wait_until};
use super::{command, first, take_over, with_handover};

const NAME: &str = "one.example";

/// An app, and what its callers trust.
fn app() -> (App, Arc<ClientConfig>) {
    let authority = Authority::new();
    (App::start(&authority, "alpha", &[NAME]), authority.client())
}

fn routes(app: &App) -> String {
    format!("routes: [{{ name: {NAME}, endpoints: [\"{}\"], allow: any }}]\n", app.address)
}

/// Callers that make a connection for each call, as fast as they can, until they are stopped.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Callers {
    fn start(ingress: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = |_| {
            let (stop, calls, tls) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(tls));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    match app::call(ingress, NAME, &tls) {
                        Ok(who) => assert_eq!(who, "alpha"),
                        Err(error) => failures.push(error),
                    }
                    calls.fetch_add(1, Ordering::AcqRel);
                }
                failures
            })
        };
        let threads = (0..8).map(caller).collect();
        Self { stop, calls, threads }
    }

    /// Waits for more calls.
    fn wait_for(&self, more: usize) {
        let before = self.calls.load(Ordering::Acquire);
        wait_until("more calls", || self.calls.load(Ordering::Acquire) >= before + more);
    }

    /// What failed, of how many.
    fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Release);
        let failures = self.threads.into_iter().flat_map(|caller| caller.join().unwrap());
        (failures.collect(), self.calls.load(Ordering::Acquire))
    }
}

#[test]
fn no_connection_fails_while_processes_take_over_with_fewer_and_more_cores() {
    let Some(taskset) = counterpart("no_connection_fails_while_processes_take_over", "taskset")
    else {
        return;
    };
    let (app, tls) = app();
    let mut old = first(&format!("{BASE}{}", routes(&app)));
    let ingress = old.ingress();
    let callers = Callers::start(ingress, &tls);
    for round in 0..4 {
        callers.wait_for(50);
        let mut program = Command::new(&taskset);
        // One core, then as many as there are, and so on.
        program.args(if round % 2 == 0 { ["-c", "0"] } else { ["-c", "0-1023"] }).arg(STRAIT);
        let new = take_over(&old, with_handover(program, old.folder()));
        assert_eq!(old.exit().code(), Some(0));
        assert_eq!(new.ingress(), ingress, "the admin API goes over too");
        old = new;
    }
    callers.wait_for(50);
    let (failures, calls) = callers.end();
    assert!(failures.is_empty(), "{} of {calls}: {failures:?}", failures.len());
}

#[test]
fn no_connection_fails_at_an_egress_address_while_a_process_takes_over() {
    let (app, tls) = app();
    let egress = format!("  egress: {{ bind: {}, ports: 21000-21009 }}\n  admin:", own_address());
    let mut old = first(&format!(
        "{}apps: [{{ app: shop/one, endpoints: [\"{}\"] }}]\n\
         imports: [{{ app: shop/one, name: {NAME}, clusters: [west], allow: any }}]\n",
        BASE.replace("  admin:", &egress),
        app.address
    ));
    let egress = old.egress("shop/one").unwrap();
    let callers = Callers::start(egress, &tls);
    for _ in 0..3 {
        callers.wait_for(50);
        let new = take_over(&old, command(old.folder()));
        assert_eq!(old.exit().code(), Some(0));
        assert_eq!(new.egress("shop/one"), Some(egress));
        old = new;
    }
    callers.wait_for(50);
    let (failures, calls) = callers.end();
    assert!(failures.is_empty(), "{} of {calls}: {failures:?}", failures.len());
}

#[test]
fn a_listener_that_the_successor_does_not_want_is_closed() {
    let (app, _) = app();
    let two = BASE.replace("[{", "[{ address: \"127.0.0.2:0\" }, {");
    let mut old = first(&format!("{two}{}", routes(&app)));
    let (stays, goes) = (old.ingress(), old.bound("127.0.0.2:0").unwrap());
    old.rewrite_all(&format!("{two}{}# the same", routes(&app)));
    let config = old.folder().join("other.yaml");
    let text = format!("{BASE}{}", routes(&app));
    fs::write(&config, super::common::gateway::filled(&text, old.folder())).unwrap();
    let mut other = Command::new(STRAIT);
    other.arg("run").arg("--config").arg(config);
    other.arg("--handover").arg(old.folder().join("handover.sock"));
    let new = take_over(&old, other);
    old.exit();
    assert_eq!(new.ingress(), stays);
    wait_until("the other listener is closed", || TcpStream::connect(goes).is_err());
}

#[test]
fn a_successor_that_cannot_start_leaves_the_old_one_at_work() {
    let (app, tls) = app();
    let old = first(&format!("{BASE}{}", routes(&app)));
    let mut wrong = Command::new(STRAIT);
    fs::write(old.folder().join("wrong.yaml"), "cluster: west\nroute: []\n").unwrap();
    wrong.arg("run").arg("--config").arg(old.folder().join("wrong.yaml"));
    wrong.arg("--handover").arg(old.folder().join("handover.sock"));
    assert_eq!(old.beside(wrong).exit().code(), Some(1));
    old.wait_for_words("going on as before");
    assert_eq!(app::call(old.ingress(), NAME, &tls).unwrap(), "alpha");
    // And it can still be taken over.
    drop(take_over(&old, command(old.folder())));
}

#[test]
fn who_was_relieved_leaves_later_configurations_to_its_successor() {
    let (app, tls) = app();
    let routes = routes(&app).replace(" }", ", quietClose: false }");
    let old = first(&format!("{BASE}limits: {{ drainTimeout: 10m }}\n{routes}"));
    let mut live = app::connect(old.ingress(), NAME, &tls).unwrap();
    let new = take_over(&old, command(old.folder()));
    let in_force = || old.lines().iter().filter(|line| line.contains("in force")).count();
    let before = in_force();
    // Both watch the same file. An address that the old one bound would be missing to the new one.
    let two = BASE.replace("[{", "[{ address: \"127.0.0.2:0\" }, {");
    new.rewrite_all(&format!("{two}{routes}"));
    let added = wait_for("the new listener", || new.bound("127.0.0.2:0"));
    assert_eq!(app::call(added, NAME, &tls).unwrap(), "alpha");
    old.signal(Signal::HUP);
    old.wait_for_words("SIGHUP");
    // Time in which the old one would have done it too.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(live.who().unwrap(), "alpha");
    assert_eq!(in_force(), before);
}

#[test]
fn whom_a_removed_listener_has_accepted_it_serves() {
    let (app, tls) = app();
    let two = BASE.replace("[{", "[{ address: \"127.0.0.2:0\" }, {");
    let routes = routes(&app);
    let gateway = first(&format!("{two}{routes}"));
    for _ in 0..5 {
        let goes = gateway.bound("127.0.0.2:0").unwrap();
        let callers = Callers::start(goes, &tls);
        callers.wait_for(50);
        gateway.rewrite_all(&format!("{BASE}{routes}"));
        wait_until("the listener is closed", || gateway.bound("127.0.0.2:0").is_none());
        wait_until("connections are refused", || {
            TcpStream::connect(goes)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        let (failures, _) = callers.end();
        let broken = failures.iter().filter(|failure| !failure.contains("refused"));
        assert_eq!(broken.collect::<Vec<_>>(), Vec::<&String>::new());
        gateway.rewrite_all(&format!("{two}{routes}"));
        wait_until("the listener is back", || gateway.bound("127.0.0.2:0").is_some());
    }
}
