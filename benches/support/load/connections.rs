//! Connections one after the other, some at a time: open, hello, greeting, close.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::backend::{GREETING, tried};
use super::hello;
use super::poller::{EventFlags, Poller};
use super::{Outcome, PATIENCE, Way};

/// When it is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    Done(u64),
}

/// One that is not greeted yet.
struct Attempt {
    stream: TcpStream,
    number: usize,
    hello: Vec<u8>,
    sent: usize,
    greeting: [u8; GREETING],
    came: usize,
    began: Instant,
}

/// Opens connections, so many at a time, until it is enough. Those in progress are finished, but not counted.
pub(crate) fn run(way: Way<'_>, at_once: usize, until: Until) -> io::Result<Outcome> {
    let mut poller = Poller::new()?;
    let began = Instant::now();
    let mut opened = 0;
    let mut latencies = Vec::new();
    let mut attempts = Vec::new();
    for key in 0..at_once {
        attempts.push(Attempt::begin(way, opened, &poller, key)?);
        opened += 1;
    }
    loop {
        for key in poller.wait(Some(PATIENCE))? {
            if attempts[key].turn(way, &poller, key)? {
                latencies.push(nanos(attempts[key].began.elapsed()));
                attempts[key] = Attempt::begin(way, opened, &poller, key)?;
                opened += 1;
            }
        }
        if attempts.iter().any(|attempt| attempt.began.elapsed() > PATIENCE) {
            return Err(io::Error::other("no greeting came"));
        }
        let enough = match until {
            Until::Time(time) => began.elapsed() >= time,
            Until::Done(count) => latencies.len() as u64 >= count,
        };
        if enough {
            let outcome = Outcome::new(latencies.len() as u64, began.elapsed(), latencies);
            return finish(way, attempts, &mut poller).map(|()| outcome);
        }
    }
}

/// Waits for what is in progress, so that the next workload begins with nothing behind it.
fn finish(way: Way<'_>, attempts: Vec<Attempt>, poller: &mut Poller) -> io::Result<()> {
    let mut open: Vec<_> = attempts.into_iter().map(Some).collect();
    let began = Instant::now();
    while open.iter().any(Option::is_some) && began.elapsed() < PATIENCE {
        for key in poller.wait(Some(PATIENCE))? {
            if let Some(attempt) = &mut open[key]
                && attempt.turn(way, poller, key)?
            {
                open[key] = None;
            }
        }
    }
    Ok(())
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

impl Attempt {
    fn begin(way: Way<'_>, number: usize, poller: &Poller, key: usize) -> io::Result<Self> {
        let began = Instant::now();
        let stream = dial(way, number)?;
        poller.add(&stream, key, EventFlags::OUT)?;
        let hello = hello::next(number);
        Ok(Self { stream, number, hello, sent: 0, greeting: [0; GREETING], came: 0, began })
    }

    /// Does what can be done; true: the greeting is there and right.
    fn turn(&mut self, way: Way<'_>, poller: &Poller, key: usize) -> io::Result<bool> {
        if self.sent < self.hello.len() {
            let sent = tried(self.stream.write(&self.hello[self.sent..]))?;
            self.sent += sent.unwrap_or_default();
            if self.sent == self.hello.len() {
                poller.change(&self.stream, key, EventFlags::IN)?;
            }
            return Ok(false);
        }
        match tried(self.stream.read(&mut self.greeting[self.came..]))? {
            None => {}
            Some(0) => return Err(io::Error::other("closed instead of a greeting")),
            Some(read) => self.came += read,
        }
        if self.came < GREETING {
            return Ok(false);
        }
        way.check(self.number, &self.hello, &self.stream, &self.greeting)?;
        Ok(true)
    }
}

/// Begins to connect.
pub(super) fn dial(way: Way<'_>, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&way.address(number).into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
