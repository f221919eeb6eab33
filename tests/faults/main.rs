//! Real faults, made on purpose, and what the gateway makes of each. Figures are printed as `measured:`; where a limit is asserted
//! it leaves a busy machine some room.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hello.rs"]
mod hello;

mod clock;
mod dns;
mod endpoints;
mod files;
mod hostile;
mod links;
mod log;
mod network;
mod process;
mod slow_links;
mod streams;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::PATIENCE;
use common::app::App;
use common::gateway::Gateway;
use common::wait_until;
use hello::hello;

const NAME: &str = "one.example";
/// A fatal alert, `internal_error` (RFC 8446 §6): no endpoint could be reached.
const INTERNAL_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];
/// On top of a limit, for a machine that does ten other things.
const SLACK: Duration = Duration::from_secs(5);

/// An app that sends back what it gets.
fn echo() -> App {
    echo_at("127.0.0.1:0")
}

fn echo_at(address: &str) -> App {
    App::serve(address.parse().unwrap(), |mut stream| {
        let mut writing = stream.try_clone()?;
        io::copy(&mut stream, &mut writing).map(drop)
    })
}

/// A route for each name, whose endpoints are tried in their order.
fn routes(list: &[(&str, &[SocketAddr])]) -> String {
    let endpoint = |(priority, at): (usize, &SocketAddr)| {
        format!("{{ address: \"{at}\", priority: {priority} }}")
    };
    let route = |(name, endpoints): &(&str, &[SocketAddr])| {
        let endpoints: Vec<_> = endpoints.iter().enumerate().map(endpoint).collect();
        format!("  - {{ name: {name}, endpoints: [{}] }}\n", endpoints.join(", "))
    };
    format!("routes:\n{}", list.iter().map(route).collect::<String>())
}

/// A gateway with the route [`NAME`].
fn gateway(endpoints: &[SocketAddr]) -> Gateway {
    Gateway::start(&routes(&[(NAME, endpoints)]))
}

/// Connects and asks for a name.
fn ask(ingress: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(ingress)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&hello(name.as_bytes()))?;
    Ok(stream)
}

/// A connection to an app that sends back what it gets; an error when that does not happen.
fn open(ingress: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let hello = hello(name.as_bytes());
    let mut stream = TcpStream::connect(ingress)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(&mut stream, &hello)?;
    Ok(stream)
}

/// Sends something and wants it back.
fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    let mut came = vec![0; bytes.len()];
    stream.read_exact(&mut came)?;
    if came == bytes { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

/// What comes until the end.
fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut came = Vec::new();
    stream.read_to_end(&mut came).map(|_| came)
}

fn ended(gateway: &Gateway, ending: &str) -> u64 {
    gateway.metric("strait_connections_total", &[&format!("ending=\"{ending}\"")])
}

/// Waits until so many connections have ended in this way, and none is open.
fn wait_for_endings(gateway: &Gateway, ending: &str, number: u64) {
    wait_until(&format!("{number} × {ending}"), || ended(gateway, ending) >= number);
    wait_until("no open connections", || gateway.status()["connections"]["open"] == 0);
    assert_eq!(ended(gateway, ending), number);
}

/// Waits for three times as long as usual.
fn wait_for_long<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(since.elapsed() < 3 * PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}
