//! Octets of memory that a gateway has for each connection on which nothing happens, and what is left of them when all are closed.
//!
//! No time is measured, so that this is a program of its own and none of criterion's.
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load/mod.rs"]
mod load;

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use gateway::Bench;
use load::process::Processes;

/// Each takes two descriptors here and two in the gateway.
const MEASURED: usize = 4000;
const TRIED: usize = 200;

fn main() -> io::Result<()> {
    let count = if gateway::measures() { MEASURED } else { TRIED };
    let bench = Bench::start();
    let gateway = Processes::of(bench.gateway.pid())?;
    // What a gateway makes once, with its first connections, belongs to none of them.
    drop(bench.through().open_many(64)?);
    settle(&bench, 0);
    let before = gateway.memory()?;
    let connections = bench.through().open_many(count)?;
    settle(&bench, count);
    let during = gateway.memory()?;
    check(connections)?;
    settle(&bench, 0);
    let after = gateway.memory()?;
    let each = during.saturating_sub(before) / count as u64;
    let left = after.saturating_sub(before) / count as u64;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "idle_memory: {count} connections: {each} B each, {left} B each once they are closed"
    )?;
    writeln!(
        out,
        "             of the process: {} KiB before, {} KiB during, {} KiB after",
        before >> 10,
        during >> 10,
        after >> 10
    )
}

/// Waits until the gateway has so many connections, and a moment more for what it does behind them.
fn settle(bench: &Bench, count: usize) {
    let open = || bench.gateway.metric("strait_connections_open", &[]);
    common::wait_until("the connections are open, or closed", || open() == count as u64);
    thread::sleep(Duration::from_secs(1));
}

/// An idle connection still carries.
fn check(connections: Vec<TcpStream>) -> io::Result<()> {
    for mut stream in connections {
        load::echo(&mut stream)?;
    }
    Ok(())
}
