//! Load for a gateway, and the backends behind it. Behind a real hello all bytes are opaque to both, so that what is measured is
//! the gateway; all of them are checked.
//!
//! Every connection begins in the same way: the client sends a hello of 1.5 KB as a Go client made it, with a name and a random
//! of this connection; the backend answers with a greeting, which says what it got, which backend it is and from where the
//! connection came. So each one proves that it was routed by its name, and some of them that a gateway stood in between: see
//! [`Way::prove`]. What is to happen next the client says in an order.
#![allow(dead_code, reason = "shared by several benches, each of which uses a part")]

pub(crate) mod backend;
pub(crate) mod connections;
pub(crate) mod hello;
pub(crate) mod pattern;
mod poller;
pub(crate) mod process;
pub(crate) mod round_trips;
pub(crate) mod slow;
pub(crate) mod streams;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use backend::{Backends, GREETING, Greeting};

/// Only a failure waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the client reaches the backends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) backends: &'a Backends,
    /// `None`: directly.
    pub(crate) gateway: Option<SocketAddr>,
}

/// What a workload came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) done: u64,
    pub(crate) took: Duration,
    /// Of each, in nanoseconds; sorted.
    latencies: Vec<u64>,
}

impl Outcome {
    fn new(done: u64, took: Duration, mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        Self { done, took, latencies }
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    /// In microseconds; 0.5 is the median.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into what is there"
    )]
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    }
}

impl Way<'_> {
    /// Where a connection with this number has to be opened.
    fn address(&self, number: usize) -> SocketAddr {
        self.gateway.unwrap_or_else(|| self.backends.address(number))
    }

    /// Whether this greeting answers that hello on a connection with this number, and came by this way.
    fn check(
        &self,
        number: usize,
        hello: &[u8],
        stream: &TcpStream,
        greeting: &[u8],
    ) -> io::Result<()> {
        let greeting = Greeting::read(greeting);
        let wrong = if greeting.sum != backend::sum(hello) {
            "the backend got another hello than was sent"
        } else if greeting.backend != backend::of(number) {
            "this is not the backend that the name belongs to"
        } else if self.gateway.is_none() && greeting.from != stream.local_addr()? {
            "something stands between client and backend"
        } else {
            return Ok(());
        };
        Err(io::Error::other(wrong))
    }

    /// Fails unless a gateway stands between: without one the backend sees the client's own address. A gateway may well dial
    /// from the same port of the same address, but not each time.
    pub(crate) fn prove(&self) -> io::Result<()> {
        let past =
            |number| self.dial(number).map(|(stream, from)| stream.local_addr().ok() == Some(from));
        let past = (0..backend::COUNT).map(past).collect::<io::Result<Vec<_>>>()?;
        if past.iter().filter(|past| **past).count() < backend::COUNT / 2 {
            return Ok(());
        }
        Err(io::Error::other("connections go past the gateway"))
    }

    /// Opens a connection and waits for its greeting.
    pub(crate) fn open(&self, number: usize) -> io::Result<TcpStream> {
        self.dial(number).map(|(stream, _)| stream)
    }

    /// The same, and from where the backend saw it come.
    fn dial(&self, number: usize) -> io::Result<(TcpStream, SocketAddr)> {
        let mut stream = TcpStream::connect(self.address(number))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let hello = hello::next(number);
        stream.write_all(&hello)?;
        let mut greeting = [0; GREETING];
        stream.read_exact(&mut greeting)?;
        self.check(number, &hello, &stream, &greeting)?;
        Ok((stream, Greeting::read(&greeting).from))
    }

    pub(crate) fn open_many(&self, count: usize) -> io::Result<Vec<TcpStream>> {
        (0..count).map(|number| self.open(number)).collect()
    }
}

/// Sends something over a connection that has done nothing since its greeting, and wants it back.
pub(crate) fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let message = pattern::at(0, 100);
    stream.write_all(&backend::Order::Echo.write())?;
    stream.write_all(message)?;
    let mut came = [0; 100];
    stream.read_exact(&mut came)?;
    if came == message { Ok(()) } else { Err(io::Error::other("another message came back")) }
}

/// Strait's configuration for these backends, without its listeners.
pub(crate) fn strait_config(backends: &Backends) -> String {
    let routes: Vec<_> = (0..backend::COUNT)
        .map(|number| {
            let (name, address) = (hello::name(number), backends.address(number));
            format!("  - {{ name: {name}, endpoints: [\"{address}\"] }}\n")
        })
        .collect();
    // `slow` needs more time for its hellos than the default, and no workload is to be slowed by a log.
    format!(
        "log: {{ connections: refusals }}\nlimits: {{ helloTimeout: 1m }}\nroutes:\n{}",
        routes.concat()
    )
}

fn backend_address(number: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(backend::of(number) + 1).unwrap();
    (Ipv4Addr::new(127, 0, 2, last), port).into()
}
