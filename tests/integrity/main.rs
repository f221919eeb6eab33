//! Bytes and resources through the real gateway: what goes in comes out, whatever the two sides do to each other, and nothing
//! stays behind.
//!
//! `STRAIT_INTEGRITY=full` runs the amounts that a release is tried with: 4 GiB each way and 100,000 connections.
#![allow(clippy::print_stdout, reason = "figures, for who asks for them with --nocapture")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hello.rs"]
mod hello;

mod bounds;
mod resets;
mod streams;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Context;
use tempfile::TempDir;

use common::app::App;
use common::gateway::Gateway;
use common::joined::{Joined, More, NAME};
use common::{PATIENCE, noise};
use hello::hello;

/// The amount for every day, or the full one.
fn amount<T>(scaled: T, full: T) -> T {
    if std::env::var_os("STRAIT_INTEGRITY").is_some_and(|value| value == "full") {
        full
    } else {
        scaled
    }
}

/// An endpoint that gets its connections behind the hello.
fn endpoint(each: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), move |mut stream| {
        let mut header = [0; 5];
        stream.read_exact(&mut header)?;
        let length = u16::from_be_bytes([header[3], header[4]]);
        stream.read_exact(&mut vec![0; length.into()])?;
        each(stream)
    })
}

/// A gateway with a route for each of these names.
fn gateway(routes: &[(&str, &App)]) -> Gateway {
    let route = |(name, app): &(&str, &App)| {
        format!("  - {{ name: {name}, endpoints: [\"{}\"] }}\n", app.address)
    };
    let routes: Vec<_> = routes.iter().map(route).collect();
    Gateway::start(&format!("log: {{ connections: all }}\nroutes:\n{}", routes.concat()))
}

/// How clients come to an endpoint: by one gateway, or by two with a link between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A route to the endpoint.
    Route,
    /// Its name, which west's ingress listener leads over a link.
    Name,
    /// Its egress address in west, and then a link.
    Address,
}

const WAYS: [By; 3] = [By::Route, By::Name, By::Address];

/// A way to an endpoint, and the gateway that clients come to.
struct Path {
    near: Gateway,
    at: SocketAddr,
    _far: Option<(TempDir, Gateway)>,
}

impl Path {
    fn new(by: By, app: &App) -> Self {
        if by == By::Route {
            let near = gateway(&[(NAME, app)]);
            return Self { at: near.ingress(), near, _far: None };
        }
        let Joined { folder, west, east, egress, .. } =
            Joined::start(app.address, &More::default());
        let at = if by == By::Name { west.ingress() } else { egress };
        Self { near: west, at, _far: Some((folder, east)) }
    }

    fn open(&self) -> io::Result<TcpStream> {
        open(self.at, NAME)
    }
}

/// A connection whose hello has been sent.
fn open(gateway: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&hello(name.as_bytes()))?;
    Ok(stream)
}

/// A digest by what is compiled in already, and not slow without optimisation either.
struct Digest(Box<dyn Context>);

impl Digest {
    fn new() -> Self {
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { unreachable!() };
        Self(suite.common.hash_provider.start())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

/// Octets that only the process itself has, and no file behind them.
fn memory(gateway: &Gateway) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.pid().as_raw_nonzero()))
        .unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid().as_raw_nonzero())).unwrap().count()
}
