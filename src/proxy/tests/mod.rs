//! Whole connections through a running proxy, over loopback.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown as Half, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Ingress, Limits, Settings};
use crate::model::ending::{Alert, Ending};
use crate::model::name::{CanonicalName, NamePattern};
use crate::model::snapshot::{
    Addresses, Allow, AllowRule, EndpointAt, EndpointSpec, Kind, Origin, RouteSpec, Routes,
};
use crate::routing::build::{Inputs, OwnListeners, build};
use crate::routing::endpoint::{Endpoints, Health};
use crate::routing::live::Live;
use crate::routing::table::Table;
use crate::telemetry::metrics::Metrics;

use super::thread::Form;
use super::{Proxy, Shared};

/// Long enough for any machine; never waited for when all is well.
const PATIENCE: Duration = Duration::from_mins(1);
const NAME: &str = "checkout.shop.example";

thread_local! {
    /// What the test's gateways wait for their sockets with.
    static FORM: Cell<Form> = const { Cell::new(Form::Own) };
}

/// Makes two tests of each function: one for each form of sockets.
macro_rules! on_both_forms {
    ($($test:ident)*) => {
        mod own_set {
            $(#[test] fn $test() { super::$test(); })*
        }
        mod portable {
            use super::{FORM, Form};
            $(#[test] fn $test() { FORM.set(Form::Portable); super::$test(); })*
        }
    };
}

// Behind the macro, which they use.
mod endpoints;
mod ends;
mod headers;
mod refusals;

/// A running proxy with one listener.
struct Gateway {
    proxy: Proxy,
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// The name for which a connection's task panics.
const FAULTY: &str = "fault.shop.example";

/// Where a fault of ours would be: in the middle of a connection's life.
pub(super) fn fault(name: &CanonicalName) {
    assert_ne!(name.as_str(), FAULTY, "a fault that the test asked for");
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn ingress(address: SocketAddr) -> Ingress {
    Ingress { address, proxy_from: Vec::new() }
}

impl Gateway {
    fn start(limits: Limits, listener: Ingress) -> Self {
        let settings = Arc::new(Settings { limits, ..Settings::default() });
        let metrics = Arc::new(Metrics::new());
        metrics.admit_listeners([&*listener.address.to_string()]);
        metrics.admit_routes([&"route".into()], 10);
        let shared = Arc::new(Shared::new(Arc::new(Live::new(settings)), metrics, Arc::default()));
        let proxy = Proxy::start_as(FORM.get(), 2, Arc::clone(&shared)).unwrap();
        proxy.apply(&[listener]).unwrap();
        let address = proxy.bound()[0].1;
        Self { proxy, shared, address }
    }

    fn with(routes: Vec<RouteSpec>) -> Self {
        let gateway = Self::start(Limits::default(), ingress(any_port()));
        gateway.publish(routes);
        gateway
    }

    fn publish(&self, routes: Vec<RouteSpec>) {
        let settings = Arc::clone(&self.shared.live.load().settings);
        self.shared.live.publish(table(routes), settings);
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut client = self.connect();
        client.write_all(bytes).unwrap();
        client
    }

    fn count(&self, ending: Ending) -> u64 {
        let text = self.shared.metrics.text();
        let label = format!("ending=\"{}\"", ending.label());
        let counted =
            |line: &&str| line.starts_with("strait_connections_total") && line.contains(&label);
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        text.lines().filter(counted).map(value).sum()
    }

    /// Waits until so many connections have ended in this way.
    fn expect(&self, ending: Ending, times: u64) {
        let what = format!("{times} × {}", ending.label());
        until(&what, || self.count(ending) == times);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(2));
    }
}

fn table(routes: Vec<RouteSpec>) -> Table {
    let routes = Routes { routes, ..Routes::default() };
    let (addresses, own) = (Addresses::default(), OwnListeners::default());
    let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
    build(&inputs, &mut Endpoints::default()).unwrap()
}

fn route(endpoints: &[SocketAddr]) -> RouteSpec {
    let origin = Origin { file: std::path::Path::new("test.yaml").into(), line: 1, column: 1 };
    let endpoint = |(priority, &address)| EndpointSpec {
        at: EndpointAt::Address(address),
        weight: 1,
        priority,
        origin: origin.clone(),
    };
    RouteSpec {
        label: "route".into(),
        kind: Kind::Plain,
        names: vec![(NamePattern::parse(NAME).unwrap(), origin.clone())],
        allow: Allow::Open,
        import: None,
        endpoints: (0..).zip(endpoints).map(endpoint).collect(),
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    }
}

/// A hello with this name, TLS 1.2's shape and an extension less than anybody sends.
fn hello(name: &str, random: u8) -> Vec<u8> {
    let two = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let prefixed = |bytes: &[u8]| [&two(bytes.len())[..], bytes].concat();
    let list = prefixed(&[&[0][..], &prefixed(name.as_bytes())].concat());
    let extensions = prefixed(&[&[0, 0][..], &prefixed(&list)].concat());
    let body =
        [&[3, 3][..], &[random; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0], &extensions].concat();
    let message = [&[1, 0][..], &prefixed(&body)].concat();
    [&[0x16, 3, 1][..], &prefixed(&message)].concat()
}

/// Accepts one connection.
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that refuses connections. Held for good: another test must not listen there.
fn dead() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&any_port().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Both sides end as they should, with nothing unread.
fn finish(mut client: TcpStream, mut served: TcpStream) {
    for side in [&client, &served] {
        side.shutdown(Half::Write).unwrap();
    }
    rest(&mut served).unwrap();
    rest(&mut client).unwrap();
}

fn alert(alert: Alert) -> Vec<u8> {
    vec![0x15, 3, 3, 0, 2, 2, alert as u8]
}
