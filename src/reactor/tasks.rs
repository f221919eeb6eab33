//! A core's tasks: futures that its thread polls when somebody has woken them.
//!
//! They may await the core's sockets, and everything that needs no more than a waker: channels, cancellation, Tokio's timers. A
//! task belongs to its core for good. It is a box in a slot, and the slot's waker serves one task after the other: a wake-up that
//! was meant for the last one is a poll in vain, which every future has to bear.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

/// A future that is told nothing and tells nothing.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls before events are looked for, as Tokio has them.
const POLLS: u32 = 61;
/// How often sockets may be ready within one poll, as Tokio's budget has it: a task whose socket always is must let others go on.
const BUDGET: u8 = 128;
/// The number of the future that the thread itself runs.
const ROOT: u32 = u32::MAX;

thread_local! {
    static TASKS: RefCell<Option<Tasks>> = const { RefCell::new(None) };
}

/// The tasks of one thread.
struct Tasks {
    mail: Arc<Mail>,
    root: Arc<Woken>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    budget: u8,
}

struct Slot {
    task: Option<Task>,
    woken: Arc<Woken>,
}

/// What the wakers of a slot share.
struct Woken {
    mail: Arc<Mail>,
    slot: u32,
    /// It is in the queue, or on its way there.
    queued: AtomicBool,
}

/// What other threads have for this one.
pub(super) struct Mail {
    /// Rings when the core may be waiting for events. Edge-triggered in its set, and so never read.
    bell: OwnedFd,
    /// Not looked into since.
    rung: AtomicBool,
    /// None once the thread runs no tasks any more.
    posted: Mutex<Option<Vec<Posted>>>,
}

enum Posted {
    Wake(u32),
    Spawn(Task),
}

/// What is left to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// The thread's own future is done.
    Ended,
    /// Nothing until the next event.
    Idle,
    /// More, after a look at the events.
    More,
}

impl Mail {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, rung: AtomicBool::new(false), posted: Mutex::new(Some(Vec::new())) })
    }

    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Runs a task on the thread, or drops it when that has ended.
    pub(super) fn spawn(&self, task: Task) {
        self.post(Posted::Spawn(task));
    }

    fn post(&self, posted: Posted) {
        match &mut *self.lock() {
            Some(all) => all.push(posted),
            None => return,
        }
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only on a full counter, and then it has rung.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn taken(&self) -> Vec<Posted> {
        if !self.rung.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        self.lock().as_mut().map(mem::take).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Posted>>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mail").finish_non_exhaustive()
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = with(|tasks| {
            let here = Arc::ptr_eq(&tasks.mail, &self.mail);
            if here {
                tasks.ready.push_back(self.slot);
            }
            here
        });
        if here != Some(true) {
            self.mail.post(Posted::Wake(self.slot));
        }
    }
}

impl Tasks {
    fn insert(&mut self, task: Task) {
        let number = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).unwrap_or(ROOT);
            let woken = Arc::new(Woken::new(Arc::clone(&self.mail), slot));
            self.slots.push(Slot { task: None, woken });
            slot
        });
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        slot.task = Some(task);
        if !slot.woken.queued.swap(true, Ordering::AcqRel) {
            self.ready.push_back(number);
        }
    }

    /// Takes a task out to be polled.
    fn take(&mut self, number: u32) -> Option<(Task, Arc<Woken>)> {
        self.budget = BUDGET;
        let slot = self.slots.get_mut(number as usize)?;
        slot.woken.queued.store(false, Ordering::Release);
        slot.task.take().map(|task| (task, Arc::clone(&slot.woken)))
    }

    /// Puts it back, unless it is done.
    fn put(&mut self, number: u32, task: Option<Task>) {
        match self.slots.get_mut(number as usize) {
            Some(slot) if task.is_some() => slot.task = task,
            Some(_) => self.free.push(number),
            None => {}
        }
    }
}

impl Woken {
    fn new(mail: Arc<Mail>, slot: u32) -> Self {
        Self { mail, slot, queued: AtomicBool::new(false) }
    }
}

/// Borrows the thread's tasks; nothing where there are none. Nobody else's code runs meanwhile: it may wake and spawn.
fn with<R>(borrow: impl FnOnce(&mut Tasks) -> R) -> Option<R> {
    // Err: the thread is at its end.
    TASKS.try_with(|tasks| tasks.borrow_mut().as_mut().map(borrow)).ok().flatten()
}

/// From now on this thread runs tasks, its own future first.
pub(super) fn enter(mail: Arc<Mail>) {
    let root = Arc::new(Woken::new(Arc::clone(&mail), ROOT));
    root.queued.store(true, Ordering::Release);
    let (slots, free, ready) = (Vec::new(), Vec::new(), VecDeque::from([ROOT]));
    TASKS.set(Some(Tasks { mail, root, slots, free, ready, budget: BUDGET }));
}

/// Drops all tasks, and those that still come.
pub(super) fn leave() {
    let left = TASKS.take();
    let posted = left.as_ref().map(|tasks| tasks.mail.lock().take());
    drop((left, posted));
}

/// Runs a task on this thread; gives it back where none runs.
pub(super) fn spawn(task: Task) -> Result<(), Task> {
    let mut task = Some(task);
    with(|tasks| task.take().map(|task| tasks.insert(task)));
    task.map_or(Ok(()), Err)
}

/// Whether the task that is being polled may go on with a socket that is ready; else it has been woken, to go on later.
pub(super) fn proceed(context: &Context<'_>) -> bool {
    let left = with(|tasks| {
        let left = tasks.budget;
        tasks.budget = left.saturating_sub(1);
        left
    });
    let proceed = left != Some(0);
    if !proceed {
        context.waker().wake_by_ref();
    }
    proceed
}

/// Polls those that were woken.
pub(super) fn run(mut root: Pin<&mut impl Future<Output = ()>>) -> Ran {
    receive();
    for _ in 0..POLLS {
        match with(|tasks| tasks.ready.pop_front()).flatten() {
            None => return Ran::Idle,
            Some(ROOT) => {
                if poll_root(root.as_mut()) {
                    return Ran::Ended;
                }
            }
            Some(number) => poll(number),
        }
    }
    Ran::More
}

fn receive() {
    let Some(mail) = with(|tasks| Arc::clone(&tasks.mail)) else { return };
    for posted in mail.taken() {
        with(|tasks| match posted {
            Posted::Wake(number) => tasks.ready.push_back(number),
            Posted::Spawn(task) => tasks.insert(task),
        });
    }
}

fn poll_root(root: Pin<&mut impl Future<Output = ()>>) -> bool {
    let woken = with(|tasks| {
        tasks.budget = BUDGET;
        tasks.root.queued.store(false, Ordering::Release);
        Arc::clone(&tasks.root)
    });
    woken.is_some_and(|woken| root.poll(&mut Context::from_waker(&Waker::from(woken))).is_ready())
}

fn poll(number: u32) {
    let Some((mut task, woken)) = with(|tasks| tasks.take(number)).flatten() else { return };
    let waker = Waker::from(woken);
    let polled = || match task.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(()) => None,
        Poll::Pending => Some(task),
    };
    // A panic, which the hook reports, costs its own task, and drops that while it unwinds.
    let left = catch_unwind(AssertUnwindSafe(polled)).unwrap_or_default();
    with(|tasks| tasks.put(number, left));
}

#[cfg(test)]
mod tests {
    use super::super::drive::tests::on_a_core;
    use super::super::drive::{Reactor, Turn};
    use super::super::driver::Driver;
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::sleep;

    #[test]
    fn tasks_wait_for_timers_and_for_each_other() {
        on_a_core(|_| Turn::Done, async {
            let (tell, told) = oneshot::channel();
            spawn(Box::pin(async {
                sleep(Duration::from_millis(1)).await;
                tell.send(7).unwrap();
            }))
            .unwrap_or_else(|_| panic!("a core runs tasks"));
            assert_eq!(told.await, Ok(7));
        });
    }

    #[test]
    fn other_threads_wake_and_spawn_until_the_core_has_ended() {
        let reactor = Reactor::new().unwrap();
        let spawner = reactor.spawner();
        let (tell, told) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let other = std::thread::spawn(move || {
            spawner.spawn(Box::pin(async { done.send(told.await).unwrap() }));
            tell.send(7).unwrap();
            spawner
        });
        let until = async { assert_eq!(finished.await, Ok(Ok(7))) };
        reactor.run(&Driver::start().unwrap(), |_| Turn::Done, until).unwrap();

        let (held, dropped) = oneshot::channel::<()>();
        other.join().unwrap().spawn(Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        assert!(dropped.blocking_recv().is_err(), "nobody keeps what nobody runs");
    }

    #[test]
    fn a_panic_costs_its_own_task() {
        on_a_core(|_| Turn::Done, async {
            let (held, dropped) = oneshot::channel::<()>();
            let task = async move {
                let _held = held;
                panic!("as a fault of ours would");
            };
            assert!(spawn(Box::pin(task)).is_ok());
            assert!(dropped.await.is_err());
        });
    }

    #[test]
    fn a_task_that_is_always_ready_lets_others_go_on() {
        on_a_core(|_| Turn::Done, async {
            let greedy = std::future::poll_fn(|context| {
                while proceed(context) {}
                Poll::Pending
            });
            assert!(spawn(Box::pin(greedy)).is_ok());
            for _ in 0..3 * POLLS {
                tokio::task::yield_now().await;
            }
        });
    }
}
