//! The gateway as a process, feature by feature: what it dials, what can be changed while it runs, who may ask it what, and how
//! its commands end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hello.rs"]
mod hello;

mod commands;
mod endpoints;
mod explain;
mod own;
mod settings;
mod starting;
mod surroundings;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use common::app::{App, dial_from};
use common::gateway::Gateway;
use common::{PATIENCE, dns_server};
use hello::hello;

/// What came of a hello: the app's mark, or the alert's code (RFC 8446 §6), or nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Came {
    App(u8),
    Alert(u8),
    Nothing,
}

const UNRECOGNIZED_NAME: Came = Came::Alert(112);
const INTERNAL_ERROR: Came = Came::Alert(80);

/// An app that reads something, then answers with its mark and closes.
fn marked(at: &str, mark: u8) -> App {
    App::serve(at.parse().unwrap(), move |mut stream| {
        let read = stream.read(&mut [0; 4096])?;
        // A check connects, and sends nothing.
        stream.write_all(&vec![mark; read.min(1)])
    })
}

/// Sends bytes and reads what comes.
fn send(mut stream: TcpStream, bytes: &[u8]) -> Came {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut came = [0; 7];
    let answer = stream.write_all(bytes).and_then(|()| stream.read(&mut came));
    match (answer.unwrap_or(0), came) {
        (0, _) => Came::Nothing,
        (7, [0x15, 3, 3, 0, 2, 2, alert]) => Came::Alert(alert),
        (_, [mark, ..]) => Came::App(mark),
    }
}

/// Asks for a name.
fn ask(ingress: SocketAddr, name: &str) -> Came {
    send(TcpStream::connect(ingress).unwrap(), &hello(name.as_bytes()))
}

/// The same, from an address of the loopback network.
fn ask_from(source: IpAddr, ingress: SocketAddr, name: &[u8]) -> Came {
    send(dial_from(source, ingress).unwrap(), &hello(name))
}

/// A port that is free on every address. Below those that the system gives to whoever takes any (`ip_local_port_range`), so that
/// it stays free, and another one in each process and each time.
fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id()
            .wrapping_mul(101)
            .wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(number % 20_000).unwrap();
        if TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

/// A listener whose queue is full, so that the kernel answers no further SYN, and what fills it.
fn silent() -> io::Result<(SocketAddr, Vec<TcpStream>, socket2::Socket)> {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())?;
    full.listen(0)?;
    let address = full.local_addr()?.as_socket().unwrap();
    let step = std::time::Duration::from_millis(200);
    let queued = std::iter::from_fn(|| TcpStream::connect_timeout(&address, step).ok()).collect();
    Ok((address, queued, full))
}

/// The state of the endpoints of the one route that the gateway has.
fn health(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let endpoints = status["routes"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["health"].as_str().unwrap().to_owned()).collect()
}

/// Records with this ending.
fn ended(gateway: &Gateway, ending: &str) -> Vec<Value> {
    gateway.records().into_iter().filter(|record| record["ending"] == ending).collect()
}
