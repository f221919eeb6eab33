//! A core's loop: it waits in the core's own set, polls tasks and takes turns.
//!
//! The thread blocks in that set and nowhere else. Inside a Tokio runtime, as one descriptor of the runtime's own set, each sleep
//! of a core that is not busy ended with two wake-ups in the kernel and a second system call.

use std::future::Future;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::Spawner;
use super::driver::Driver;
use super::set::{self, Ready, Token};
use super::tasks::{self, Mail, Ran};

/// Events taken at a time: a system call's cost is spread over them, and tasks get their turn between two batches.
pub(super) const BATCH: usize = 256;
/// The slot of what other threads ring with, which is none.
const BELL: u64 = u64::MAX;

/// A core's set, before its thread runs.
#[derive(Debug)]
pub struct Reactor {
    epoll: Arc<OwnedFd>,
    mail: Arc<Mail>,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is left to do until the next event.
    Done,
    /// It was cut to let others go on; no event will tell of what is left.
    Again,
}

impl Reactor {
    /// A new set.
    pub fn new() -> io::Result<Self> {
        let (epoll, mail) = (epoll::create(CreateFlags::CLOEXEC)?, Mail::new()?);
        let bell = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, mail.bell(), EventData::new_u64(BELL), bell)?;
        Ok(Self { epoll: Arc::new(epoll), mail: Arc::new(mail) })
    }

    /// Brings tasks to it from other threads.
    pub fn spawner(&self) -> Spawner {
        Spawner::own(Arc::clone(&self.mail))
    }

    /// Runs tasks on this thread until `until` is done; sockets that are made here meanwhile belong to the set, and timers are the
    /// driver's. `turn` is called for events of sockets that were handed over.
    pub fn run(
        self,
        driver: &Driver,
        turn: impl FnMut(Token) -> Turn,
        until: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let _entered = driver.enter();
        let Self { epoll, mail } = self;
        set::enter(Arc::clone(&epoll));
        tasks::enter(mail);
        let ended = drive(&epoll, turn, until);
        tasks::leave();
        set::leave();
        ended
    }
}

fn drive(
    epoll: &impl AsFd,
    mut turn: impl FnMut(Token) -> Turn,
    until: impl Future<Output = ()>,
) -> io::Result<()> {
    let (mut until, mut batch) = (pin!(until), Batch::default());
    loop {
        let ran = tasks::run(until.as_mut());
        if ran == Ran::Ended {
            return Ok(());
        }
        batch.collect(epoll, ran == Ran::Idle && batch.turns.is_empty())?;
        batch.dispatch(&mut turn);
    }
}

/// What came at a time, with the room for it.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    wake: Vec<Waker>,
    turns: Vec<Token>,
    taken: Vec<Token>,
}

impl Batch {
    /// Takes events, and waits for one if it may, and notes them in their slots.
    fn collect(&mut self, epoll: &impl AsFd, wait: bool) -> io::Result<()> {
        self.events.clear();
        self.events.reserve(BATCH);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let patience = if wait { None } else { Some(&at_once) };
        match epoll::wait(epoll, spare_capacity(&mut self.events), patience) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Self { events, wake, turns, .. } = self;
        set::came(events.len());
        for event in events.iter() {
            let data = event.data.u64();
            if data != BELL {
                set::note(data, Ready::of(event.flags), wake, turns);
            }
        }
        Ok(())
    }

    /// Wakes and calls, with no slot borrowed: both may make, use and drop sockets.
    fn dispatch(&mut self, turn: &mut impl FnMut(Token) -> Turn) {
        self.wake.drain(..).for_each(Waker::wake);
        mem::swap(&mut self.turns, &mut self.taken);
        for token in self.taken.drain(..) {
            if turn(token) == Turn::Again {
                self.turns.push(token);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn on_a_core(
        turn: impl FnMut(Token) -> Turn,
        test: impl Future<Output = ()>,
    ) {
        Reactor::new().unwrap().run(&Driver::start().unwrap(), turn, test).unwrap();
    }
}
