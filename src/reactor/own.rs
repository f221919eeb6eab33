//! Sockets of a core's own set.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use rustix::net::SocketFlags;

use super::set::{self, Ready, Registration, Token};
use super::tasks;
use super::{Form, Socket};

/// A registered descriptor. The order of the fields is that of their end.
#[derive(Debug)]
pub(super) struct Source<T> {
    registration: Registration,
    io: T,
}

impl<T: AsFd> Source<T> {
    pub(super) fn new(io: T, ready: Ready) -> io::Result<Self> {
        Ok(Self { registration: Registration::new(&io, ready)?, io })
    }

    /// A descriptor of which events tell as long as anything is there.
    pub(super) fn listening(io: T) -> io::Result<Self> {
        Ok(Self { registration: Registration::listening(&io)?, io })
    }

    pub(super) fn io(&self) -> &T {
        &self.io
    }

    /// The descriptor without its registration.
    pub(super) fn into_inner(self) -> io::Result<T> {
        set::forget(&self.io)?;
        Ok(self.io)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.registration.ready().has(Ready::BROKEN)
    }

    /// Waits until `want` can be tried.
    pub(super) fn poll_ready(
        &self,
        context: &mut Context<'_>,
        want: Ready,
    ) -> Poll<io::Result<()>> {
        let polled = self.registration.poll(context, want);
        if polled.is_ready() && !tasks::proceed(context) {
            return Poll::Pending;
        }
        polled
    }

    /// Tries, without a system call when it is known that it would block.
    pub(super) fn try_io<R>(
        &self,
        want: Ready,
        mut attempt: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        if !self.registration.ready().has(want) {
            return Err(ErrorKind::WouldBlock.into());
        }
        loop {
            match attempt(&self.io) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocks(want)?;
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    fn blocks(&self, want: Ready) -> io::Result<()> {
        if want == Ready::WRITE {
            return self.registration.full(&self.io);
        }
        self.registration.drained();
        Ok(())
    }

    /// Waits and tries until it does not block.
    pub(super) fn poll_io<R>(
        &self,
        context: &mut Context<'_>,
        want: Ready,
        mut attempt: impl FnMut(&Self) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            ready!(self.poll_ready(context, want))?;
            match attempt(self) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl Source<TcpStream> {
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.try_io(Ready::READ, |mut io| io.read(into))?;
        // Fewer than asked for: it is drained, and a new edge tells of more, unless none comes any more.
        if read < into.len() && !self.registration.ready().has(Ready::LAST) {
            self.registration.drained();
        }
        Ok(read)
    }

    pub(super) fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        let written = self.try_io(Ready::WRITE, |mut io| io.write(from))?;
        if written < from.len() {
            self.registration.full(&self.io)?;
        }
        Ok(written)
    }

    pub(super) fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.try_io(Ready::WRITE, |mut io| io.write_vectored(from))?;
        if written < from.iter().map(|some| some.len()).sum() {
            self.registration.full(&self.io)?;
        }
        Ok(written)
    }

    /// Waits for the outcome of a connect.
    pub(super) async fn connected(self) -> io::Result<Self> {
        std::future::poll_fn(|context| self.poll_ready(context, Ready::WRITE)).await?;
        // A connect that failed has raised an error; asking each time would cost a system call for each connection.
        let error = if self.is_broken() { self.io.take_error()? } else { None };
        error.map_or(Ok(self), Err)
    }
}

impl Source<TcpListener> {
    /// The next connection. What it sent may be there already, and a write never waits at first.
    pub(super) fn try_accept(&self) -> io::Result<(Source<TcpStream>, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (accepted, peer) = self
            .try_io(Ready::READ, |listener| Ok(rustix::net::acceptfrom_with(listener, flags)?))?;
        self.registration.accepted();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let peer = peer.ok_or_else(|| io::Error::other("a peer without an IP address"))?;
        Ok((Source::new(accepted.into(), Ready::BOTH)?, peer))
    }

    /// Whether events tell of connections that wait.
    pub(super) fn hears(&self, whether: bool) {
        // Fails for want of memory alone, which changing takes none of.
        let _ = self.registration.hears(&self.io, whether);
    }
}

impl<T: AsFd> AsFd for Source<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// A socket whose events bring its holder a turn, and wake no task.
#[derive(Debug)]
pub struct Watched(pub(super) Source<TcpStream>);

impl Watched {
    /// From now on events bring a turn with `token`. What is known so far brings none: the first turn is the caller's.
    pub fn hand_over(&self, token: Token) {
        self.0.registration.hand_over(token);
    }

    /// The socket, for tasks again. Nothing that is known of it is lost.
    pub fn take_back(self) -> Socket {
        self.0.registration.take_back();
        Socket(Form::Own(self.0))
    }

    /// Whether the connection is broken as far as an event has told.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    /// Reads what is there; `WouldBlock` when nothing is, 0 at the end.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }

    /// Writes what fits; `WouldBlock` when nothing does.
    pub fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        self.0.try_write(from)
    }

    /// Reads in another way, which must say `WouldBlock` only when nothing is there.
    pub fn try_read_with(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.0.try_io(Ready::READ, |io| read(io.as_fd()))
    }

    /// Writes in another way, which must say `WouldBlock` only when nothing fits.
    pub fn try_write_with(
        &self,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.0.try_io(Ready::WRITE, |io| write(io.as_fd()))
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
