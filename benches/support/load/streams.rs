//! Bulk in one direction, on one or more connections.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::backend::{Order, part, tried, verdict};
use super::poller::{EventFlags, Poller};
use super::{Outcome, PATIENCE, Way, pattern};

/// As seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

struct Flow {
    stream: TcpStream,
    at: u64,
    of: u64,
    said: Vec<u8>,
}

/// Moves so many octets on each of so many connections, opened for it; `done` counts octets.
pub(crate) fn run(
    way: Way<'_>,
    count: usize,
    direction: Direction,
    octets: u64,
) -> io::Result<Outcome> {
    let connections = way.open_many(count)?;
    let mut poller = Poller::new()?;
    let (order, flags) = match direction {
        Direction::Up => (Order::Take(octets), EventFlags::OUT),
        Direction::Down => (Order::Send(octets), EventFlags::IN),
    };
    let began = Instant::now();
    let mut streams = Vec::new();
    for (key, mut stream) in connections.into_iter().enumerate() {
        stream.write_all(&order.write())?;
        stream.set_nonblocking(true)?;
        poller.add(&stream, key, flags)?;
        streams.push(Some(Flow { stream, at: 0, of: octets, said: Vec::new() }));
    }
    let mut buffer = vec![0; pattern::LONGEST];
    while streams.iter().any(Option::is_some) {
        let mut some = false;
        for key in poller.wait(Some(PATIENCE))? {
            some = true;
            let Some(stream) = &mut streams[key] else { continue };
            let over = match direction {
                Direction::Up => stream.send(&poller, key)?,
                Direction::Down => stream.receive(&mut buffer)?,
            };
            if over {
                streams[key] = None;
            }
        }
        if !some {
            return Err(io::Error::other("nothing moves any more"));
        }
    }
    Ok(Outcome::new(octets * count as u64, began.elapsed(), Vec::new()))
}

impl Flow {
    /// True: all of it has been sent and found right.
    fn send(&mut self, poller: &Poller, key: usize) -> io::Result<bool> {
        if self.at < self.of {
            let bytes = pattern::at(self.at, part(self.of - self.at));
            self.at += tried(self.stream.write(bytes))?.unwrap_or_default() as u64;
            if self.at == self.of {
                poller.change(&self.stream, key, EventFlags::IN)?;
            }
            return Ok(false);
        }
        let expected = verdict(self.of);
        let mut bytes = vec![0; expected.len() - self.said.len()];
        match tried(self.stream.read(&mut bytes))? {
            None => return Ok(false),
            Some(0) => return Err(io::Error::other("closed before all had come")),
            Some(read) => self.said.extend_from_slice(&bytes[..read]),
        }
        if self.said.len() < expected.len() {
            return Ok(false);
        }
        if self.said == expected {
            Ok(true)
        } else {
            Err(io::Error::other("other bytes arrived than were sent"))
        }
    }

    /// True: all of it has come and was right.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(read) = tried(self.stream.read(buffer))? else { return Ok(false) };
        if read == 0 {
            return Err(io::Error::other("closed before all had come"));
        }
        if pattern::at(self.at, read) != &buffer[..read] {
            return Err(io::Error::other("other bytes came than were sent"));
        }
        self.at += read as u64;
        if self.at > self.of {
            return Err(io::Error::other("more came than was sent"));
        }
        Ok(self.at == self.of)
    }
}
