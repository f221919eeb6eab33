//! A thousand tables and more, one after the other, under a data path at work.

#[path = "common/hello.rs"]
mod hello;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use strait::config::{Ingress, Settings};
use strait::model::name::NamePattern;
use strait::model::snapshot::{
    Addresses, Allow, EndpointAt, EndpointSpec, Kind, Origin, RouteSpec, Routes,
};
use strait::proxy::{Proxy, Shared};
use strait::routing::build::{Inputs, OwnListeners, build};
use strait::routing::endpoint::Endpoints;
use strait::routing::live::{Generation, Live};
use strait::routing::table::Route;
use strait::telemetry::metrics::Metrics;

use hello::hello;

/// Connections that live to the end, begun all along.
const HELD: usize = 20;
const PATIENCE: Duration = Duration::from_mins(1);
const STABLE: &str = "stable.example";
/// A fatal alert, `unrecognized_name` (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// The data path without the control side: the test is the one that publishes.
struct Gateway {
    live: Arc<Live<Settings>>,
    address: SocketAddr,
    endpoints: Endpoints,
    proxy: Proxy,
}

impl Gateway {
    fn start() -> Self {
        let live = Arc::new(Live::new(Arc::new(Settings::default())));
        let shared = Shared::new(Arc::clone(&live), Arc::new(Metrics::new()), Arc::default());
        let proxy = Proxy::start(2, Arc::new(shared)).unwrap();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        proxy.apply(&[Ingress { address, proxy_from: Vec::new() }]).unwrap();
        let address = proxy.bound()[0].1;
        Self { live, address, endpoints: Endpoints::default(), proxy }
    }

    /// Puts a table with these names in force, all with the same endpoint.
    fn publish(&mut self, names: &[&str], endpoint: SocketAddr) {
        let routes = names.iter().map(|name| route(name, endpoint)).collect();
        let routes = Routes { routes, ..Routes::default() };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        let table = build(&inputs, &mut self.endpoints).unwrap();
        let settings = Arc::clone(&self.live.load().settings);
        self.live.publish(table, settings);
    }

    fn in_force(&self) -> (Weak<Generation<Settings>>, Vec<Weak<Route>>) {
        let generation = self.live.load();
        let routes = generation.table.routes().map(Arc::downgrade).collect();
        (Arc::downgrade(&generation), routes)
    }
}

fn route(name: &str, endpoint: SocketAddr) -> RouteSpec {
    let origin = Origin { file: Path::new("test.yaml").into(), line: 1, column: 1 };
    let at = EndpointAt::Address(endpoint);
    RouteSpec {
        label: name.into(),
        kind: Kind::Plain,
        names: vec![(NamePattern::parse(name).unwrap(), origin.clone())],
        allow: Allow::Open,
        import: None,
        endpoints: vec![EndpointSpec { at, weight: 1, priority: 0, origin }],
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    }
}

/// An endpoint that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

/// Opens a connection for a name.
fn open(gateway: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let hello = hello(name.as_bytes());
    stream.write_all(&hello)?;
    expect(&mut stream, &hello)?;
    Ok(stream)
}

/// Sends something more and wants it back.
fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"still there?")?;
    expect(stream, b"still there?")
}

fn expect(stream: &mut TcpStream, sent: &[u8]) -> io::Result<()> {
    let mut came = vec![0; sent.len()];
    stream.read_exact(&mut came)?;
    if came == sent { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

fn measured(what: &str) {
    // Not `eprintln!`, which the test runner swallows when a test passes.
    let _ = writeln!(io::stderr(), "measured: {what}");
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Connections a second while tables change.
const RATE: u32 = 200;

/// How many tables; `STRAIT_SWAPS` says another number, 10,000 in CI.
fn swaps() -> usize {
    let asked = std::env::var("STRAIT_SWAPS").ok();
    asked.map_or(1000, |number| number.parse().expect("STRAIT_SWAPS is a number"))
}

/// Callers of the stable route, [`RATE`] a second.
struct Load {
    started: Instant,
    begun: AtomicU32,
    ended: AtomicUsize,
    done: AtomicBool,
}

impl Load {
    /// Calls, each in its time, until told to stop. Gives back what failed.
    fn run(&self, gateway: SocketAddr) -> Vec<io::Error> {
        let mut failures = Vec::new();
        while !self.done.load(Ordering::Acquire) {
            let due = Duration::from_secs(1) * self.begun.fetch_add(1, Ordering::AcqRel) / RATE;
            thread::sleep((self.started + due).saturating_duration_since(Instant::now()));
            let call = open(gateway, STABLE).and_then(|mut stream| exchange(&mut stream));
            failures.extend(call.err());
            self.ended.fetch_add(1, Ordering::AcqRel);
        }
        failures
    }

    /// Does something meanwhile. What it came to, and how many calls there were, none of which failed.
    fn during<T>(gateway: SocketAddr, work: impl FnOnce(&Self) -> T) -> (T, usize) {
        let (begun, ended, done) = (AtomicU32::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let load = Self { started: Instant::now(), begun, ended, done };
        let (came, failures) = thread::scope(|scope| {
            // Several, so that a call that takes long does not hold up the next.
            let callers = [(); 4].map(|()| scope.spawn(|| load.run(gateway)));
            let finished = Finished(&load.done);
            let came = work(&load);
            drop(finished);
            let failures = callers.map(|caller| caller.join().unwrap());
            (came, failures.into_iter().flatten().collect::<Vec<_>>())
        });
        let calls = load.ended.into_inner();
        assert!(failures.is_empty(), "{} of {calls} calls failed: {failures:?}", failures.len());
        let each = load.started.elapsed() / u32::try_from(calls).unwrap().max(1);
        measured(&format!("{calls} calls, one each {each:?}, 0 failed"));
        (came, calls)
    }

    /// Waits for a call that began after this.
    fn wait(&self) {
        let before = self.ended.load(Ordering::Acquire);
        until("a call under this table", || self.ended.load(Ordering::Acquire) > before);
    }
}

/// Tells threads when it is dropped, also by a panic: the scope would wait for them.
struct Finished<'a>(&'a AtomicBool);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_thousand_tables_fail_no_stable_route_and_are_gone_while_their_connections_live() {
    let (endpoint, swaps) = (echo(), swaps());
    let mut gateway = Gateway::start();
    gateway.publish(&[STABLE, "moving0.example"], endpoint);
    let (started, address) = (Instant::now(), gateway.address);
    let (mut old, mut held) = (Vec::new(), Vec::new());
    let ((), calls) = Load::during(address, |load| {
        for swap in 1..=swaps {
            if swap.is_multiple_of(swaps / HELD) {
                // By a route that the next table does not have any more.
                let name = format!("moving{}.example", swap - 1);
                held.push(open(address, &name).unwrap());
            }
            old.push(gateway.in_force());
            gateway.publish(&[STABLE, &format!("moving{swap}.example")], endpoint);
            load.wait();
        }
    });
    assert!(calls > swaps, "{calls} calls are no load");
    assert_eq!((old.len(), held.len()), (swaps, HELD));
    measured(&format!("{swaps} tables in {:?}", started.elapsed()));

    until("the end of the callers' connections", || gateway.proxy.open_connections() == held.len());
    let tables = old.iter().filter(|(generation, _)| generation.strong_count() > 0).count();
    let routes = old.iter().flat_map(|(_, routes)| routes);
    assert_eq!((tables, routes.filter(|route| route.strong_count() > 0).count()), (0, 0));
    for stream in &mut held {
        exchange(stream).unwrap();
    }
}

#[test]
fn a_removed_route_refuses_from_the_swap_on_and_its_connections_live() {
    let endpoint = echo();
    let mut gateway = Gateway::start();
    gateway.publish(&[STABLE], endpoint);
    let mut longest = Duration::ZERO;
    Load::during(gateway.address, |load| {
        for _ in 0..100 {
            gateway.publish(&[STABLE, "removed.example"], endpoint);
            let mut live = open(gateway.address, "removed.example").unwrap();
            gateway.publish(&[STABLE], endpoint);
            let published = Instant::now();
            let mut refused = TcpStream::connect(gateway.address).unwrap();
            refused.set_read_timeout(Some(PATIENCE)).unwrap();
            refused.write_all(&hello(b"removed.example")).unwrap();
            expect(&mut refused, &UNRECOGNIZED_NAME).unwrap();
            longest = longest.max(published.elapsed());
            exchange(&mut live).unwrap();
            load.wait();
        }
    });
    // Not one is served any more, so this is how long a refusal takes.
    measured(&format!("removed route: refused {longest:?} after the swap at the latest"));
}
