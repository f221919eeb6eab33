//! What an accepted connection has sent, while it is not known yet where it goes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::model::ending::Ending;
use crate::proxy_protocol::{self, Addresses, Header, Parsed};
use crate::reactor::Socket;

use super::awaited::Said;
use super::buffer;
use super::hello::{HANDSHAKE, Hello, HelloParser, Progress};
use super::link::Leg;
use super::refuse::Refused;
use super::relay::Stream;

/// The longest PROXY header that is accepted, and so as much as is read for one.
const LONGEST_HEADER: usize = proxy_protocol::MAX_V2;

/// An accepted socket with the bytes that came so far. Holds no memory before the first one, and never more than the limit of
/// what is being read.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) leg: Leg,
    pub(super) peer: SocketAddr,
    received: Vec<u8>,
    /// Whether any byte came at all.
    spoke: bool,
    /// Whether nothing is known of its bytes without looking at them: by the word of a link's other end, or for a service.
    said_plain: bool,
    /// Whether a link's other side has been told that it is accepted.
    accepted: bool,
}

impl Incoming {
    pub(super) fn new(socket: Socket, peer: SocketAddr) -> Self {
        let leg = Leg::Plain(socket);
        let (received, spoke, accepted, said_plain) = (Vec::new(), false, false, false);
        Self { leg, peer, received, spoke, said_plain, accepted }
    }

    /// A client that an endpoint was connected for, and what it had sent.
    pub(super) fn again(leg: Leg, peer: SocketAddr, received: Vec<u8>) -> Self {
        Self { leg, peer, received, spoke: true, said_plain: false, accepted: true }
    }

    /// Who is to be told that there is no endpoint. Nobody, where an endpoint's bytes are expected: breaking the link tells.
    pub(super) fn into_leg(self) -> Leg {
        match self.leg {
            Leg::Link(_) if self.accepted => {
                self.leg.reset_on_close();
                Leg::Lent
            }
            leg @ (Leg::Plain(_) | Leg::Link(_) | Leg::Inside(_) | Leg::Lent) => leg,
        }
    }

    /// Whether any byte came at all.
    pub(super) fn spoke(&self) -> bool {
        self.spoke
    }

    /// The connection's own ends.
    pub(super) fn ends(&self) -> io::Result<Addresses> {
        let socket = self.leg.socket().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Addresses { source: self.peer, destination: socket.local_addr()? })
    }

    /// The bytes behind a PROXY header so far.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Gives the socket and the bytes to a handshake. None: it has them already.
    pub(super) fn lend(&mut self) -> Option<(Socket, Bytes)> {
        match std::mem::replace(&mut self.leg, Leg::Lent) {
            Leg::Plain(socket) => Some((socket, std::mem::take(&mut self.received).into())),
            Leg::Link(_) | Leg::Inside(_) | Leg::Lent => None,
        }
    }

    /// Reads the PROXY header in front of everything else and takes it away. None: its sender speaks for itself.
    pub(super) async fn proxy_header(&mut self) -> Result<Option<Addresses>, Refused> {
        loop {
            match proxy_protocol::parse(&self.received) {
                Parsed::NeedMore => self.more(LONGEST_HEADER).await?,
                Parsed::Header { header: Header { addresses, .. }, length } => {
                    self.received.drain(..length.min(self.received.len()));
                    return Ok(addresses);
                }
                Parsed::Wrong(error) => {
                    return Err(Refused::new(Ending::BadProxyHeader, error.to_string()));
                }
            }
        }
    }

    /// Reads the hello; `limit` counts raw bytes. They stay, for the endpoint.
    pub(super) async fn hello(&mut self, limit: usize) -> Result<Hello, Refused> {
        let mut parser = HelloParser::new(limit);
        loop {
            match parser.advance(&self.received) {
                // One byte more than may come, so that the parser sees the limit passed.
                Progress::NeedMore => self.more(limit.saturating_add(1)).await?,
                Progress::Hello(hello) => return Ok(hello),
                Progress::Wrong(error) => return Err(Refused::hello(error)),
            }
        }
    }

    /// Reads what an app's own address is sent first, all of it where that is a hello; `limit` counts its raw bytes. The random of a
    /// hello, and nothing of what is no TLS.
    pub(super) async fn opening(&mut self, limit: usize) -> Result<Option<[u8; 32]>, Refused> {
        let mut parser = HelloParser::nameless(limit);
        loop {
            match self.received.first() {
                Some(&HANDSHAKE) => {
                    if let Some(random) =
                        parser.advance_nameless(&self.received).map_err(Refused::hello)?
                    {
                        return Ok(Some(random));
                    }
                }
                Some(_) => return Ok(None),
                None => {}
            }
            self.more(limit.saturating_add(1)).await?;
        }
    }

    /// Whether what comes is no TLS, or may be none: by its first byte, by the word of the gateway at the other end of a link, or
    /// because it is for a service.
    pub(super) fn is_plain(&self) -> bool {
        self.said_plain || self.received.first().is_some_and(|first| *first != HANDSHAKE)
    }

    /// The other end of the link says so, or nobody is to look.
    pub(super) fn is_said_to_be_plain(&mut self) {
        self.said_plain = true;
    }

    /// Waits for the first of the bytes.
    pub(super) async fn first(&mut self) -> Result<(), Refused> {
        if self.received.is_empty() { self.more(usize::MAX).await } else { Ok(()) }
    }

    /// What an endpoint is to get first: the bytes behind a PROXY header, ours behind `header`, which goes in front of them.
    pub(super) fn said(&mut self, header: &[u8]) -> Said {
        let mut received = std::mem::take(&mut self.received);
        received.splice(..0, header.iter().copied());
        Said { bytes: received.into(), header: header.len() }
    }

    /// Waits for more bytes; holds at most `most` of them then.
    async fn more(&mut self, most: usize) -> Result<(), Refused> {
        let Self { leg, received, .. } = self;
        let read = poll_fn(|context| {
            buffer::with(|buffer| {
                let room = most.saturating_sub(received.len()).min(buffer.len());
                let mut into = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
                ready!(Pin::new(&mut *leg).poll_read(context, &mut into))?;
                append(received, into.filled(), most);
                Poll::Ready(io::Result::Ok(into.filled().len()))
            })
        });
        match read.await {
            Ok(1..) => {
                self.spoke = true;
                Ok(())
            }
            Ok(0) => Err(Refused::new(Ending::ClientGone, "closed before its hello was whole")),
            Err(error) => Err(Refused::gone(&error)),
        }
    }
}

/// Grows by doubling, so that a byte at a time is not copied each time, but never beyond `most`: a vector's own growth would.
fn append(received: &mut Vec<u8>, more: &[u8], most: usize) {
    let needed = received.len() + more.len();
    if needed > received.capacity() {
        let capacity = needed.max((received.capacity() * 2).min(most));
        received.reserve_exact(capacity - received.len());
    }
    received.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_takes_no_more_memory_than_its_limit() {
        let mut received = Vec::new();
        append(&mut received, &[1; 1514], 4096);
        assert_eq!(received.capacity(), 1514, "a whole hello is held as it is");
        while received.len() < 4096 {
            append(&mut received, &[2], 4096);
            assert!(received.capacity() <= 4096);
        }
    }

    /// The longest header that is taken, with nothing in it (haproxy's `proxy-protocol.txt` §2.2.5, `PP2_TYPE_NOOP`).
    fn longest_header() -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x20\x00".to_vec();
        let length = u16::try_from(LONGEST_HEADER - 16).unwrap();
        header.extend(length.to_be_bytes());
        header.push(4);
        header.extend((length - 3).to_be_bytes());
        header.resize(LONGEST_HEADER, 0);
        header
    }

    #[tokio::test]
    async fn a_pending_connection_holds_at_most_its_limit_and_4_kib() {
        const LIMIT: usize = 64 * 1024;
        // In records of one byte the limit comes before the end of the cipher suites, 11,000 octets of a message of 12,000.
        let mut hello: Vec<u8> =
            [&[1, 0, 0x2e, 0xe0, 3, 3][..], &[7; 32], &[0, 0x2a, 0xf8]].concat();
        hello.resize(12_000, 0);
        let records = hello.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]);
        let sent: Vec<u8> = longest_header().into_iter().chain(records).collect();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut incoming = Incoming::new(Socket::from_std(accepted).unwrap(), peer);
        assert_eq!(incoming.received.capacity(), 0, "nothing before the first byte");
        let writing = std::thread::spawn(move || {
            let mut client = client;
            // Ends with an error: what is over the limit nobody reads.
            let _ = std::io::Write::write_all(&mut client, &sent);
        });
        assert_eq!(incoming.proxy_header().await, Ok(None));
        let refused = incoming.hello(LIMIT).await.unwrap_err();
        assert_eq!(refused.ending, Ending::MalformedHello);
        // It never shrinks on the way: this is the most that there was.
        let held = incoming.received.capacity();
        assert!((LIMIT..=LIMIT + 1).contains(&held), "{held}");
        drop(incoming);
        writing.join().unwrap();
    }
}
