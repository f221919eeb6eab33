//! Quiet close of a relay: judged as the engine judges its pairs, and closed in the same order.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::buffer;
use super::super::engine::quiet::{LAST_LOOKS, LOOK, Wanted, Watch, aged, share};
use super::{End, Relay, Stream};

/// Asks what is to be closed, and hears of it.
#[derive(Clone, Copy)]
pub(crate) struct Leaving<'a> {
    /// What is to be closed, as of now.
    pub(crate) wanted: &'a (dyn Fn() -> Wanted + Sync),
    /// Cancelled when all connections are.
    pub(crate) drain: &'a CancellationToken,
    /// Asks with its share whether it is due elsewhere; `None` for one that is where it should be.
    pub(crate) back: Option<&'a (dyn Fn(f64) -> bool + Sync)>,
}

/// How often one that should rather be elsewhere is looked at, as the engine does with its pairs.
const BACK: Duration = Duration::from_secs(1);

thread_local! {
    /// Relays of this core that may be closed when they are quiet.
    static RELAYS: Cell<u32> = const { Cell::new(0) };
}

/// What is remembered of a relay that may be closed when it is quiet.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    leaving: Leaving<'a>,
    watch: Watch,
    born: Instant,
    /// The last look.
    look: u32,
    /// From 0 to 1: its place among those that are to be closed with it.
    share: f64,
    /// All connections are to be closed.
    draining: bool,
    /// When this one's turn comes.
    due: Option<Instant>,
    /// Nothing is looked at before that.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> Leave<'a> {
    pub(super) fn new(leaving: Leaving<'a>, born: Instant) -> Self {
        RELAYS.set(RELAYS.get().saturating_add(1));
        let random = RandomState::new().hash_one(0);
        let mut leave = Self {
            leaving,
            watch: Watch::new(0),
            born,
            look: 0,
            share: share(u32::try_from(random >> 32).unwrap_or_default()),
            draining: false,
            due: None,
            timer: None,
        };
        leave.plan(born);
        leave
    }

    /// Cancelled when all connections are to be closed.
    pub(super) fn drain(&self) -> &'a CancellationToken {
        self.leaving.drain
    }

    /// Bytes moved. What the counters were before is looked at first, if that has not happened since they changed: so that pings and
    /// their acknowledgements, which are balanced then, do not add up to a call, and an idle relay needs no timer for it.
    pub(super) fn moved(&mut self, before: (u64, u64), after: (u64, u64), now: Instant) {
        let look = self.look_at(now);
        if look != self.look {
            self.look = look;
            self.watch.note(before.0, before.1, look);
            // The limit may have changed.
            self.plan(now);
        }
        self.watch.moved(after.0 - before.0, after.1 - before.1);
    }

    /// When it is to be closed, if it is. Those that are to be closed in a drain are spread over the time that there is for it, and
    /// those that are old over a part of their age.
    fn plan(&mut self, now: Instant) {
        let Wanted { drained_by, max_age, .. } = (self.leaving.wanted)();
        let old = (!max_age.is_zero()).then(|| self.born + max_age.mul_f64(aged(self.share)));
        let drained = drained_by.map(|by| {
            let left =
                by.saturating_duration_since(now.into_std()).saturating_sub(LOOK * LAST_LOOKS);
            // Few are through at once: one of a core at each look, as in the engine.
            let needed = LOOK * RELAYS.get();
            now + left.min(needed).mul_f64(self.share)
        });
        let due = match (old, drained) {
            (Some(old), Some(drained)) => Some(old.min(drained)),
            (due, None) | (None, due) => due,
        };
        // The first turn counts: a drain that is planned again with every byte would never come.
        self.due = match (self.due, due) {
            (Some(first), Some(due)) => Some(first.min(due)),
            (_, due) => due,
        };
        if self.due.is_none() {
            self.timer = None;
        }
    }

    fn look_at(&self, now: Instant) -> u32 {
        let looks = now.duration_since(self.born).as_millis() / LOOK.as_millis();
        u32::try_from(looks).unwrap_or(u32::MAX)
    }

    /// Whether it is quiet and its turn has come.
    fn poll(&mut self, context: &mut Context<'_>, counters: (u64, u64)) -> bool {
        let first = self.due.or_else(|| self.leaving.back.map(|_| Instant::now() + BACK));
        let Some(first) = first else { return false };
        let mut timer = self.timer.take().unwrap_or_else(|| Box::pin(sleep_until(first)));
        let mut quiet = false;
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            self.look = self.look_at(now);
            self.watch.note(counters.0, counters.1, self.look);
            let due = self.due.is_some_and(|due| due <= now);
            quiet = self.watch.is_quiet(self.look)
                && (due || self.leaving.back.is_some_and(|back| back(self.share)));
            timer.as_mut().reset(now + if self.due.is_some() { LOOK } else { BACK });
        }
        self.timer = Some(timer);
        quiet
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        RELAYS.set(RELAYS.get().saturating_sub(1));
    }
}

impl fmt::Debug for Leaving<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Leaving").field(&(self.wanted)()).finish()
    }
}

impl<C: Stream, E: Stream> Relay<'_, C, E> {
    /// Whether it is to be closed now: it is quiet, and nothing has come since that no event has told of yet.
    pub(super) fn poll_leave(
        &mut self,
        context: &mut Context<'_>,
        drain: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let Some(leave) = &mut self.leave else { return false };
        if !leave.draining && drain.poll(context).is_ready() {
            leave.draining = true;
            leave.plan(Instant::now());
        }
        let quiet = leave.poll(context, (self.up.bytes, self.down.bytes));
        let holds = self.up.is_unread() || self.down.is_unread();
        quiet && !holds && !self.client.has_something() && !self.endpoint.has_something()
    }

    /// Sends both ends, the client's first, and reads away for a moment what still comes: `engine::quiet` says why.
    pub(super) async fn part(&mut self) -> End {
        let Self { client, endpoint, stop, .. } = self;
        let most = usize::MAX;
        let farewell = async {
            client.shutdown().await?;
            endpoint.shutdown().await?;
            tokio::try_join!(buffer::discard(client, most), buffer::discard(endpoint, most))
        };
        // Whichever way the far ends go now, it was we who closed.
        tokio::select! {
            biased;
            _ = timeout(LOOK * LAST_LOOKS, farewell) => {}
            () = stop.cancelled() => {}
        }
        End::Quiet
    }
}
