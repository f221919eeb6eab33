//! What a connection may cost while it stands, and after it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::common::gateway::Gateway;
use super::common::wait_until;
use super::{By, Path, amount, descriptors, endpoint, gateway, hello, memory, noise, open};

/// Far more than the system's socket buffers take on both sides together (`tcp_wmem` and `tcp_rmem` end at 4 and 6 MiB).
const TOO_MUCH: usize = 48 << 20;
/// What each connection may hold in the gateway, in octets of user memory.
const HELD: u64 = 256 * 1024;
const DEAF: u64 = 8;

fn pour(mut stream: &TcpStream) -> io::Result<()> {
    let bytes = noise(1, 1 << 20);
    (0..TOO_MUCH / bytes.len()).try_for_each(|_| stream.write_all(&bytes))?;
    stream.shutdown(Shutdown::Write)
}

/// Reads all that was poured; whether it was that.
fn drain(mut stream: &TcpStream) -> io::Result<bool> {
    let bytes = noise(1, 1 << 20);
    let mut came = vec![0; bytes.len()];
    let mut right = true;
    for _ in 0..TOO_MUCH / bytes.len() {
        stream.read_exact(&mut came)?;
        right &= came == bytes;
    }
    Ok(right && stream.read(&mut came)? == 0)
}

/// Waits until nothing moves any more: the metric tells, as nothing else does.
fn come_to_rest(gateway: &Gateway) -> u64 {
    let mut before = 0;
    wait_until("nothing moves any more", || {
        thread::sleep(Duration::from_millis(300));
        let now = gateway.metric("strait_bytes_total", &[]);
        std::mem::replace(&mut before, now) == now && now > DEAF << 16
    });
    before
}

fn assert_bounded(gateway: &Gateway, before: u64) {
    let moved = come_to_rest(gateway);
    let held = memory(gateway).saturating_sub(before) / DEAF;
    println!("{} KiB of user memory each, with {} MiB on their way", held >> 10, moved >> 20);
    assert!(moved < DEAF * TOO_MUCH as u64, "{moved} octets: who pours was never slowed down");
    assert!(held <= HELD, "{held} octets of user memory for each connection");
}

#[test]
fn a_client_that_does_not_read_holds_little() {
    let pouring = endpoint(|stream| pour(&stream));
    for by in [By::Route, By::Address] {
        let path = Path::new(by, &pouring);
        let before = memory(&path.near);
        let clients: Vec<_> = (0..DEAF).map(|_| path.open().unwrap()).collect();
        assert_bounded(&path.near, before);
        assert!(clients.iter().all(|client| drain(client).unwrap()), "all of it comes at last");
    }
}

#[test]
fn an_endpoint_that_does_not_read_holds_little() {
    let hears = Arc::new(AtomicBool::new(false));
    let may_hear = Arc::clone(&hears);
    let deaf = endpoint(move |mut stream| {
        wait_until("it may hear", || may_hear.load(Ordering::Acquire));
        stream.write_all(if drain(&stream)? { b"+" } else { b"-" })
    });
    let gateway = gateway(&[("deaf.example", &deaf)]);
    let before = memory(&gateway);
    let ingress = gateway.ingress();
    let clients: Vec<_> = (0..DEAF)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = open(ingress, "deaf.example")?;
                pour(&stream)?;
                let mut verdict = [0];
                stream.read_exact(&mut verdict)?;
                io::Result::Ok(verdict)
            })
        })
        .collect();
    assert_bounded(&gateway, before);
    hears.store(true, Ordering::Release);
    for client in clients {
        assert_eq!(client.join().unwrap().unwrap(), *b"+", "all of it comes at last");
    }
}

/// A short connection; of four one is served and closed, one served and reset, one refused, one leaves within its hello.
fn short(gateway: SocketAddr, number: usize) -> io::Result<()> {
    if number % 4 == 3 {
        let hello = hello(b"echo.example");
        return TcpStream::connect(gateway)?.write_all(&hello[..hello.len() / 2]);
    }
    let name = if number % 4 == 2 { "nobody.example" } else { "echo.example" };
    let mut stream = open(gateway, name)?;
    let mut came = [0];
    stream.read_exact(&mut came)?;
    // The alert's record (RFC 8446 §5.1), or the endpoint's word.
    let expected = if number % 4 == 2 { [21] } else { *b"!" };
    assert_eq!(came, expected, "connection {number}");
    if number % 4 == 1 {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// So many of them, on a few threads.
fn many(gateway: &Gateway, count: usize) {
    const THREADS: usize = 8;
    let ingress = gateway.ingress();
    let run = |first| (first..count).step_by(THREADS).try_for_each(|number| short(ingress, number));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || run(first))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
}

/// In octets: what an allocator may keep of its own accord, and for 100,000 connections less than 11 octets each.
const GROWN: u64 = 1 << 20;

#[test]
fn short_connections_leave_nothing_behind() {
    let count = amount(3000, 100_000);
    let echo = endpoint(|mut stream| {
        stream.write_all(b"!")?;
        // Until the client leaves, in whichever way.
        stream.read(&mut [0]).map(drop)
    });
    let route = format!("routes: [{{ name: echo.example, endpoints: [\"{}\"] }}]\n", echo.address);
    let gateway = Gateway::start(&format!("log: {{ connections: none }}\n{route}"));
    let idle = descriptors(&gateway);
    let closed = |gateway: &Gateway| {
        wait_until("no descriptor is left", || descriptors(gateway) <= idle);
    };
    // What the gateway makes once and keeps for the next connection is no loss.
    many(&gateway, count.min(10_000));
    closed(&gateway);
    let (before, began) = (memory(&gateway), Instant::now());
    many(&gateway, count);
    let took = began.elapsed();
    closed(&gateway);
    let grown = memory(&gateway).saturating_sub(before);
    println!("{count} connections in {took:?}: {} KiB more, {idle} descriptors", grown >> 10);
    assert!(grown <= GROWN, "{grown} octets more after {count} connections");
}
