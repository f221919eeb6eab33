//! One direction of a pair.

use std::io::{self, ErrorKind};

use bytes::{Buf, Bytes};
use prometheus::IntCounter;
use rustix::net::Shutdown;

use crate::reactor::{Turn, Watched};

use super::super::awaited::Awaited;
use super::super::buffer;
use super::super::relay::{Broken, End};
use super::pipes::{Pipe, Pipes};

/// Steps of one direction before others on this thread get their turn: up to 1 MiB when copying, 2 MiB through a pipe.
const TURN: u32 = 16;
/// Less than this in a pipe at a time is copied from then on: one read and one write, and a short read tells that nothing is
/// left, which a splice does not.
const WORTH_A_PIPE: usize = 16 * 1024;

/// Bytes on their way from one side to the other.
#[derive(Debug)]
pub(super) struct Flow {
    counter: IntCounter,
    pub(super) bytes: u64,
    held: Held,
    /// More comes than one read takes.
    bulk: bool,
    /// The FIN has come.
    pub(super) ended: bool,
    /// The FIN has been passed on.
    pub(super) carried: bool,
    /// Let go with the first byte, before anything of it is passed on: whoever has seen the answer may send the same
    /// hello again.
    until_answer: Option<Box<Awaited>>,
}

/// What was read and not taken yet.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Bytes),
    Piped(Pipe),
}

/// What a step came to.
enum Step {
    Moved,
    /// An event has to come first.
    Waits,
}

impl Flow {
    /// From the client: with what goes first, of which so many octets are the client's, and counted already.
    pub(super) fn up(counter: IntCounter, first: Bytes, of_client: usize) -> Self {
        let held = if first.is_empty() { Held::Nothing } else { Held::Bytes(first) };
        Self { held, bytes: of_client as u64, ..Self::empty(counter) }
    }

    /// From the endpoint, which has not answered yet.
    pub(super) fn down(counter: IntCounter, awaited: Box<Awaited>) -> Self {
        Self { until_answer: Some(awaited), ..Self::empty(counter) }
    }

    fn empty(counter: IntCounter) -> Self {
        Self {
            counter,
            bytes: 0,
            held: Held::Nothing,
            bulk: false,
            ended: false,
            carried: false,
            until_answer: None,
        }
    }

    /// What is held until the first byte.
    pub(super) fn awaited(&self) -> Option<&Awaited> {
        self.until_answer.as_deref()
    }

    pub(super) fn take_awaited(&mut self) -> Option<Box<Awaited>> {
        self.until_answer.take()
    }

    /// Whether the next byte of its source, or its breaking, would go unnoticed.
    pub(super) fn is_unread(&self) -> bool {
        self.ended || !matches!(self.held, Held::Nothing)
    }

    /// Moves what can be moved. `last`: the other direction is over, so that closing the socket passes the FIN on.
    pub(super) fn turn(
        &mut self,
        from: &Watched,
        to: &Watched,
        last: bool,
        pipes: &mut Pipes,
    ) -> Result<Turn, Broken> {
        for _ in 0..TURN {
            let step = match &self.held {
                Held::Bytes(_) => self.write(to)?,
                Held::Piped(_) => self.drain(to, pipes)?,
                Held::Nothing if self.carried => return Ok(Turn::Done),
                Held::Nothing if self.ended => self.carry(to, last)?,
                Held::Nothing if self.bulk => self.fill(from, pipes)?,
                Held::Nothing => self.copy(from, to)?,
            };
            match step {
                Step::Moved => {}
                Step::Waits => return Ok(Turn::Done),
            }
        }
        Ok(Turn::Again)
    }

    /// Whether something that was read is not taken yet.
    pub(super) fn holds(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// Reads away what comes, and does not count it.
    pub(super) fn discard(&mut self, from: &Watched) -> Result<Turn, Broken> {
        for _ in 0..TURN {
            if self.ended {
                return Ok(Turn::Done);
            }
            let read = buffer::with(|buffer| tried(from.try_read(buffer), Broken::From))?;
            let Some(read) = read else { return Ok(Turn::Done) };
            self.ended = read == 0;
        }
        Ok(Turn::Again)
    }

    /// Gives back what it holds of the thread's.
    pub(super) fn release(&mut self, pipes: &mut Pipes) {
        if let Held::Piped(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            pipes.give(pipe);
        }
    }

    /// Bytes came, or with 0 of them the FIN.
    fn count(&mut self, bytes: usize) {
        if bytes > 0
            && let Some(awaited) = self.until_answer.take()
        {
            awaited.answered();
        }
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.counter.inc_by(bytes);
    }

    /// One read into the thread's buffer and one write; the rest, if any, is kept.
    fn copy(&mut self, from: &Watched, to: &Watched) -> Result<Step, Broken> {
        buffer::with(|buffer| {
            let Some(read) = tried(from.try_read(buffer), Broken::From)? else {
                return Ok(Step::Waits);
            };
            self.count(read);
            self.ended = read == 0;
            self.bulk = read == buffer.len();
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(Step::Moved);
            }
            let written = tried(to.try_write(bytes), Broken::To)?.unwrap_or_default();
            let rest = bytes.get(written..).unwrap_or_default();
            if !rest.is_empty() {
                self.held = Held::Bytes(Bytes::copy_from_slice(rest));
            }
            Ok(Step::Moved)
        })
    }

    fn write(&mut self, to: &Watched) -> Result<Step, Broken> {
        let Held::Bytes(bytes) = &mut self.held else { return Ok(Step::Moved) };
        let Some(written) = tried(to.try_write(bytes), Broken::To)? else {
            return Ok(Step::Waits);
        };
        bytes.advance(written);
        if bytes.is_empty() {
            self.held = Held::Nothing;
        }
        Ok(Step::Moved)
    }

    fn fill(&mut self, from: &Watched, pipes: &mut Pipes) -> Result<Step, Broken> {
        let Some(mut pipe) = pipes.take() else {
            self.bulk = false;
            return Ok(Step::Moved);
        };
        let filled = tried(pipe.fill(from), Broken::From);
        if let Ok(Some(filled @ 1..)) = filled {
            self.held = Held::Piped(pipe);
            self.bulk = filled >= WORTH_A_PIPE;
        } else {
            pipes.give(pipe);
        }
        let Some(filled) = filled? else { return Ok(Step::Waits) };
        self.ended = filled == 0;
        self.count(filled);
        Ok(Step::Moved)
    }

    fn drain(&mut self, to: &Watched, pipes: &mut Pipes) -> Result<Step, Broken> {
        let Held::Piped(pipe) = &mut self.held else { return Ok(Step::Moved) };
        if tried(pipe.drain(to), Broken::To)?.is_none() {
            return Ok(Step::Waits);
        }
        if pipe.is_empty() {
            self.release(pipes);
        }
        Ok(Step::Moved)
    }

    fn carry(&mut self, to: &Watched, last: bool) -> Result<Step, Broken> {
        if !last {
            if let Some(awaited) =
                self.until_answer.take_if(|awaited| !awaited.decides(End::ResetByEndpoint))
            {
                awaited.failed();
            }
            if self.until_answer.is_some() {
                return Err(Broken::From);
            }
            rustix::net::shutdown(to, Shutdown::Write).map_err(|_| Broken::To)?;
        }
        self.carried = true;
        Ok(Step::Moved)
    }
}

/// None: it would block.
fn tried(result: io::Result<usize>, side: Broken) -> Result<Option<usize>, Broken> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(_) => Err(side),
    }
}
