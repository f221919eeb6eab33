//! A core's own epoll set: every data socket is registered in it once, edge-triggered, and changed once at most. Listening ones are
//! level-triggered.
//!
//! What an event means to whom stands in a slot: a task waits for it, or whoever takes turns on it does. Slots are reached by number
//! through the thread, which keeps sockets `Send`, as tasks have to be that begin on another thread.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use rustix::event::epoll::{self, EventData, EventFlags};

/// Whose turn it is: what the socket was handed over with.
pub type Token = u32;

thread_local! {
    static SET: RefCell<Option<Set>> = const { RefCell::new(None) };
}

/// What is known of a descriptor: set by events, cleared by whoever finds that it is not so any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready(u8);

impl Ready {
    pub(super) const NONE: Self = Self(0);
    /// A read would not block.
    pub(super) const READ: Self = Self(1);
    /// A write would not block.
    pub(super) const WRITE: Self = Self(2);
    pub(super) const BOTH: Self = Self(3);
    /// No further edge comes for reads: the other side has sent its FIN, or is gone.
    pub(super) const LAST: Self = Self(4);
    /// An error waits.
    pub(super) const BROKEN: Self = Self(8);

    pub(super) fn of(flags: EventFlags) -> Self {
        let gone = EventFlags::HUP | EventFlags::ERR;
        let mut ready = Self::NONE;
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | gone) {
            ready.add(Self::READ);
        }
        if flags.intersects(EventFlags::OUT | gone) {
            ready.add(Self::WRITE);
        }
        if flags.intersects(EventFlags::RDHUP | gone) {
            ready.add(Self::LAST);
        }
        if flags.contains(EventFlags::ERR) {
            ready.add(Self::BROKEN);
        }
        ready
    }

    pub(super) fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    fn remove(&mut self, less: Self) {
        self.0 &= !less.0;
    }
}

/// The slots of one thread.
#[derive(Debug)]
struct Set {
    number: u32,
    epoll: Arc<OwnedFd>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Accepts that may follow before the next look at the events.
    accepts: usize,
}

#[derive(Debug)]
struct Slot {
    /// Counts the slot's descriptors: an event of one that is closed must not reach the next.
    generation: u32,
    ready: Ready,
    /// Events tell of room for a write.
    told_of_room: bool,
    waiting: Waiting,
}

/// Who is told of an event.
#[derive(Debug)]
enum Waiting {
    /// Tasks: who reads, who writes.
    Tasks([Option<Waker>; 2]),
    /// Whoever takes turns.
    Turns(Token),
}

const NOBODY: Waiting = Waiting::Tasks([None, None]);

impl Set {
    fn new(epoll: Arc<OwnedFd>) -> Self {
        /// Tells the sets of all threads apart: a socket that strayed from its thread must not use another's slot.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self { number, epoll, slots: Vec::new(), free: Vec::new(), accepts: 0 }
    }

    fn insert(&mut self, ready: Ready) -> io::Result<Registration> {
        if let Some(slot) = self.free.pop()
            && let Some(place) = self.slots.get_mut(slot as usize)
        {
            (place.ready, place.told_of_room) = (ready, !ready.has(Ready::WRITE));
            return Ok(Registration { set: self.number, slot, generation: place.generation });
        }
        let slot = u32::try_from(self.slots.len()).map_err(io::Error::other)?;
        let told_of_room = !ready.has(Ready::WRITE);
        self.slots.push(Slot { generation: 0, ready, told_of_room, waiting: NOBODY });
        Ok(Registration { set: self.number, slot, generation: 0 })
    }

    fn slot(&mut self, of: &Registration) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(of.slot as usize)?;
        (self.number == of.set && slot.generation == of.generation).then_some(slot)
    }

    fn note(&mut self, data: u64, ready: Ready, wake: &mut Vec<Waker>, turns: &mut Vec<Token>) {
        let halves = [data & u64::from(u32::MAX), data >> 32];
        let [slot, generation] = halves.map(|half| u32::try_from(half).unwrap_or_default());
        let Some(slot) = self.slots.get_mut(slot as usize) else { return };
        if slot.generation != generation {
            return;
        }
        slot.ready.add(ready);
        match &mut slot.waiting {
            Waiting::Turns(token) => turns.push(*token),
            Waiting::Tasks([reader, writer]) => {
                wake.extend(ready.has(Ready::READ).then(|| reader.take()).flatten());
                wake.extend(ready.has(Ready::WRITE).then(|| writer.take()).flatten());
            }
        }
    }
}

/// From now on sockets that are made on this thread belong to a new set.
pub(super) fn enter(epoll: Arc<OwnedFd>) {
    SET.set(Some(Set::new(epoll)));
}

/// Takes the set from the thread again.
pub(super) fn leave() {
    drop(SET.take());
}

/// Notes an event in its slot: who is to be woken and whose turn it is comes to the two lists.
pub(super) fn note(data: u64, ready: Ready, wake: &mut Vec<Waker>, turns: &mut Vec<Token>) {
    with(|set| set.note(data, ready, wake, turns));
}

/// So many events came at a time. Of those that a connection has in its life every fourth is the listener's: on a core that is busy so
/// many are likely to wait, and on one that is not a second accept finds nothing.
pub(super) fn came(events: usize) {
    with(|set| set.accepts = events / 4);
}

/// Whether another accept is worth a try before the next look at the events.
fn accepts_more() -> bool {
    let left = with(|set| {
        let left = set.accepts;
        set.accepts = left.saturating_sub(1);
        left
    });
    left.is_some_and(|left| left > 1)
}

/// Borrows the thread's set; nothing where there is none.
fn with<R>(borrow: impl FnOnce(&mut Set) -> R) -> Option<R> {
    SET.with_borrow_mut(|set| set.as_mut().map(borrow))
}

/// Whether sockets made on this thread belong to a set.
pub(super) fn is_entered() -> bool {
    with(|_| ()).is_some()
}

/// Takes a descriptor that lives on out of this thread's set.
pub(super) fn forget(source: &impl AsFd) -> io::Result<()> {
    with(|set| epoll::delete(&set.epoll, source)).unwrap_or(Ok(()))?;
    Ok(())
}

/// A descriptor's place in its set, free again when dropped. To be dropped before the descriptor, whose closing takes it out of
/// the epoll set.
#[derive(Debug)]
pub(super) struct Registration {
    set: u32,
    slot: u32,
    generation: u32,
}

impl Registration {
    /// Registers with this thread's set. `ready` is what may be assumed: a try costs less than waiting for an event. That there is
    /// room for a write no event tells until there was none: at first it would be one for nothing, which wakes the core.
    pub(super) fn new(source: &impl AsFd, ready: Ready) -> io::Result<Self> {
        let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        flags.set(EventFlags::OUT, !ready.has(Ready::WRITE));
        Self::add(source, ready, flags)
    }

    /// Registers a listening socket, of which events tell as long as anything is there. With edges one would have to accept until
    /// nothing is left, and the kernel makes a socket for each accept, also for the one that finds none.
    pub(super) fn listening(source: &impl AsFd) -> io::Result<Self> {
        Self::add(source, Ready::NONE, EventFlags::IN)
    }

    fn add(source: &impl AsFd, ready: Ready, flags: EventFlags) -> io::Result<Self> {
        let added = with(|set| {
            let registration = set.insert(ready)?;
            let added = epoll::add(&set.epoll, source, registration.data(), flags);
            Ok((registration, added))
        });
        let (registration, added) = added.unwrap_or_else(|| Err(astray()))?;
        added?;
        Ok(registration)
    }

    fn data(&self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.slot))
    }

    /// What is known.
    pub(super) fn ready(&self) -> Ready {
        self.with(|slot| slot.ready).unwrap_or(Ready::NONE)
    }

    /// Notes that no read can be tried any more.
    pub(super) fn drained(&self) {
        self.with(|slot| slot.ready.remove(Ready::READ));
    }

    /// Notes an accept: if there are more, the next look at the events tells.
    pub(super) fn accepted(&self) {
        if !accepts_more() {
            self.drained();
        }
    }

    /// Notes that no write can be tried any more, until an event tells.
    pub(super) fn full(&self, source: &impl AsFd) -> io::Result<()> {
        let told = self.with(|slot| {
            slot.ready.remove(Ready::WRITE);
            mem::replace(&mut slot.told_of_room, true)
        });
        if told == Some(false) {
            let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            with(|set| epoll::modify(&set.epoll, source, self.data(), all)).unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Whether events tell that something is there.
    pub(super) fn hears(&self, source: &impl AsFd, whether: bool) -> io::Result<()> {
        let flags = if whether { EventFlags::IN } else { EventFlags::empty() };
        with(|set| epoll::modify(&set.epoll, source, self.data(), flags)).unwrap_or(Ok(()))?;
        Ok(())
    }

    /// Whether what is wanted, reading or writing, can be tried; else the task is woken then.
    pub(super) fn poll(&self, context: &Context<'_>, want: Ready) -> Poll<io::Result<()>> {
        let waited = self.with(|slot| {
            if slot.ready.has(want) {
                return (Poll::Ready(Ok(())), None);
            }
            let Waiting::Tasks([reader, writer]) = &mut slot.waiting else {
                return (Poll::Ready(Err(astray())), None);
            };
            let waiting = if want == Ready::READ { reader } else { writer };
            if waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                return (Poll::Pending, None);
            }
            (Poll::Pending, waiting.replace(context.waker().clone()))
        });
        // The old waker is dropped with no slot borrowed: it may be the last that holds its task, and so a socket.
        waited.map_or_else(|| Poll::Ready(Err(astray())), |(poll, _old)| poll)
    }

    /// From now on `token` is told of events, and no task.
    pub(super) fn hand_over(&self, token: Token) {
        let tasks = self.with(|slot| mem::replace(&mut slot.waiting, Waiting::Turns(token)));
        drop(tasks);
    }

    /// From now on tasks are told of events again.
    pub(super) fn take_back(&self) {
        self.with(|slot| slot.waiting = NOBODY);
    }

    fn with<R>(&self, borrow: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        with(|set| set.slot(self).map(borrow)).flatten()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let freed = with(|set| {
            let slot = set.slot(self)?;
            slot.generation = slot.generation.wrapping_add(1);
            let waiting = mem::replace(&mut slot.waiting, NOBODY);
            set.free.push(self.slot);
            Some(waiting)
        });
        // Wakers, with no slot borrowed.
        drop(freed);
    }
}

fn astray() -> io::Error {
    io::Error::other("the socket is not on the thread that it was made on")
}

#[cfg(test)]
mod tests {
    use super::super::drive::tests::on_a_core;
    use super::super::drive::{BATCH, Turn};
    use super::*;
    use std::os::unix::net::UnixStream;

    async fn readable(registration: &Registration) {
        std::future::poll_fn(|context| registration.poll(context, Ready::READ)).await.unwrap();
    }

    #[test]
    fn more_events_than_a_batch_holds_all_come() {
        on_a_core(|_| Turn::Done, async {
            let pairs: Vec<_> = (0..BATCH + 50)
                .map(|_| {
                    let (near, far) = UnixStream::pair().unwrap();
                    (Registration::new(&near, Ready::NONE).unwrap(), near, far)
                })
                .collect();
            for (_, _, far) in &pairs {
                io::Write::write_all(&mut &*far, b"a").unwrap();
            }
            for (registration, ..) in &pairs {
                readable(registration).await;
            }
        });
    }

    #[test]
    fn an_event_of_a_closed_descriptor_does_not_reach_the_next_in_its_slot() {
        on_a_core(|_| Turn::Done, async {
            let (near, _far) = UnixStream::pair().unwrap();
            let first = Registration::new(&near, Ready::NONE).unwrap();
            let stale = first.data().u64();
            forget(&near).unwrap();
            drop(first);
            let next = Registration::new(&near, Ready::NONE).unwrap();
            with(|set| set.note(stale, Ready::READ, &mut Vec::new(), &mut Vec::new()));
            assert_eq!((next.slot, next.ready()), (0, Ready::NONE));
            assert_ne!(next.data().u64(), stale);
        });
    }

    #[test]
    fn a_turn_that_was_cut_comes_again_without_an_event() {
        let mut turns = 0;
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let turn = |token| {
            assert_eq!(token, 7);
            turns += 1;
            if turns < 5 {
                return Turn::Again;
            }
            done.take().map(|done| done.send(()));
            Turn::Done
        };
        on_a_core(turn, async {
            let (near, _far) = UnixStream::pair().unwrap();
            let registration = Registration::new(&near, Ready::NONE).unwrap();
            // There is room for a write, which is its one event.
            registration.hand_over(7);
            finished.await.unwrap();
        });
        assert_eq!(turns, 5);
    }

    #[test]
    fn a_socket_that_strayed_from_its_thread_is_an_error() {
        let mut strayed = None;
        on_a_core(|_| Turn::Done, async {
            let (near, _far) = UnixStream::pair().unwrap();
            strayed = Some(Registration::new(&near, Ready::BOTH).unwrap());
        });
        let strayed = strayed.unwrap();
        on_a_core(|_| Turn::Done, async {
            let (near, _far) = UnixStream::pair().unwrap();
            let own = Registration::new(&near, Ready::READ).unwrap();
            let context = Context::from_waker(Waker::noop());
            assert!(matches!(strayed.poll(&context, Ready::READ), Poll::Ready(Err(_))));
            drop(strayed);
            assert!(own.ready().has(Ready::READ), "not freed by another set's registration");
        });
    }
}
