//! Established plain pairs: a state machine over two slots of the core's own set, without a task.
//!
//! A pair that waits holds two descriptors, their slots and what its record has to tell; no buffer, no future, no timer. Bytes
//! go through the thread's one buffer, or through a pipe once more comes than one read takes.

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::reactor::{Socket, Token, Turn, Watched};
use crate::socket;

use super::awaited::Awaited;
use super::relay::{Broken, End};

mod flow;
mod pipes;
pub(super) mod quiet;
#[cfg(test)]
mod tests;

use flow::Flow;
use pipes::Pipes;
pub(super) use quiet::Wanted;
use quiet::Watch;

/// How exactly the idle limit is kept. It is 15 s at least, and looking at all pairs once a second costs less than a timer each.
/// A core that ticks at all has a further use: see [`attend`].
const TICK: Duration = Duration::from_secs(1);

/// Not sooner than that after the last look: each goes over all pairs. Answers are as much too late at most.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// When an endpoint's keepalive is set, in seconds: it probes a minute of silence at the earliest, and most connections of who
/// does not pool them are over by then, which spares them four system calls. The client's is inherited from the listener.
const PROBED_AFTER: u32 = 30;

thread_local! {
    static ENGINE: RefCell<Engine> = RefCell::default();
}

/// What a pair came to.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) end: End,
    /// Bytes that came from the client.
    pub(super) up: u64,
    /// Bytes that came from the endpoint.
    pub(super) down: u64,
}

/// Who is told once, when the pair has ended. Dropped untold with the thread.
pub(super) trait Finish {
    fn finish(self: Box<Self>, carried: Carried);

    /// The endpoint has not answered, and the client, who has heard nothing of it, is given back.
    fn unanswered(self: Box<Self>, carried: Carried, client: Socket, awaited: Box<Awaited>);

    /// Whether what the connection should rather be at has been well for so long that it may go there: all with a share of 0 may
    /// before one with a share of 1.
    fn is_due_back(&self, share: f64) -> bool;

    /// Whether the pair is to end now.
    fn is_revoked(&self) -> bool {
        false
    }
}

/// A connection to be carried.
pub(super) struct Connection {
    pub(super) client: Watched,
    pub(super) endpoint: Watched,
    /// What the endpoint gets first.
    pub(super) preface: Bytes,
    /// Octets that the client has said already, and which are counted.
    pub(super) said: usize,
    /// Count bytes up and down from now on, while they come.
    pub(super) counters: (IntCounter, IntCounter),
    /// Ends it when no byte came for so long.
    pub(super) idle: Duration,
    /// Whether it may be closed between two calls.
    pub(super) may_leave: bool,
    /// It is not where it should rather be.
    pub(super) away: bool,
    /// Let go with the endpoint's first byte.
    pub(super) awaited: Box<Awaited>,
    pub(super) finish: Box<dyn Finish>,
}

/// Carries a connection on this core from now on. Once the future is done the pair is the engine's alone, to end with `stop` as
/// all. No `async fn`, so that the future, which is a part of every connection's task, holds nothing but the token.
pub(super) fn carry(
    connection: Connection,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let token = if stop.is_cancelled() {
        // The engine has been emptied.
        Pair::new(connection, 0, 0).finish(End::Stopped);
        None
    } else {
        Some(ENGINE.with_borrow_mut(|engine| engine.insert(connection)))
    };
    async move {
        // What came before the hand-over brings no event: this is its turn.
        while token.map(turn) == Some(Turn::Again) {
            tokio::task::yield_now().await;
        }
    }
}

/// A pair's turn: one of its sockets has an event, or the last turn was cut.
pub(super) fn turn(token: Token) -> Turn {
    let turn = || ENGINE.with_borrow_mut(|engine| engine.turn(token));
    // A pair has no task whose panic Tokio would hold: a fault of ours must cost this connection, not all of the core's.
    let over = match catch_unwind(turn) {
        Ok(Ok(turn)) => return turn,
        Ok(Err(over)) => over,
        Err(_panic) => End::Fault,
    };
    end(token, over);
    Turn::Done
}

/// Ends pairs that are idle too long, those that are [`Wanted`] closed when they are quiet, and all when `stop` is cancelled; runs as
/// long as the core does.
///
/// Its tick has a second use. Tokio wakes the thread that moves timers for one that is earlier than all others, as the first
/// deadline of each connection would be on a core that is not busy; behind this tick none of them is.
pub(super) async fn attend(
    stop: CancellationToken,
    mut revocations: watch::Receiver<u64>,
    wanted: impl Fn() -> Wanted,
) {
    let started = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
            // What is revoked is not to live until the next tick.
            Ok(()) = revocations.changed() => {}
        }
        let wanted = wanted();
        advance(started.elapsed(), wanted);
        let due = ENGINE.with_borrow(Engine::next_due);
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let rest = due.map_or(wanted.rest(), |due| due.min(wanted.rest()));
        ticks.reset_after(rest.max(LEAST_TICK));
    }
    for token in ENGINE.with_borrow(|engine| engine.tokens(|_| true)) {
        end(token, End::Stopped);
    }
}

/// Notes the time since the core started and ends what is due.
fn advance(elapsed: Duration, wanted: Wanted) {
    let clock = |unit: Duration| u32::try_from(elapsed.as_millis() / unit.as_millis());
    let [now, look] = [TICK, quiet::LOOK].map(|unit| clock(unit).unwrap_or(u32::MAX));
    for (over, tokens) in ENGINE.with_borrow_mut(|engine| engine.advance(now, look)) {
        for token in tokens {
            end(token, over);
        }
    }
    for token in ENGINE.with_borrow_mut(|engine| engine.revoked(wanted.revocations)) {
        end(token, End::Stopped);
    }
    for token in ENGINE.with_borrow_mut(|engine| engine.due(wanted, look)) {
        if let Err(over) = ENGINE.with_borrow_mut(|engine| engine.leave(token, look)) {
            end(token, over);
        }
    }
}

/// Takes a pair out and tells, with the engine not borrowed any more: who is told may use it.
fn end(token: Token, end: End) {
    let pair = ENGINE.with_borrow_mut(|engine| engine.remove(token));
    if let Some(pair) = pair {
        pair.finish(end);
    }
}

/// Drops what is left, before the thread's other values go.
pub(super) fn clear() {
    drop(ENGINE.take());
}

/// The pairs of one thread.
#[derive(Default)]
struct Engine {
    pairs: Vec<Option<Box<Pair>>>,
    free: Vec<Token>,
    pipes: Pipes,
    /// Seconds since the core started, as of the last tick; and in looks.
    now: u32,
    look: u32,
    /// Revocations that have been seen to.
    revocations: u64,
}

/// Two sides and what goes between them.
struct Pair {
    client: Watched,
    endpoint: Watched,
    up: Flow,
    down: Flow,
    /// When the last byte came, and the limit, in seconds.
    moved: u32,
    idle: u32,
    /// When the endpoint's keepalive is due, unless it is set.
    probed: Option<u32>,
    /// When it began, in seconds.
    born: u32,
    may_leave: bool,
    away: bool,
    quiet: Watch,
    finish: Box<dyn Finish>,
}

impl Engine {
    fn insert(&mut self, connection: Connection) -> Token {
        let pair = Box::new(Pair::new(connection, self.now, self.look));
        let free = self.free.pop();
        let token = free.unwrap_or_else(|| u32::try_from(self.pairs.len()).unwrap_or(u32::MAX));
        pair.client.hand_over(token);
        pair.endpoint.hand_over(token);
        match self.pairs.get_mut(token as usize) {
            Some(place) => *place = Some(pair),
            None => self.pairs.push(Some(pair)),
        }
        token
    }

    /// Err: the pair is over.
    fn turn(&mut self, token: Token) -> Result<Turn, End> {
        // None: it ended in the same batch of events.
        let pair = self.pairs.get_mut(token as usize).and_then(Option::as_mut);
        pair.map_or(Ok(Turn::Done), |pair| pair.turn(self.now, &mut self.pipes))
    }

    /// Notes the time, and closes pipes that rest; the pairs that were idle too long, whose endpoint has not answered for too long, and
    /// that have been leaving for long enough.
    fn advance(&mut self, now: u32, look: u32) -> [(End, Vec<Token>); 3] {
        let last = self.now;
        (self.now, self.look) = (now, look);
        self.pipes.rest();
        for pair in self.pairs.iter_mut().flatten() {
            pair.probe(now);
            // Whether the last call was answered is remembered in case that the pair is to be closed some day. Those where nothing
            // moved, which are most, are not touched for it.
            if pair.moved >= last {
                pair.quiet.note(pair.up.bytes, pair.down.bytes, look);
            }
        }
        let idle = self.tokens(|pair| now.saturating_sub(pair.moved) > pair.idle);
        let late = Instant::now();
        let silent = self.tokens(|pair| pair.due().is_some_and(|due| due <= late));
        let over = self.tokens(|pair| pair.quiet.is_over(look));
        [(End::Idle, idle), (End::Silent, silent), (End::Quiet, over)]
    }

    /// The pairs that are to end at once; looked for only when there may be some.
    fn revoked(&mut self, revocations: u64) -> Vec<Token> {
        if std::mem::replace(&mut self.revocations, revocations) == revocations {
            return Vec::new();
        }
        self.tokens(|pair| pair.finish.is_revoked())
    }

    /// When the next of the answers that are waited for has to be there.
    fn next_due(&self) -> Option<Instant> {
        self.pairs.iter().flatten().filter_map(|pair| pair.due()).min()
    }

    fn tokens(&self, which: impl Fn(&Pair) -> bool) -> Vec<Token> {
        let pairs = (0..).zip(&self.pairs);
        let which = |pair: &Option<Box<Pair>>| pair.as_deref().is_some_and(&which);
        pairs.filter(|(_, pair)| which(pair)).map(|(token, _)| token).collect()
    }

    fn remove(&mut self, token: Token) -> Option<Box<Pair>> {
        let mut pair = self.pairs.get_mut(token as usize)?.take()?;
        self.free.push(token);
        pair.up.release(&mut self.pipes);
        pair.down.release(&mut self.pipes);
        Some(pair)
    }
}

impl Pair {
    fn new(connection: Connection, now: u32, look: u32) -> Self {
        let Connection { client, endpoint, preface, said, counters, .. } = connection;
        let Connection { idle, may_leave, away, awaited, finish, .. } = connection;
        let (up, down) = counters;
        Self {
            client,
            endpoint,
            up: Flow::up(up, preface, said),
            down: Flow::down(down, awaited),
            moved: now,
            // Rounded up: the limit is never cut short.
            idle: u32::try_from(idle.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
            probed: Some(now.saturating_add(PROBED_AFTER)),
            born: now,
            may_leave,
            away,
            quiet: Watch::new(look),
            finish,
        }
    }

    /// Moves what can be moved in both directions.
    fn turn(&mut self, now: u32, pipes: &mut Pipes) -> Result<Turn, End> {
        if self.quiet.is_leaving() {
            return self.part();
        }
        let (before_up, before_down) = (self.up.bytes, self.down.bytes);
        let Self { client, endpoint, up, down, .. } = self;
        let came_up = up.turn(client, endpoint, down.carried, pipes);
        // Also when the first one broke: what the broken side sent before still goes to the other.
        let came_down = down.turn(endpoint, client, up.carried, pipes);
        let (moved_up, moved_down) = (up.bytes - before_up, down.bytes - before_down);
        if moved_up + moved_down > 0 {
            self.moved = now;
            self.quiet.moved(moved_up, moved_down);
        }
        match (came_up, came_down) {
            (Err(Broken::From), _) | (Ok(_), Err(Broken::To)) => Err(End::ResetByClient),
            (Err(Broken::To), _) | (Ok(_), Err(Broken::From)) => Err(End::ResetByEndpoint),
            (Ok(_), Ok(_)) if up.carried && down.carried => Err(End::Finished),
            // No read would tell.
            (Ok(_), Ok(_)) if up.is_unread() && client.is_broken() => Err(End::ResetByClient),
            (Ok(_), Ok(_)) if down.is_unread() && endpoint.is_broken() => Err(End::ResetByEndpoint),
            (Ok(Turn::Done), Ok(Turn::Done)) => Ok(Turn::Done),
            (Ok(_), Ok(_)) => Ok(Turn::Again),
        }
    }

    /// Until when the endpoint has to answer.
    fn due(&self) -> Option<Instant> {
        self.down.awaited().and_then(Awaited::due)
    }

    fn probe(&mut self, now: u32) {
        if self.probed.take_if(|due| *due <= now).is_some() {
            // Fails only on a socket that is broken already.
            let _ = socket::keep_alive(&self.endpoint);
        }
    }

    /// Closes both sides and tells. A broken side breaks the other; every other end closes as usual.
    fn finish(self, end: End) {
        let Self { client, endpoint, up, mut down, finish, .. } = self;
        let carried = Carried { end, up: up.bytes, down: down.bytes };
        let awaited = down.take_awaited().filter(|_| !up.ended);
        if let Some(awaited) = awaited.filter(|awaited| awaited.is_failure(end)) {
            awaited.failed();
            if awaited.decides(end) {
                drop(endpoint);
                return finish.unanswered(carried, client.take_back(), awaited);
            }
        }
        // Fails only on a socket that is broken already.
        let _ = match end {
            End::ResetByClient => socket::reset_on_close(&endpoint),
            End::ResetByEndpoint => socket::reset_on_close(&client),
            End::Finished | End::Idle | End::Silent | End::Quiet | End::Stopped | End::Fault => {
                Ok(())
            }
        };
        drop((client, endpoint));
        finish.finish(carried);
    }
}
