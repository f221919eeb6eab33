//! Messages there and back, on some of many open connections.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::backend::{Order, tried};
use super::connections::{Until, nanos};
use super::poller::{EventFlags, Poller};
use super::{Outcome, PATIENCE, Way, pattern};

/// A connection on which a message is always on its way.
struct Busy {
    stream: TcpStream,
    /// Where in the pattern its message stands.
    at: u64,
    came: Vec<u8>,
    got: usize,
    sent: Instant,
}

/// So many connections are open; on the first `busy` of them a message goes back and forth.
pub(crate) struct RoundTrips {
    poller: Poller,
    busy: Vec<Busy>,
    _idle: Vec<TcpStream>,
}

impl RoundTrips {
    pub(crate) fn open(way: Way<'_>, open: usize, busy: usize, size: usize) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut connections = way.open_many(open)?;
        let idle = connections.split_off(busy);
        let mut all = Vec::new();
        for (key, mut stream) in connections.into_iter().enumerate() {
            stream.write_all(&Order::Echo.write())?;
            stream.set_nonblocking(true)?;
            poller.add(&stream, key, EventFlags::IN)?;
            let at = key as u64 * 7;
            all.push(Busy { stream, at, came: vec![0; size], got: 0, sent: Instant::now() });
        }
        Ok(Self { poller, busy: all, _idle: idle })
    }

    /// Sends messages until it is enough, and waits for the last ones.
    pub(crate) fn run(&mut self, until: Until) -> io::Result<Outcome> {
        let began = Instant::now();
        let mut latencies = Vec::new();
        for busy in &mut self.busy {
            busy.send()?;
        }
        let mut on_the_way = self.busy.len();
        let mut took = Duration::ZERO;
        while on_the_way > 0 {
            let mut some = false;
            for key in self.poller.wait(Some(PATIENCE))? {
                some = true;
                let busy = &mut self.busy[key];
                if !busy.receive()? {
                    continue;
                }
                latencies.push(nanos(busy.sent.elapsed()));
                took = began.elapsed();
                let enough = match until {
                    Until::Time(time) => took >= time,
                    Until::Done(count) => (latencies.len() + on_the_way) as u64 > count,
                };
                if enough {
                    on_the_way -= 1;
                } else {
                    busy.send()?;
                }
            }
            if !some {
                return Err(io::Error::other("a message did not come back"));
            }
        }
        Ok(Outcome::new(latencies.len() as u64, took, latencies))
    }
}

impl Busy {
    fn message(&self) -> &'static [u8] {
        pattern::at(self.at, self.came.len())
    }

    fn send(&mut self) -> io::Result<()> {
        // Another message each time, or one that comes late passes for the next.
        self.at += 131;
        self.got = 0;
        self.sent = Instant::now();
        // Fits: the one before has come back.
        self.stream.write_all(self.message())
    }

    /// Whether all of the message is back.
    fn receive(&mut self) -> io::Result<bool> {
        match tried(self.stream.read(&mut self.came[self.got..]))? {
            None => return Ok(false),
            Some(0) => return Err(io::Error::other("closed with a message on its way")),
            Some(read) => self.got += read,
        }
        if self.got < self.came.len() {
            return Ok(false);
        }
        if self.came == self.message() {
            Ok(true)
        } else {
            Err(io::Error::other("another message came back"))
        }
    }
}
