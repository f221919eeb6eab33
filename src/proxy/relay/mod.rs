//! The portable copier: bytes both ways between two streams until both have ended, or one breaks.
//!
//! Bytes go through the thread's one buffer. Only what the other side does not take at once is kept, at most one buffer a
//! direction, and reading waits until that is gone: so a side that does not read slows the other down, and an idle pair
//! holds nothing.

use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use prometheus::IntCounter;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::reactor::Socket;
use crate::socket;

use super::buffer;

mod leave;

use leave::Leave;
pub(crate) use leave::Leaving;

/// Reads of one direction before others on this thread get their turn: 1 MiB with full buffers.
const TURN: u32 = 16;

/// A side that nobody reads, because the other takes no more or its FIN has come, is looked at so often whether it broke:
/// readiness to read says nothing then, and without this a dead pair would stay for the whole idle limit.
const UNREAD_CHECK: Duration = Duration::from_secs(1);

/// What the copier needs of a side beyond reading and writing.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Closing it from now on tells its far end that the connection broke.
    fn reset_on_close(&self);

    /// Whether it is broken; for a side that nobody reads now.
    fn is_broken(&self) -> bool;

    /// Whether a read would bring a byte, an end or an error, which no event may have told of yet.
    fn has_something(&self) -> bool;
}

impl Stream for Socket {
    fn reset_on_close(&self) {
        // Fails only on a socket that is broken already.
        let _ = socket::reset_on_close(self);
    }

    fn is_broken(&self) -> bool {
        Self::is_broken(self)
    }

    fn has_something(&self) -> bool {
        has_something(self)
    }
}

/// Whether a read of a socket would bring a byte, an end or an error: asks the system.
pub(crate) fn has_something(side: &impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    !matches!(rustix::net::recv(side, &mut [0], flags), Err(Errno::AGAIN))
}

/// How a relay ended, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides sent a FIN.
    Finished,
    /// The client broke the connection.
    ResetByClient,
    /// The endpoint broke the connection.
    ResetByEndpoint,
    /// No byte in either direction for the idle limit.
    Idle,
    /// No first byte of the endpoint's in time.
    Silent,
    /// Closed by us between two calls.
    Quiet,
    /// The stop signal.
    Stopped,
    /// A panic of ours.
    Fault,
}

/// What limits and counts a relay.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// Counts bytes from the client, while they come.
    pub(crate) up: IntCounter,
    /// Counts bytes from the endpoint, while they come.
    pub(crate) down: IntCounter,
    /// Ends it when no byte came for so long.
    pub(crate) idle: Duration,
    /// Ends it at once.
    pub(crate) stop: &'a CancellationToken,
    /// Ends it between two calls; `None` for what may not be ended so.
    pub(crate) leaving: Option<Leaving<'a>>,
}

/// Two streams joined.
#[derive(Debug)]
pub(crate) struct Relay<'a, C, E> {
    client: &'a mut C,
    endpoint: &'a mut E,
    up: Direction,
    down: Direction,
    idle: Duration,
    stop: &'a CancellationToken,
    leave: Option<Leave<'a>>,
    /// When the last byte came.
    moved: Instant,
}

/// What a stage of the relay came to.
enum Step {
    Ended(End),
    Answered,
    /// It is quiet, and to be closed.
    Quiet,
}

impl<'a, C: Stream, E: Stream> Relay<'a, C, E> {
    /// Joins two streams. The endpoint first gets `preface`; the client has said `said` octets already, and they are counted.
    pub(crate) fn new(
        client: &'a mut C,
        endpoint: &'a mut E,
        preface: Bytes,
        said: usize,
        terms: Terms<'a>,
    ) -> Self {
        let Terms { up, down, idle, stop, leaving } = terms;
        let mut up = Direction::new(up);
        up.bytes = said as u64;
        up.kept = preface;
        let moved = Instant::now();
        let leave = leaving.map(|leaving| Leave::new(leaving, moved));
        Self { client, endpoint, up, down: Direction::new(down), idle, stop, leave, moved }
    }

    /// The endpoint's FIN, if nothing comes before it, is to break the connection instead of being passed on.
    pub(crate) fn must_answer(&mut self) {
        self.down.first = First::Byte;
    }

    /// Relays until the endpoint has sent its first byte or its FIN; an end before that is returned, and not closed with.
    pub(crate) async fn until_answer(&mut self) -> Option<End> {
        match self.run(true).await {
            Step::Answered => None,
            Step::Ended(end) => Some(end),
            Step::Quiet => Some(self.part().await),
        }
    }

    /// Relays until the end.
    pub(crate) async fn until_end(&mut self) -> End {
        loop {
            match self.run(false).await {
                Step::Ended(end) => {
                    self.close(end);
                    return end;
                }
                Step::Quiet => return self.part().await,
                // Never: `run` was not asked to stop there. The loop says it without a panic.
                Step::Answered => {}
            }
        }
    }

    /// Bytes that came from the client.
    pub(crate) fn bytes_up(&self) -> u64 {
        self.up.bytes
    }

    /// Bytes that came from the endpoint.
    pub(crate) fn bytes_down(&self) -> u64 {
        self.down.bytes
    }

    async fn run(&mut self, until_answer: bool) -> Step {
        let mut stopped = pin!(self.stop.cancelled());
        let mut timer = pin!(sleep_until(self.moved + self.idle));
        let drain = self.leave.as_ref().map(Leave::drain);
        let mut drain = pin!(drain.unwrap_or(self.stop).cancelled());
        poll_fn(|context| {
            if let Poll::Ready(end) = self.poll_copy(context) {
                return Poll::Ready(Step::Ended(end));
            }
            if until_answer && (self.down.bytes > 0 || self.down.ended) {
                return Poll::Ready(Step::Answered);
            }
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(Step::Ended(End::Stopped));
            }
            if self.poll_leave(context, drain.as_mut()) {
                return Poll::Ready(Step::Quiet);
            }
            self.poll_timer(timer.as_mut(), context).map(Step::Ended)
        })
        .await
    }

    /// Moves what can be moved in both directions.
    fn poll_copy(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let (before_up, before_down) = (self.up.bytes, self.down.bytes);
        let up = self.up.poll(context, self.client, self.endpoint);
        // Also when the first one broke: what the broken side sent before still goes to the other.
        let down = self.down.poll(context, self.endpoint, self.client);
        if (self.up.bytes, self.down.bytes) != (before_up, before_down) {
            self.moved = Instant::now();
            if let Some(leave) = &mut self.leave {
                let after = (self.up.bytes, self.down.bytes);
                leave.moved((before_up, before_down), after, self.moved);
            }
        }
        match (up, down) {
            (Err(Broken::From), _) | (Ok(()), Err(Broken::To)) => Poll::Ready(End::ResetByClient),
            (Err(Broken::To), _) | (Ok(()), Err(Broken::From)) => Poll::Ready(End::ResetByEndpoint),
            (Ok(()), Ok(())) if self.up.carried && self.down.carried => Poll::Ready(End::Finished),
            (Ok(()), Ok(())) => Poll::Pending,
        }
    }

    /// Looks after what no read or write wakes us for. The timer runs behind: bytes do not touch it, it finds on expiry how long
    /// there were none, because setting a timer costs more than noting the time.
    fn poll_timer(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<End> {
        let unread = self.up.is_unread() || self.down.is_unread();
        if unread {
            let soon = Instant::now() + UNREAD_CHECK;
            if soon < timer.deadline() {
                timer.as_mut().reset(soon);
            }
        }
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if self.up.is_unread() && self.client.is_broken() {
                return Poll::Ready(End::ResetByClient);
            }
            if self.down.is_unread() && self.endpoint.is_broken() {
                return Poll::Ready(End::ResetByEndpoint);
            }
            let idle = self.moved + self.idle;
            if idle <= now {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(if unread { idle.min(now + UNREAD_CHECK) } else { idle });
        }
        Poll::Pending
    }

    /// Whether the client has sent its FIN.
    pub(crate) fn is_client_done(&self) -> bool {
        self.up.ended
    }

    /// A broken side breaks the other; every other end closes as usual.
    pub(crate) fn close(&self, end: End) {
        match end {
            End::ResetByClient => self.endpoint.reset_on_close(),
            End::ResetByEndpoint => self.client.reset_on_close(),
            End::Finished | End::Idle | End::Silent | End::Quiet | End::Stopped | End::Fault => {}
        }
    }
}

/// Which side of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    From,
    To,
}

/// One direction of a relay.
#[derive(Debug)]
struct Direction {
    counter: IntCounter,
    bytes: u64,
    /// What was read and not taken yet.
    kept: Bytes,
    /// Written since the last flush.
    unflushed: bool,
    /// The FIN has come.
    ended: bool,
    /// The FIN has been passed on.
    carried: bool,
    first: First,
}

/// What may come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// A byte, or the FIN.
    Any,
    /// A byte: a FIN breaks it.
    Byte,
}

impl Direction {
    fn new(counter: IntCounter) -> Self {
        let kept = Bytes::new();
        let (ended, carried, first) = (false, false, First::Any);
        Self { counter, bytes: 0, kept, unflushed: false, ended, carried, first }
    }

    fn count(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.counter.inc_by(bytes);
    }

    /// Whether the next byte of its source, or its breaking, would go unnoticed.
    fn is_unread(&self) -> bool {
        self.ended || !self.kept.is_empty()
    }

    /// Moves bytes until one side has to be waited for; both ends' wakers are set then.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Result<(), Broken> {
        for _ in 0..TURN {
            if self.carried {
                return Ok(());
            }
            let moved = if !self.kept.is_empty() {
                self.unflushed = true;
                write_kept(context, &mut self.kept, to)
            } else if self.ended {
                self.poll_carry(context, to)
            } else {
                self.poll_move(context, from, to)
            };
            match moved {
                Poll::Ready(moved) => moved?,
                Poll::Pending => return self.flush(context, to),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    /// One read, and writes until it is gone or the other side takes no more.
    fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        buffer::with(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let came = ready!(Pin::new(from).poll_read(context, &mut read));
            came.map_err(|_| Broken::From)?;
            let mut rest = read.filled();
            self.ended = rest.is_empty();
            if self.ended && self.first == First::Byte && self.bytes == 0 {
                return Poll::Ready(Err(Broken::From));
            }
            self.count(rest.len());
            while !rest.is_empty() {
                match write_some(context, to, rest)? {
                    Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                    Poll::Pending => {
                        self.kept = Bytes::copy_from_slice(rest);
                        return Poll::Pending;
                    }
                }
                self.unflushed = true;
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        to: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        ready!(Pin::new(to).poll_shutdown(context)).map_err(|_| Broken::To)?;
        self.carried = true;
        Poll::Ready(Ok(()))
    }

    /// A TLS stream may hold a record back until it is told that nothing follows for now.
    fn flush(&mut self, context: &mut Context<'_>, to: &mut impl Stream) -> Result<(), Broken> {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(to).poll_flush(context)
        {
            flushed.map_err(|_| Broken::To)?;
            self.unflushed = false;
        }
        Ok(())
    }
}

/// Writes all that is kept; then its memory is given back.
fn write_kept(
    context: &mut Context<'_>,
    kept: &mut Bytes,
    to: &mut impl Stream,
) -> Poll<Result<(), Broken>> {
    while !kept.is_empty() {
        let written = ready!(write_some(context, to, kept)?);
        kept.advance(written);
    }
    *kept = Bytes::new();
    Poll::Ready(Ok(()))
}

/// Writes at least one byte; a stream that takes none is broken.
fn write_some(
    context: &mut Context<'_>,
    to: &mut impl Stream,
    bytes: &[u8],
) -> Result<Poll<usize>, Broken> {
    match Pin::new(to).poll_write(context, bytes) {
        Poll::Ready(Ok(0) | Err(_)) => Err(Broken::To),
        Poll::Ready(Ok(written)) => Ok(Poll::Ready(written)),
        Poll::Pending => Ok(Poll::Pending),
    }
}

#[cfg(test)]
mod tests;
