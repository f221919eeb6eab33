//! Pipes, through which bytes go from socket to socket without being copied into the process.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::proxy::admission::has_spare;
use crate::reactor::Watched;

/// Room of one pipe: more did not pay in throughput. Where the user's pipes are limited (`fs.pipe-user-pages-soft`) it stays at
/// the kernel's 64 KiB.
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
