//! The backends: 64 addresses, one thread.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::pattern;
use super::poller::{EventFlags, Poller};

/// So many, each with a name of its own. Also so many times the ports from which a gateway can connect to them.
pub(crate) const COUNT: usize = 64;
/// Octets of a greeting.
pub(super) const GREETING: usize = 16;
/// Octets of an order, and of the verdict on [`Order::Take`].
const ORDER: usize = 9;

/// The number of the backend that a connection with this number goes to.
pub(super) fn of(number: usize) -> usize {
    number % COUNT
}

/// What stands for a hello in its greeting.
pub(super) fn sum(hello: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(hello);
    hasher.finish()
}

/// What a backend says first.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) sum: u64,
    pub(super) backend: usize,
    /// Where the connection came from.
    pub(super) from: SocketAddr,
}

impl Greeting {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let octets: [u8; 4] = bytes[12..16].try_into().unwrap();
        let port = u16::from_be_bytes(bytes[10..12].try_into().unwrap());
        Self {
            sum: u64::from_be_bytes(bytes[..8].try_into().unwrap()),
            backend: u16::from_be_bytes(bytes[8..10].try_into().unwrap()).into(),
            from: (Ipv4Addr::from(octets), port).into(),
        }
    }

    fn write(&self) -> [u8; GREETING] {
        let SocketAddr::V4(from) = self.from else { unreachable!("backends listen on IPv4") };
        let mut bytes = [0; GREETING];
        bytes[..8].copy_from_slice(&self.sum.to_be_bytes());
        bytes[8..10].copy_from_slice(&u16::try_from(self.backend).unwrap().to_be_bytes());
        bytes[10..12].copy_from_slice(&from.port().to_be_bytes());
        bytes[12..].copy_from_slice(&from.ip().octets());
        bytes
    }
}

/// What a backend is to do with its connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// Send back what comes.
    Echo,
    /// Take so many octets of the pattern and say whether they were right, with [`verdict`].
    Take(u64),
    /// Send so many octets of the pattern.
    Send(u64),
}

impl Order {
    pub(super) fn write(self) -> [u8; ORDER] {
        let (kind, octets) = match self {
            Self::Echo => (0, 0),
            Self::Take(octets) => (1, octets),
            Self::Send(octets) => (2, octets),
        };
        tagged(kind, octets)
    }

    fn read(bytes: &[u8]) -> Self {
        let octets = u64::from_be_bytes(bytes[1..ORDER].try_into().unwrap());
        match bytes[0] {
            0 => Self::Echo,
            1 => Self::Take(octets),
            _ => Self::Send(octets),
        }
    }
}

/// So many octets came, and they were right.
pub(super) fn verdict(octets: u64) -> [u8; ORDER] {
    tagged(1, octets)
}

fn tagged(tag: u8, octets: u64) -> [u8; ORDER] {
    let mut bytes = [tag; ORDER];
    bytes[1..].copy_from_slice(&octets.to_be_bytes());
    bytes
}

/// The backends of this process. They serve as long as it lives.
#[derive(Debug)]
pub(crate) struct Backends {
    port: u16,
}

impl Backends {
    pub(crate) fn start() -> io::Result<Self> {
        let listeners = std::iter::repeat_with(bind).take(100).find_map(Result::ok);
        let listeners =
            listeners.ok_or_else(|| io::Error::other("no port is free on 127.0.2.*"))?;
        let port = listeners[0].local_addr()?.port();
        // A fault of the server shows in every client: no greeting comes.
        let serve = move || Server::new(listeners)?.run();
        thread::Builder::new().name("backends".to_owned()).spawn(serve)?;
        Ok(Self { port })
    }

    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        super::backend_address(number, self.port)
    }
}

/// One listener per backend, all with the same port.
fn bind() -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind(super::backend_address(0, 0))?;
    let port = first.local_addr()?.port();
    let more = (1..COUNT).map(|number| TcpListener::bind(super::backend_address(number, port)));
    let listeners = [Ok(first)].into_iter().chain(more).collect::<io::Result<Vec<_>>>()?;
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

struct Server {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Server {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (key, listener) in listeners.iter().enumerate() {
            poller.add(listener, key, EventFlags::IN)?;
        }
        let buffer = vec![0; pattern::LONGEST];
        Ok(Self { poller, listeners, connections: Vec::new(), free: Vec::new(), buffer })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            for key in self.poller.wait(None)? {
                match key.checked_sub(COUNT) {
                    None => self.accept(key)?,
                    Some(place) => self.turn(place)?,
                }
            }
        }
    }

    fn accept(&mut self, backend: usize) -> io::Result<()> {
        // Whoever has gone again before is no fault of ours.
        let Ok((stream, from)) = self.listeners[backend].accept() else { return Ok(()) };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.poller.add(&stream, COUNT + place, EventFlags::IN)?;
        self.connections[place] = Some(Connection::new(stream, backend, from));
        Ok(())
    }

    fn turn(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        let before = connection.waits_for;
        // What goes wrong in a connection, its client sees.
        if connection.turn(&mut self.buffer).unwrap_or(false) {
            if connection.waits_for != before {
                self.poller.change(&connection.stream, COUNT + place, connection.waits_for)?;
            }
        } else {
            self.connections[place] = None;
            self.free.push(place);
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    backend: usize,
    from: SocketAddr,
    stage: Stage,
    /// Of a hello or an order that is not whole yet.
    heard: Vec<u8>,
    unsent: Vec<u8>,
    waits_for: EventFlags,
}

enum Stage {
    Hello,
    Order,
    Echo,
    Take { at: u64, of: u64, right: bool },
    Send { at: u64, of: u64 },
    Done,
}

impl Connection {
    fn new(stream: TcpStream, backend: usize, from: SocketAddr) -> Self {
        Self {
            stream,
            backend,
            from,
            stage: Stage::Hello,
            heard: Vec::new(),
            unsent: Vec::new(),
            waits_for: EventFlags::IN,
        }
    }

    /// Does what can be done; false: it is over.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.send()? {
            self.waits_for = EventFlags::OUT;
            return Ok(true);
        }
        self.waits_for = EventFlags::IN;
        let Some(read) = tried(self.stream.read(buffer))? else { return Ok(true) };
        self.hear(&buffer[..read])?;
        if !self.send()? {
            self.waits_for = EventFlags::OUT;
        }
        Ok(read > 0)
    }

    /// False: not all of it could be sent yet.
    fn send(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            let Some(sent) = tried(self.stream.write(&self.unsent))? else { return Ok(false) };
            self.unsent.drain(..sent);
        }
        if let Stage::Send { at, of } = &mut self.stage {
            while at < of {
                let part = pattern::at(*at, part(*of - *at));
                let Some(sent) = tried(self.stream.write(part))? else { return Ok(false) };
                *at += sent as u64;
            }
            self.stage = Stage::Done;
        }
        Ok(true)
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = tried(self.stream.write(bytes))?.unwrap_or_default();
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stage {
            Stage::Hello => {
                self.heard.extend_from_slice(bytes);
                let Some(rest) = after_hello(&self.heard) else { return Ok(()) };
                self.greet(rest)
            }
            Stage::Order => {
                self.heard.extend_from_slice(bytes);
                if self.heard.len() < ORDER {
                    return Ok(());
                }
                let heard = std::mem::take(&mut self.heard);
                self.stage = match Order::read(&heard) {
                    Order::Echo => Stage::Echo,
                    Order::Take(of) => Stage::Take { at: 0, of, right: true },
                    Order::Send(of) => Stage::Send { at: 0, of },
                };
                self.hear(&heard[ORDER..])
            }
            Stage::Echo => self.say(bytes),
            Stage::Take { at, of, right } => {
                *right &= pattern::at(*at, bytes.len()) == bytes;
                *at += bytes.len() as u64;
                let (at, of, right) = (*at, *of, *right);
                if at < of {
                    return Ok(());
                }
                self.stage = Stage::Done;
                self.say(&if right { verdict(at) } else { tagged(0, at) })
            }
            Stage::Send { .. } | Stage::Done => Ok(()),
        }
    }

    fn greet(&mut self, rest: usize) -> io::Result<()> {
        let sum = sum(&self.heard[..rest]);
        let greeting = Greeting { sum, backend: self.backend, from: self.from };
        self.stage = Stage::Order;
        let heard = std::mem::take(&mut self.heard);
        self.say(&greeting.write())?;
        self.hear(&heard[rest..])
    }
}

/// Where the one record of a hello ends, once it is there (RFC 8446 §5.1).
fn after_hello(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = bytes else { return None };
    let end = 5 + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= end).then_some(end)
}

/// As much of it as goes at once.
pub(super) fn part(octets: u64) -> usize {
    usize::try_from(octets).map_or(pattern::LONGEST, |octets| octets.min(pattern::LONGEST))
}

/// `None`: an event has to come first.
pub(super) fn tried(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
