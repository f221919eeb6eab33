//! A gateway at work for as long as asked, with a table a second: nothing is dropped, and nothing grows.
//!
//! `cargo bench --bench soak -- 1800`: half an hour of the optimized program. Memory may grow by 1 MiB from a sixth of the time
//! to its end; shorter than [`SETTLED`], a run says what it measured and does not judge that.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/hello.rs"]
mod hello;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::gateway::Gateway;
use common::{PATIENCE, noise, wait_until};
use hello::hello;

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
    let gateway = Gateway::start(&routes(endpoint, 0));
    let (ingress, pid) = (gateway.ingress(), gateway.status()["pid"].as_u64().unwrap());
    // The first connection has what is made once made.
    drop(open(ingress, STABLE).unwrap());
    wait_until("the first connection ends", || open_connections(&gateway) == 0);
    let start = held(pid);

    let mut idle: Vec<_> = (0..IDLE).map(|_| open(ingress, STABLE).unwrap()).collect();
    let work = Arc::new(Work::default());
    let busy: Vec<_> = (0..BUSY)
        .map(|number| {
            let work = Arc::clone(&work);
            thread::spawn(move || keep_busy(ingress, number, &work))
        })
        .collect();
    let samples = swap_tables(&gateway, endpoint, pid, duration);
    work.done.store(true, Ordering::Release);
    let failures: Vec<_> = busy.into_iter().filter_map(|busy| busy.join().unwrap().err()).collect();
    let dropped = idle.iter_mut().filter_map(|stream| exchange(stream, b"still there?").err());
    let dropped: Vec<_> = dropped.collect();
    drop(idle);
    wait_until("all connections end", || open_connections(&gateway) == 0);
    // Pipes that nobody needs any more are closed after a second or two.
    wait_until("the descriptors are closed", || {
        held(pid).descriptors.abs_diff(start.descriptors) <= SPARE_DESCRIPTORS
    });
    let end = held(pid);

    let settled = samples[samples.len() / 6];
    let last = samples[samples.len() - 1];
    let growth = last.resident.saturating_sub(settled.resident);
    say(&format!(
        "{} s, {} swaps, {} exchanges, {} MB each way; dropped: {} of {IDLE} idle, {} of {BUSY} busy; resident {} KiB at a \
         sixth, {} KiB at the end (+{} KiB), {} KiB at most; descriptors {} before, {} at work, {} after",
        duration.as_secs(),
        gateway.metric("strait_table_generation", &[]) - 1,
        work.exchanges.load(Ordering::Relaxed),
        work.bytes.load(Ordering::Relaxed) >> 20,
        dropped.len(),
        failures.len(),
        settled.resident >> 10,
        last.resident >> 10,
        growth >> 10,
        samples.iter().map(|held| held.resident).max().unwrap_or_default() >> 10,
        start.descriptors,
        last.descriptors,
        end.descriptors,
    ));
    assert!(failures.is_empty() && dropped.is_empty(), "{failures:?} {dropped:?}");
    assert!(duration < SETTLED || growth <= MOST_GROWTH, "{settled:?} {last:?}");
    let internal = gateway.metric("strait_connections_total", &["ending=\"internal\""]);
    assert_eq!(internal, 0);
}

/// Puts a table a second in force, each of which has a route of its own, and takes a sample after each.
fn swap_tables(gateway: &Gateway, endpoint: SocketAddr, pid: u64, duration: Duration) -> Vec<Held> {
    let (ingress, started, mut samples) = (gateway.ingress(), Instant::now(), Vec::new());
    while started.elapsed() < duration {
        let swap = samples.len() + 1;
        let tick = Instant::now();
        gateway.rewrite(&routes(endpoint, swap));
        wait_until("the new route", || open(ingress, &moving(swap)).is_ok());
        assert!(open(ingress, &moving(swap - 1)).is_err(), "a removed route serves");
        samples.push(held(pid));
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

fn keep_busy(ingress: SocketAddr, number: usize, work: &Work) -> io::Result<()> {
    let mut stream = open(ingress, STABLE)?;
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

fn held(pid: u64) -> Held {
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
