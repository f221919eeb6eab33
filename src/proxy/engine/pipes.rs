//! Pipes, through which bytes go from socket to socket without being copied into the process.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::proxy::admission::has_spare;
use crate::reactor::Watched;

/// Room of one pipe, as HAProxy's is when it is tuned for splicing (`tune.pipesize`). With the kernel's 64 KiB one stream takes a
/// fifth more CPU per GB, eight streams the same. A process without `CAP_SYS_RESOURCE` gets it up to `fs.pipe-max-size`, 1 MiB by
/// default, and as long as its user's pipes are below `fs.pipe-user-pages-soft`; beyond that a pipe stays at 64 KiB.
const SIZE: usize = 256 * 1024;
/// Most pipes of a thread that hold data at a time: two descriptors each. What comes beyond is copied.
const MOST: usize = 256;
/// Empty pipes that a thread keeps: making one takes two system calls, and few directions are in the middle of a transfer at
/// the same instant.
const MOST_KEPT: usize = 16;

/// The pipes of one thread.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    empty: Vec<Pipe>,
    /// Fewest that were empty since the last [`rest`](Self::rest): nobody has needed these.
    spare: usize,
    /// Lent out, or lost with the pair that held them.
    lent: usize,
}

/// A pipe of this thread.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

impl Pipes {
    /// An empty pipe; none when too many are lent, or the system gives none.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if self.lent >= MOST {
            return None;
        }
        let pipe = self.empty.pop().map_or_else(Pipe::new, Ok).ok()?;
        self.spare = self.spare.min(self.empty.len());
        self.lent += 1;
        Some(pipe)
    }

    /// Takes a pipe back. One that still holds a broken pair's data is closed.
    pub(super) fn give(&mut self, pipe: Pipe) {
        self.lent = self.lent.saturating_sub(1);
        if pipe.filled == 0 && self.empty.len() < MOST_KEPT {
            self.empty.push(pipe);
        }
    }

    /// Closes what nobody has needed since the last call: a busy hour must not cost a quiet day its descriptors.
    pub(super) fn rest(&mut self) {
        self.empty.truncate(self.empty.len().saturating_sub(self.spare));
        self.spare = self.empty.len();
    }
}

#[cfg(test)]
impl Pipes {
    pub(super) fn are_home(&self) -> bool {
        self.lent == 0
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A descriptor that saves a copy must not be the one that keeps a connection out.
        if !has_spare(&write) {
            return Err(Errno::MFILE.into());
        }
        // Refused: the pipe is as good, only smaller.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Self { read, write, filled: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Fills the empty pipe with what is there; 0 at the end.
    pub(super) fn fill(&mut self, from: &Watched) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        self.filled =
            from.try_read_with(|from| Ok(splice(from, None, &self.write, None, SIZE, flags)?))?;
        Ok(self.filled)
    }

    /// Empties it as far as the other side takes it.
    pub(super) fn drain(&mut self, to: &Watched) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let drained =
            to.try_write_with(|to| Ok(splice(&self.read, None, to, None, self.filled, flags)?))?;
        self.filled = self.filled.saturating_sub(drained);
        Ok(drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_that_nobody_needs_are_closed_and_those_in_use_are_kept() {
        let mut pipes = Pipes::default();
        let lend = |pipes: &mut Pipes, number: usize| {
            let lent: Vec<_> =
                std::iter::repeat_with(|| pipes.take().unwrap()).take(number).collect();
            for pipe in lent {
                pipes.give(pipe);
            }
        };
        lend(&mut pipes, 4);
        pipes.rest();
        assert_eq!(pipes.empty.len(), 4, "all were in use");
        lend(&mut pipes, 1);
        pipes.rest();
        assert_eq!(pipes.empty.len(), 1);
        pipes.rest();
        assert!(pipes.empty.is_empty());
    }
}
