//! Two gateways at work for as long as asked, with a table a second each: nothing is dropped, and nothing grows.
//!
//! Connections come to west in three ways: by a route to an endpoint beside it, by a name and by an egress address that both lead
//! over a link to east's. Its name server is asked all the time.
//!
//! `cargo bench --bench soak -- 1800`: half an hour of the optimized program. Memory may grow by 1 MiB from a sixth of the time
//! to its end; shorter than [`SETTLED`], a run says what it measured and does not judge that.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/hello.rs"]
mod hello;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::gateway::Gateway;
use common::joined::{APP, Joined, More, NAME};
use common::{PATIENCE, noise, wait_until};
use hello::hello;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

const IDLE: usize = 500;
const BUSY: usize = 50;
/// Between two exchanges of a busy connection: with 50 of them about a thousand exchanges a second.
const PAUSE: Duration = Duration::from_millis(50);
const SWAP: Duration = Duration::from_secs(1);
/// Exchanges are of these sizes in turn, so that bytes go through the buffer as well as through pipes.
const SIZES: [usize; 5] = [100, 1500, 100, 16 << 10, 300 << 10];
/// More is written while the answer is read: the sockets in between do not take it all.
const AT_ONCE: usize = 32 << 10;
/// Without an argument, as when all benches are tried once.
const SHORTEST: Duration = Duration::from_secs(5);
/// From here on memory has settled by a sixth of the time: the allocator's arenas are filled, every buffer has been used.
const SETTLED: Duration = Duration::from_mins(1);
const MOST_GROWTH: u64 = 1 << 20;
/// Descriptors that may stay open in the end.
const SPARE_DESCRIPTORS: usize = 2;
/// Names of routes that come and go.
const MOVING: usize = 10;
const STABLE: &str = "stable.example";

/// What the busy connections have done.
#[derive(Default)]
struct Work {
    done: AtomicBool,
    exchanges: AtomicU64,
    bytes: AtomicU64,
    answers: AtomicU64,
}

/// How a connection comes to the endpoint: where, and by which name.
#[derive(Debug, Clone, Copy)]
struct Way(SocketAddr, &'static str);

impl Way {
    fn open(self) -> io::Result<TcpStream> {
        open(self.0, self.1)
    }
}

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident: u64,
    descriptors: usize,
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let duration = asked.map_or(SHORTEST, Duration::from_secs);
    let endpoint = echo();
    let pair = Joined::start(endpoint, &More { west: &routes(endpoint, 0), ..More::default() });
    let gateways = [("west", &pair.west), ("east", &pair.east)];
    let ingress = pair.west.ingress();
    let ways = [Way(ingress, STABLE), Way(ingress, NAME), Way(pair.egress, NAME)];
    // The first connections have what is made once made.
    for way in ways {
        drop(way.open().unwrap());
    }
    wait_until("the first connections end", || {
        gateways.iter().all(|(_, it)| open_connections(it) == 0)
    });
    let start = gateways.map(|(_, gateway)| held(gateway));

    let each = |number: usize| ways[number % ways.len()];
    let mut idle: Vec<_> = (0..IDLE).map(|number| each(number).open().unwrap()).collect();
    let work = Arc::new(Work::default());
    let mut busy: Vec<_> = (0..BUSY)
        .map(|number| {
            let (work, way) = (Arc::clone(&work), each(number));
            thread::spawn(move || keep_busy(way, number, &work))
        })
        .collect();
    let (asking, name_server) = (Arc::clone(&work), pair.name_server());
    busy.push(thread::spawn(move || keep_asking(name_server, &asking)));
    let samples = swap_tables(&pair, endpoint, duration);
    work.done.store(true, Ordering::Release);
    let failures: Vec<_> = busy.into_iter().filter_map(|busy| busy.join().unwrap().err()).collect();
    let dropped = idle.iter_mut().filter_map(|stream| exchange(stream, b"still there?").err());
    let dropped: Vec<_> = dropped.collect();
    drop(idle);
    say(&format!(
        "{} s, {} swaps, {} exchanges, {} MB each way, {} answers of DNS; dropped: {} of {IDLE} idle, {} of {BUSY} busy",
        duration.as_secs(),
        samples.len(),
        work.exchanges.load(Ordering::Relaxed),
        work.bytes.load(Ordering::Relaxed) >> 20,
        work.answers.load(Ordering::Relaxed),
        dropped.len(),
        failures.len(),
    ));
    assert!(failures.is_empty() && dropped.is_empty(), "{failures:?} {dropped:?}");
    for (number, (name, gateway)) in gateways.into_iter().enumerate() {
        let samples: Vec<_> = samples.iter().map(|both| both[number]).collect();
        judge(name, gateway, start[number], &samples, duration);
    }
}

/// What a gateway holds in the end, and what has become of it on the way.
fn judge(name: &str, gateway: &Gateway, start: Held, samples: &[Held], duration: Duration) {
    wait_until("all connections end", || open_connections(gateway) == 0);
    // Pipes that nobody needs any more are closed after a second or two.
    wait_until("the descriptors are closed", || {
        held(gateway).descriptors.abs_diff(start.descriptors) <= SPARE_DESCRIPTORS
    });
    let end = held(gateway);
    let settled = samples[samples.len() / 6];
    let last = samples[samples.len() - 1];
    let growth = last.resident.saturating_sub(settled.resident);
    say(&format!(
        "{name}: resident {} KiB at a sixth, {} KiB at the end (+{} KiB), {} KiB at most; descriptors {} before, {} at work, \
         {} after",
        settled.resident >> 10,
        last.resident >> 10,
        growth >> 10,
        samples.iter().map(|held| held.resident).max().unwrap_or_default() >> 10,
        start.descriptors,
        last.descriptors,
        end.descriptors,
    ));
    assert!(duration < SETTLED || growth <= MOST_GROWTH, "{name}: {settled:?} {last:?}");
    let internal = gateway.metric("strait_connections_total", &["ending=\"internal\""]);
    assert_eq!(internal, 0, "{name}");
}

/// Puts a table a second in force in both gateways, each of which has a route or an export of its own, and takes a sample after
/// each.
fn swap_tables(pair: &Joined, endpoint: SocketAddr, duration: Duration) -> Vec<[Held; 2]> {
    let (ingress, started, mut samples) = (pair.west.ingress(), Instant::now(), Vec::new());
    while started.elapsed() < duration {
        let swap = samples.len() + 1;
        let tick = Instant::now();
        pair.rewrite_west(&More { west: &routes(endpoint, swap), ..More::default() });
        pair.rewrite_east(&More { east: &routes(endpoint, swap), ..More::default() });
        for ingress in [ingress, pair.east.ingress()] {
            wait_until("the new route", || open(ingress, &moving(swap)).is_ok());
            assert!(open(ingress, &moving(swap - 1)).is_err(), "a removed route serves");
        }
        samples.push([held(&pair.west), held(&pair.east)]);
        thread::sleep(SWAP.saturating_sub(tick.elapsed()));
    }
    samples
}

fn routes(endpoint: SocketAddr, swap: usize) -> String {
    let route = |name: &str| format!("  - {{ name: {name}, endpoints: [\"{endpoint}\"] }}\n");
    format!("routes:\n{}{}", route(STABLE), route(&moving(swap)))
}

/// One of a few names: each new one would have metrics of its own, up to `metrics.routes` of them.
fn moving(swap: usize) -> String {
    format!("moving{}.example", swap % MOVING)
}

fn keep_busy(way: Way, number: usize, work: &Work) -> io::Result<()> {
    let mut stream = way.open()?;
    let noise = noise(number as u64, SIZES.into_iter().max().unwrap_or_default());
    for size in SIZES.into_iter().cycle() {
        if work.done.load(Ordering::Acquire) {
            break;
        }
        exchange(&mut stream, &noise[..size])?;
        work.exchanges.fetch_add(1, Ordering::Relaxed);
        work.bytes.fetch_add(size as u64, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks for the app's address over UDP, and now and then over TCP.
fn keep_asking(server: SocketAddr, work: &Work) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{NAME}.")).map_err(io::Error::other)?;
    message.add_query(Query::query(name, RecordType::A));
    let request = message.to_vec().map_err(io::Error::other)?;
    while !work.done.load(Ordering::Acquire) {
        let mut answer = [0; 512];
        let asked = work.answers.fetch_add(1, Ordering::Relaxed);
        let answer = if asked.is_multiple_of(10) {
            ask_tcp(server, &request)?
        } else {
            socket.send_to(&request, server)?;
            let length = socket.recv(&mut answer)?;
            answer[..length].to_vec()
        };
        let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
        if answer.answers.len() != 1 {
            return Err(io::Error::other(format!("{APP} has no address: {answer}")));
        }
        thread::sleep(PAUSE / 5);
    }
    Ok(())
}

fn ask_tcp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], request].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Opens a connection for a name; an error unless the endpoint answers.
fn open(ingress: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(ingress)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(&mut stream, &hello(name.as_bytes()))?;
    Ok(stream)
}

/// Sends something and wants it back.
fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut came = vec![0; bytes.len()];
    if bytes.len() > AT_ONCE {
        let mut writing = stream.try_clone()?;
        thread::scope(|scope| {
            let written = scope.spawn(move || writing.write_all(bytes));
            stream.read_exact(&mut came)?;
            written.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
        })?;
    } else {
        stream.write_all(bytes)?;
        stream.read_exact(&mut came)?;
    }
    if came == bytes { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

/// An endpoint that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn open_connections(gateway: &Gateway) -> u64 {
    gateway.status()["connections"]["open"].as_u64().unwrap()
}

fn held(gateway: &Gateway) -> Held {
    let pid = gateway.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Held { resident: kib.unwrap() << 10, descriptors }
}

fn say(line: &str) {
    // Nobody need be there to read it.
    let _ = writeln!(io::stdout(), "{line}");
}
