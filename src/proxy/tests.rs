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

on_both_forms! {
    dials_in_progress_are_bounded_for_each_route
    a_refused_client_that_stays_is_listened_to_for_a_second_and_not_when_too_many_are
    a_header_has_a_deadline_of_its_own
    silence_for_the_idle_limit_ends_a_connection
    bytes_reach_the_route_of_the_name
    the_next_endpoint_gets_the_same_hello
    without_an_endpoint_the_client_learns_it_at_once
    an_endpoint_that_does_not_answer_gives_way_to_the_next
    an_endpoint_that_closes_without_a_byte_gives_way_to_the_next
    an_endpoint_that_is_silent_gives_way_to_the_next
    an_endpoint_is_waited_for_no_longer_than_the_limit_says
    the_last_endpoint_that_is_silent_is_told_of
    what_is_more_than_a_hello_goes_to_nobody_else
    what_was_answered_goes_to_nobody_else
    a_refused_client_that_never_stops_is_cut_off
    an_alert_arrives_although_the_client_goes_on_sending
    plain_text_gets_a_close
    strangers_cannot_tell_a_denied_name_from_an_unknown_one
    a_route_that_leads_back_is_a_loop_and_the_same_hello_later_is_not
    a_client_that_leaves_in_its_hello_is_let_go
    one_deadline_covers_the_hello_however_it_drips
    over_the_limit_the_newest_is_closed_cleanly
    draining_lets_connections_finish_and_cutting_closes_them
    what_waits_in_a_stopped_listeners_queue_is_served
    a_header_tells_the_source_of_those_who_must_send_one
    an_endpoint_can_get_a_header_with_name_and_id
    listeners_change_together_or_not_at_all
    a_live_connection_keeps_no_table
    a_fault_costs_its_own_connection_and_nothing_else
}

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

fn bytes_reach_the_route_of_the_name() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let sent = [hello(&NAME.to_uppercase(), 1), b"early data".to_vec()].concat();
    let mut client = gateway.connect();
    for byte in &sent {
        client.write_all(&[*byte]).unwrap();
    }
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, sent.len()), sent);
    served.write_all(b"answer").unwrap();
    drop(served);
    client.shutdown(Half::Write).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"answer");
    gateway.expect(Ending::Completed, 1);
    let text = gateway.shared.metrics.text();
    let up = format!("strait_bytes_total{{direction=\"up\",route=\"route\"}} {}", sent.len());
    assert!(text.contains(&up), "{text}");
}

fn the_next_endpoint_gets_the_same_hello() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[dead(), dead(), address])]);
    let client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1));
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
}

fn without_an_endpoint_the_client_learns_it_at_once() {
    let gateway = Gateway::with(vec![route(&[dead()])]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    gateway.publish(vec![RouteSpec { endpoints: Vec::new(), ..route(&[]) }]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::NoHealthyEndpoint, 1);
}

fn an_endpoint_that_does_not_answer_gives_way_to_the_next() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&any_port().into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    // Once its queue is full, the kernel answers no further SYN.
    let step = Duration::from_millis(200);
    let queued: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&silent, step).ok()).collect();

    let (endpoint, address) = listen();
    let limits = Limits { connect_timeout: step, connect_total: PATIENCE, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[silent, address])]);
    let client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1));
    finish(client, served);

    let limits = Limits { connect_total: step, ..limits };
    let settings = Arc::new(Settings { limits, ..Settings::default() });
    gateway.shared.live.publish(table(vec![route(&[silent, address])]), settings);
    let mut client = gateway.send(&hello(NAME, 2));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError), "no time for the next");
    gateway.expect(Ending::ConnectFailed, 1);
    drop(queued);
}

fn an_endpoint_that_closes_without_a_byte_gives_way_to_the_next() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    let hello = hello(NAME, 1);
    for resets in [false, true, false] {
        let client = gateway.send(&hello);
        let mut failing = accept(&first);
        if resets {
            // What is unread at a close is answered with a reset.
            failing.peek(&mut [0]).unwrap();
        } else {
            assert_eq!(read(&mut failing, hello.len()), hello);
        }
        drop(failing);
        let mut served = accept(&second);
        assert_eq!(read(&mut served, hello.len()), hello);
        finish(client, served);
    }
    gateway.expect(Ending::Completed, 3);
    let generation = gateway.shared.live.load();
    let route = Arc::clone(generation.table.routes().next().unwrap());
    let health = |at: usize| route.candidates[at].endpoint.health();
    // Unless a loaded machine took longer than the ejection.
    let failed = route.candidates[0].endpoint.well_for(Instant::now());
    assert!(failed.is_none_or(|well| well < PATIENCE), "{failed:?}");
    assert_eq!(health(1), Health::Healthy);
}

/// With a limit for the first byte that is as short as the engine's clock is exact.
fn impatient(endpoints: &[SocketAddr]) -> Gateway {
    let limits = Limits { first_byte_timeout: Duration::from_millis(100), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(endpoints)]);
    gateway
}

fn an_endpoint_that_is_silent_gives_way_to_the_next() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = impatient(&[at_first, at_second]);
    let hello = hello(NAME, 1);
    let mut client = gateway.send(&hello);
    let mut silent = accept(&first);
    let mut served = accept(&second);
    assert_eq!(rest(&mut silent).unwrap(), hello, "and then the end");
    assert_eq!(read(&mut served, hello.len()), hello);
    served.write_all(b"answer").unwrap();
    assert_eq!(read(&mut client, 6), b"answer");
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
    let counted = format!("bytes_total{{direction=\"up\",route=\"route\"}} {}\n", hello.len());
    let text = gateway.shared.metrics.text();
    assert!(text.contains(&counted), "the client has sent it once: {text}");
}

fn an_endpoint_is_waited_for_no_longer_than_the_limit_says() {
    // A busy machine may be late, but hardly each time.
    let took = (0..5).map(|number| {
        let ((first, at_first), (second, at_second)) = (listen(), listen());
        let gateway = impatient(&[at_first, at_second]);
        let _client = gateway.send(&hello(NAME, number));
        let (_silent, asked) = (accept(&first), Instant::now());
        let _served = accept(&second);
        asked.elapsed()
    });
    let late: Vec<_> = took.take_while(|took| *took > Duration::from_millis(600)).collect();
    assert!(late.len() < 5, "a limit of 100 ms: {late:?}");
}

fn the_last_endpoint_that_is_silent_is_told_of() {
    let (endpoint, address) = listen();
    let gateway = impatient(&[address]);
    let mut client = gateway.send(&hello(NAME, 1));
    let _silent = accept(&endpoint);
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    until("its end", || gateway.proxy.open_connections() == 0);
}

fn what_is_more_than_a_hello_goes_to_nobody_else() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    let sent = [hello(NAME, 1), b"early".to_vec()].concat();
    let mut client = gateway.send(&sent);
    let mut failing = accept(&first);
    assert_eq!(read(&mut failing, sent.len()), sent);
    drop(failing);
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn what_was_answered_goes_to_nobody_else() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut failing = accept(&first);
    failing.write_all(b"a").unwrap();
    assert_eq!(read(&mut client, 1), b"a");
    drop(failing);
    assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    gateway.expect(Ending::ResetByEndpoint, 1);
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn a_refused_client_that_never_stops_is_cut_off() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&hello("unknown.example", 1));
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let error = std::iter::repeat_with(|| client.write_all(&[0; 4096])).find_map(Result::err);
    assert!(matches!(error.unwrap().kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    until("its end", || gateway.proxy.open_connections() == 0);
}

fn an_alert_arrives_although_the_client_goes_on_sending() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&[hello("unknown.example", 1), vec![0; 20_000]].concat());
    let mut more = client.try_clone().unwrap();
    assert_eq!(read(&mut client, 7), alert(Alert::UnrecognizedName));
    more.write_all(&vec![0; 20_000]).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"", "a FIN, no RST");
    gateway.expect(Ending::UnknownName, 1);
}

fn plain_text_gets_a_close() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&[&b"GET / HTTP/1.1\r\n"[..], &[b'a'; 5000]].concat());
    assert_eq!(rest(&mut client).unwrap(), b"", "a FIN, no RST");
    gateway.expect(Ending::NotTls, 1);
}

fn strangers_cannot_tell_a_denied_name_from_an_unknown_one() {
    let network = |written: &str| AllowRule::Network(written.parse().unwrap());
    let closed = |network| RouteSpec { allow: Allow::Rules(vec![network]), ..route(&[dead()]) };
    let gateway = Gateway::with(vec![closed(network("192.0.2.0/24"))]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::UnrecognizedName));

    let name = NamePattern::parse("other.example").unwrap();
    let origin = Origin { file: std::path::Path::new("test.yaml").into(), line: 2, column: 1 };
    let admitting = RouteSpec { names: vec![(name, origin)], ..closed(network("127.0.0.0/8")) };
    gateway.publish(vec![closed(network("192.0.2.0/24")), admitting]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::AccessDenied));
    gateway.expect(Ending::Denied, 2);
}

fn a_route_that_leads_back_is_a_loop_and_the_same_hello_later_is_not() {
    let gateway = Gateway::with(Vec::new());
    gateway.publish(vec![route(&[gateway.address])]);
    for times in 1..=2 {
        let mut client = gateway.send(&hello(NAME, 1));
        assert_eq!(read(&mut client, 7), alert(Alert::InternalError));
        drop(client);
        gateway.expect(Ending::Loop, times);
        until("the end of both", || gateway.proxy.open_connections() == 0);
    }
    let (endpoint, address) = listen();
    gateway.publish(vec![route(&[address])]);
    let _client = gateway.send(&hello(NAME, 1));
    accept(&endpoint);
}

fn a_client_that_leaves_in_its_hello_is_let_go() {
    let gateway = Gateway::with(Vec::new());
    drop(gateway.connect());
    gateway.expect(Ending::ClientGone, 1);
    let client = gateway.send(&hello(NAME, 1)[..50]);
    client.shutdown(Half::Write).unwrap();
    gateway.expect(Ending::ClientGone, 2);
    let client = gateway.send(&hello(NAME, 1)[..50]);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gateway.expect(Ending::ClientGone, 3);
}

fn one_deadline_covers_the_hello_however_it_drips() {
    let limits = Limits { hello_timeout: Duration::from_millis(300), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    let mut client = gateway.connect();
    let start = Instant::now();
    for byte in hello(NAME, 1) {
        if client.write_all(&[byte]).is_err() || gateway.count(Ending::HelloTimeout) == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    gateway.expect(Ending::HelloTimeout, 1);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(rest(&mut client).unwrap(), b"");
}

fn over_the_limit_the_newest_is_closed_cleanly() {
    let (endpoint, address) = listen();
    let limits = Limits { connections: 1, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let client = gateway.send(&hello(NAME, 1));
    let served = accept(&endpoint);
    let mut newest = gateway.send(&hello(NAME, 2));
    assert_eq!(rest(&mut newest).unwrap(), b"", "no RST");
    gateway.expect(Ending::Overloaded, 1);
    assert!(
        gateway.shared.metrics.text().contains("limit_refusals_total{limit=\"connections\"} 1")
    );
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
    let _client = gateway.send(&hello(NAME, 3));
    accept(&endpoint);
}

fn draining_lets_connections_finish_and_cutting_closes_them() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    let pending = gateway.connect();
    until("both accepted", || gateway.proxy.open_connections() == 2);

    gateway.proxy.stop_accepting();
    until("the listener's end", || TcpStream::connect(gateway.address).is_err());
    served.write_all(b"still here").unwrap();
    assert_eq!(read(&mut client, 10), b"still here");

    gateway.proxy.cut();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let drained = async { tokio::time::timeout(PATIENCE, gateway.proxy.drained()).await };
    runtime.block_on(drained).expect("everything ends");
    gateway.expect(Ending::Drained, 2);
    assert_eq!(rest(&mut client).unwrap(), b"");
    drop(pending);
}

fn what_waits_in_a_stopped_listeners_queue_is_served() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let clients: Vec<_> = (0..20).map(|number| gateway.send(&hello(NAME, number))).collect();
    gateway.proxy.apply(&[]).unwrap();
    for client in clients {
        client.shutdown(Half::Write).unwrap();
    }
    for _ in 0..20 {
        let mut served = accept(&endpoint);
        assert_eq!(rest(&mut served).unwrap().len(), hello(NAME, 0).len());
    }
    gateway.expect(Ending::Completed, 20);
}

fn a_header_tells_the_source_of_those_who_must_send_one() {
    let (endpoint, address) = listen();
    let listener =
        Ingress { address: any_port(), proxy_from: vec!["127.0.0.0/8".parse().unwrap()] };
    let gateway = Gateway::start(Limits::default(), listener);
    let rule = AllowRule::Network("192.0.2.0/24".parse().unwrap());
    gateway.publish(vec![RouteSpec { allow: Allow::Rules(vec![rule]), ..route(&[address]) }]);
    let header =
        |source: &str| format!("PROXY TCP4 {source} 192.0.2.99 4711 8443\r\n").into_bytes();

    let _client = gateway.send(&[header("192.0.2.7"), hello(NAME, 1)].concat());
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1), "without the header");

    let mut client = gateway.send(&[header("198.51.100.1"), hello(NAME, 2)].concat());
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::UnrecognizedName));
    gateway.expect(Ending::Denied, 1);

    let mut client = gateway.send(&hello(NAME, 3));
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::BadProxyHeader, 1);
}

fn an_endpoint_can_get_a_header_with_name_and_id() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![RouteSpec { send_proxy: true, ..route(&[address]) }]);
    let client = gateway.send(&hello(NAME, 1));
    let source = client.local_addr().unwrap();
    client.shutdown(Half::Write).unwrap();
    let mut served = accept(&endpoint);
    let came = rest(&mut served).unwrap();
    let header =
        came.strip_suffix(&hello(NAME, 1)[..]).expect("the hello stands behind the header");
    let parsed = ppp::v2::Header::try_from(header).unwrap();
    let expected = ppp::v2::IPv4::new(
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::LOCALHOST,
        source.port(),
        gateway.address.port(),
    );
    assert_eq!(parsed.addresses, ppp::v2::Addresses::IPv4(expected));
    let tlvs: Vec<_> = parsed.tlvs().map(Result::unwrap).collect();
    assert!(tlvs.iter().any(|tlv| tlv.kind == 2 && *tlv.value == *NAME.as_bytes()));
    assert!(tlvs.iter().any(|tlv| tlv.kind == 5 && tlv.value.len() == 16));
}

fn listeners_change_together_or_not_at_all() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let kept = ingress(any_port());
    let stranger = listen();
    let error = gateway.proxy.apply(&[ingress(stranger.1)]).unwrap_err();
    assert_eq!((error.address, error.error.kind()), (stranger.1, ErrorKind::AddrInUse));
    let missing = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8443);
    let error = gateway.proxy.apply(&[kept.clone(), ingress(missing)]).unwrap_err();
    assert_eq!((error.address, error.error.kind()), (missing, ErrorKind::AddrNotAvailable));
    assert_eq!(gateway.proxy.bound(), [(kept.clone(), gateway.address)]);

    let trusting = Ingress { proxy_from: vec!["192.0.2.0/24".parse().unwrap()], ..kept };
    gateway.proxy.apply(&[ingress(any_port()), trusting.clone()]).unwrap();
    let bound = gateway.proxy.bound();
    assert_eq!(bound.len(), 2);
    assert!(bound.iter().any(|(_, address)| *address == gateway.address), "not bound again");

    let client = gateway.send(&hello(NAME, 1));
    let served = accept(&endpoint);
    gateway.proxy.apply(&[]).unwrap();
    // Back at once: the sockets that went may still wait for the end of handshakes.
    gateway.proxy.apply(&[ingress(gateway.address)]).unwrap();
    gateway.proxy.apply(&[]).unwrap();
    until("the listeners' end", || TcpStream::connect(gateway.address).is_err());
    assert_eq!(gateway.proxy.open_connections(), 1, "connections live on");
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
}

fn a_live_connection_keeps_no_table() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let old = Arc::downgrade(&gateway.shared.live.load());
    let pending = gateway.connect();
    let _client = gateway.send(&hello(NAME, 1));
    let _served = accept(&endpoint);
    gateway.publish(Vec::new());
    until("the old table's end", || old.upgrade().is_none());
    assert!(gateway.proxy.open_connections() >= 1);
    drop(pending);
}

fn dials_in_progress_are_bounded_for_each_route() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let route = Arc::clone(gateway.shared.live.load().table.lookup(NAME).unwrap().route);
    let dials: Vec<_> = (0..100_000).map_while(|_| route.dial_permit()).collect();
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::Overloaded, 1);
    assert!(gateway.shared.metrics.text().contains("limit_refusals_total{limit=\"dials\"} 1"));
    drop(dials);
    let _client = gateway.send(&hello(NAME, 2));
    accept(&endpoint);
}

/// How long the gateway listens to a refused client that neither speaks nor goes.
fn listened_to(gateway: &Gateway) -> Duration {
    let mut client = gateway.send(&hello("unknown.example", 1));
    assert_eq!(read(&mut client, 7), alert(Alert::UnrecognizedName));
    let told = Instant::now();
    until("its end", || gateway.proxy.open_connections() == 0);
    told.elapsed()
}

fn a_refused_client_that_stays_is_listened_to_for_a_second_and_not_when_too_many_are() {
    let gateway = Gateway::with(Vec::new());
    // Of some one has to be seen as it was: a machine that is busy with other things may delay the others.
    let longest = (0..3).map(|_| listened_to(&gateway)).max();
    assert!(longest > Some(Duration::from_millis(500)), "{longest:?}");
    let discarding = &gateway.shared.discarding;
    let most = gateway.shared.admission.descriptors.most_discarding();
    let places: Vec<_> = (0..100_000).map_while(|_| discarding.take(most)).collect();
    assert!((1..=1024).contains(&places.len()), "{}", places.len());
    let fastest = (0..5).map(|_| listened_to(&gateway)).min();
    assert!(fastest < Some(Duration::from_millis(500)), "{fastest:?}");
}

fn a_header_has_a_deadline_of_its_own() {
    let listener =
        Ingress { address: any_port(), proxy_from: vec!["127.0.0.0/8".parse().unwrap()] };
    let limits = Limits { hello_timeout: Duration::from_hours(1), ..Limits::default() };
    let gateway = Gateway::start(limits, listener);
    let mut client = gateway.send(b"PROXY TCP4 192.0.2.7 ");
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::BadProxyHeader, 1);
}

fn silence_for_the_idle_limit_ends_a_connection() {
    let (endpoint, address) = listen();
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(rest(&mut served).unwrap(), hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::IdleTimeout, 1);
}

fn a_fault_costs_its_own_connection_and_nothing_else() {
    const FAULTS: u8 = 20;
    let (endpoint, address) = listen();
    // Fewer places than faults: one that were lost with its task would show.
    let limits = Limits { connections: 5, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let mut live = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    read(&mut served, hello(NAME, 1).len());
    for random in 0..FAULTS {
        let mut faulty = gateway.send(&hello(FAULTY, random));
        assert_eq!(rest(&mut faulty).unwrap_or_default(), b"", "it is closed, at once");
    }
    gateway.expect(Ending::Internal, FAULTS.into());
    live.write_all(b"still there?").unwrap();
    assert_eq!(read(&mut served, 12), b"still there?");
    let other = gateway.send(&hello(NAME, 2));
    let mut second = accept(&endpoint);
    assert_eq!(read(&mut second, hello(NAME, 2).len()), hello(NAME, 2));
    finish(other, second);
    finish(live, served);
    until("no open connections", || gateway.proxy.open_connections() == 0);
}
