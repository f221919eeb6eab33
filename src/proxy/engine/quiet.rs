//! Quiet close: ends connections between two calls, seen from their byte counters alone.
//!
//! A sidecar never ends its connections by itself, and one that is cut during a call has the call repeated, also one that must
//! not run twice. So who wants a connection elsewhere (a drain, `limits.maxAge`, an import's `failback`) waits until it carries nothing but pings, and
//! closes it then: the caller makes a new one for its next call.
//!
//! **Order.** The kernel is asked last whether anything has come that no event has told of yet; then the connection is not quiet
//! after all. Else both sides get a FIN,
//! the client first, and from then on *nothing is passed on any more*. The client's next call may be on its way already, and its
//! answer could not be carried, because an HTTP/2 client that reads the end of the stream gives up all its calls. Passed on, the
//! call would run, and be repeated. Not passed on, it has never run, and whoever repeats it runs it once. FIN to the endpoint alone
//! would save no call: the window in which one is lost would grow by the endpoint's round trip. The sockets stay for a moment in
//! which what still comes is read away, as closing with bytes unread would send a RST after the FIN, and a RST can take with it
//! what the client has not read yet.
//!
//! **What bytes cannot tell.** A call that has been sent and is not answered yet is silent too. A connection counts as quiet only if
//! what moved last, pings apart, came from the endpoint, which keeps a slow call safe that is alone on its connection; behind
//! other calls' answers, or the session tickets of a handshake, it cannot be seen. `quietClose: false` is for routes with such calls.

use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use crate::reactor::{Token, Turn};

use super::super::relay::{Broken, has_something};
use super::{End, Engine, Pair, TICK};

/// Octets in one direction that are no call. A ping and its acknowledgement are frames of 17 octets each (RFC 9113 §6.7), in TLS
/// records of 38 to 46, and the same in both directions; the smallest answer of a gRPC server, all of whose header fields are
/// indexed, has a few more than 57.
const PINGS_WORTH: u64 = 64;

/// Octets of the client's since an answer that may still be no call: a ping of its own and the acknowledgement of the server's, in a
/// TLS record each.
const CALLS_WORTH: u64 = 80;
/// Octets of the endpoint's in one turn that can only be an answer. When a call has come a gRPC server may at once send two window
/// updates, acknowledged settings, a ping that measures the path and the acknowledgement of one: 69 octets (RFC 9113 §6) in up to
/// two TLS records of 22 more each. Calls answered with less are not seen to be over: their connections stay until the deadline.
const ANSWERS_WORTH: u64 = 128;

/// From one look at the counters to the next while connections are to be closed. What is quiet is known as exactly.
pub(in crate::proxy) const LOOK: Duration = Duration::from_millis(250);
/// Looks without a call until a connection is quiet: a second.
const QUIET_LOOKS: u32 = 4;
/// Looks until a connection that has got its FINs is closed in any case. The answer to a FIN takes a round trip; the goodbye of
/// refused connections is given as much.
pub(in crate::proxy) const LAST_LOOKS: u32 = 4;

/// A herd that grew old together is closed over this part of `maxAge`, and the ages at which connections are closed are spread as far:
/// gRPC's servers, too, take from 90 % to 110 % (gRFC A9).
const AGE_SPREAD: f64 = 0.2;

/// What is to be closed, as of now.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::proxy) struct Wanted {
    /// All connections, by then.
    pub(in crate::proxy) drained_by: Option<Instant>,
    /// Those that are older; zero for none.
    pub(in crate::proxy) max_age: Duration,
    /// Those that are revoked, once this has changed.
    pub(in crate::proxy) revocations: u64,
    /// Those whose endpoint does not answer in time: so long it takes for one that begins now; zero for none.
    pub(in crate::proxy) patience: Duration,
}

/// What is remembered of a pair between two looks.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Watch {
    /// Counters at the last look at which both sides had moved the same.
    up: u64,
    down: u64,
    /// The look at which more than a ping had moved.
    since: u32,
    /// The last that moved and was more than a ping came from the client: no answer since.
    asked: bool,
    /// Octets of the client's since the last answer, balanced pings apart.
    sent: u64,
    /// Only pings have moved since, and each has been acknowledged.
    balanced: bool,
    /// When it is closed in any case; it has got its FINs.
    leaving: Option<u32>,
}

impl Wanted {
    /// Until the next look, if no answer is due before: where nothing is to be closed only the clock is kept.
    pub(super) fn rest(&self) -> Duration {
        if self.drained_by.is_some() || !self.max_age.is_zero() {
            return LOOK;
        }
        if self.patience.is_zero() { TICK } else { TICK.min(self.patience) }
    }
}

impl Watch {
    pub(in crate::proxy) fn new(look: u32) -> Self {
        Self { since: look, asked: true, ..Self::default() }
    }

    /// A turn moved so many octets. A call may come in several small ones: they add up, until an answer or a balanced look.
    ///
    /// Between two looks an answer and the next call may both have moved, and counters do not tell in which order. A turn that moved
    /// both leaves a call open: its answer, if it was that, ends the next one.
    pub(in crate::proxy) fn moved(&mut self, up: u64, down: u64) {
        self.sent = self.sent.saturating_add(up);
        if up > 0 && self.sent > CALLS_WORTH {
            self.asked = true;
        } else if down > ANSWERS_WORTH {
            (self.asked, self.sent) = (false, 0);
        }
    }

    /// Looks at the counters.
    pub(in crate::proxy) fn note(&mut self, up: u64, down: u64, look: u32) {
        let (came_up, came_down) = (up.saturating_sub(self.up), down.saturating_sub(self.down));
        if came_up > PINGS_WORTH || came_down > PINGS_WORTH {
            *self = Self { up, down, since: look, balanced: true, ..*self };
            return;
        }
        // A ping that is under way is waited for; a call as small as one is never answered with exactly as much.
        self.balanced = came_up == came_down;
        if self.balanced {
            (self.up, self.down) = (up, down);
            self.sent = 0;
        }
    }

    /// Whether it carries no call, as far as its counters tell.
    pub(in crate::proxy) fn is_quiet(&self, look: u32) -> bool {
        let long_enough = look.wrapping_sub(self.since) >= QUIET_LOOKS;
        !self.asked && self.balanced && long_enough && self.leaving.is_none()
    }

    /// Whether it has got its FINs.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether it has had its FINs for long enough.
    pub(super) fn is_over(&self, look: u32) -> bool {
        self.leaving.is_some_and(|until| until <= look)
    }
}

impl Engine {
    /// The pairs that are to be closed at this look.
    pub(super) fn due(&mut self, wanted: Wanted, look: u32) -> Vec<Token> {
        let mut due = self.due_back(look);
        if let Some(by) = wanted.drained_by {
            let left =
                by.saturating_duration_since(Instant::now()).saturating_sub(LOOK * LAST_LOOKS);
            due.extend(self.choose(look, rounds(left), |_, _| true));
        }
        if !wanted.max_age.is_zero() {
            let limit = wanted.max_age.as_secs_f64();
            let now = self.now;
            let is_old = |token, pair: &Pair| {
                f64::from(now.saturating_sub(pair.born)) > limit * aged(share(token))
            };
            due.extend(self.choose(look, rounds(wanted.max_age.mul_f64(AGE_SPREAD)), is_old));
        }
        due
    }

    /// The quiet ones that may go back to where they should rather be.
    fn due_back(&mut self, look: u32) -> Vec<Token> {
        let mut due = Vec::new();
        for (token, pair) in (0..).zip(&mut self.pairs) {
            let Some(pair) = pair.as_mut().filter(|pair| pair.away) else { continue };
            pair.quiet.note(pair.up.bytes, pair.down.bytes, look);
            let quiet = pair.quiet.is_quiet(look) && !pair.up.holds() && !pair.down.holds();
            if quiet && pair.finish.is_due_back(share(token)) {
                due.push(token);
            }
        }
        due
    }

    /// Looks at all pairs and takes those of the chosen that are quiet, the longest quiet first: as many as it takes to be through with all
    /// of the chosen within so many looks.
    fn choose(
        &mut self,
        look: u32,
        looks: u32,
        chosen: impl Fn(Token, &Pair) -> bool,
    ) -> Vec<Token> {
        let mut all = 0_usize;
        let mut quiet = Vec::new();
        for (token, pair) in (0..).zip(&mut self.pairs) {
            let Some(pair) = pair else { continue };
            pair.quiet.note(pair.up.bytes, pair.down.bytes, look);
            if !pair.may_leave || pair.quiet.is_leaving() || !chosen(token, pair) {
                continue;
            }
            all += 1;
            if pair.quiet.is_quiet(look) && !pair.up.holds() && !pair.down.holds() {
                quiet.push((look.wrapping_sub(pair.quiet.since), token));
            }
        }
        let share = all.div_ceil(usize::try_from(looks.max(1)).unwrap_or(usize::MAX));
        quiet.sort_unstable_by(|one, other| other.cmp(one));
        quiet.into_iter().take(share).map(|(_, token)| token).collect()
    }

    /// Closes a quiet pair, unless something has come since its counters were read, which an event will tell. Err: it is over.
    pub(super) fn leave(&mut self, token: Token, look: u32) -> Result<(), End> {
        let pair = self.pairs.get_mut(token as usize).and_then(Option::as_mut);
        let Some(pair) = pair else { return Ok(()) };
        if has_something(&pair.client) || has_something(&pair.endpoint) {
            return Ok(());
        }
        let say = |side: &_, end| rustix::net::shutdown(side, Shutdown::Write).map_err(|_| end);
        say(&pair.client, End::ResetByClient)?;
        say(&pair.endpoint, End::ResetByEndpoint)?;
        pair.quiet.leaving = Some(look.saturating_add(LAST_LOOKS));
        Ok(())
    }
}

impl Pair {
    /// The turn of a pair that has got its FINs: it is over once both sides have answered with theirs.
    pub(super) fn part(&mut self) -> Result<Turn, End> {
        match (self.up.discard(&self.client), self.down.discard(&self.endpoint)) {
            (Ok(Turn::Again), Ok(_)) | (Ok(_), Ok(Turn::Again)) => Ok(Turn::Again),
            (Ok(Turn::Done), Ok(Turn::Done)) if !(self.up.ended && self.down.ended) => {
                Ok(Turn::Done)
            }
            // Whichever way the far ends go now, it was we who closed.
            (Ok(Turn::Done), Ok(Turn::Done))
            | (Err(Broken::From | Broken::To), _)
            | (_, Err(Broken::From | Broken::To)) => Err(End::Quiet),
        }
    }
}

/// Looks in a time, at least one.
fn rounds(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / LOOK.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// From 0 to 1; no two neighbours have the same.
pub(in crate::proxy) fn share(token: Token) -> f64 {
    // Multiplicative hashing (Knuth, The Art of Computer Programming 3, §6.4) with the golden ratio's share of 2^32.
    f64::from(token.wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX)
}

/// The part of the limit at which a connection with this share is old: about all of it.
pub(in crate::proxy) fn aged(share: f64) -> f64 {
    1.0 + AGE_SPREAD * (share - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that is established, with one call answered at look 0.
    fn established() -> Watch {
        let mut watch = Watch::new(0);
        watch.moved(2000, 0);
        watch.moved(0, 4000);
        watch.note(2000, 4000, 0);
        watch
    }

    #[test]
    fn a_second_without_a_byte_after_an_answer_is_quiet() {
        let mut watch = established();
        for look in 1..QUIET_LOOKS {
            watch.note(2000, 4000, look);
            assert!(!watch.is_quiet(look));
        }
        watch.note(2000, 4000, QUIET_LOOKS);
        assert!(watch.is_quiet(QUIET_LOOKS));
    }

    #[test]
    fn pings_do_not_end_the_quiet_however_many() {
        let mut watch = established();
        for ping in 1..100_u32 {
            let octets = u64::from(ping) * 39;
            // A look between the ping and its acknowledgement, and one behind it.
            watch.note(2000 + octets, 4000 + octets - 39, 40 * ping);
            assert!(!watch.is_quiet(40 * ping), "the acknowledgement is due");
            watch.note(2000 + octets, 4000 + octets, 40 * ping + 1);
            assert!(watch.is_quiet(40 * ping + 1));
        }
    }

    #[test]
    fn a_call_without_an_answer_is_not_quiet_however_long_it_takes() {
        let mut watch = established();
        watch.moved(200, 0);
        watch.note(2200, 4000, 1);
        watch.moved(39, 0);
        watch.moved(0, 39);
        watch.note(2239, 4039, 50);
        assert!(!watch.is_quiet(1000), "a ping is no answer");
        watch.moved(0, 161);
        watch.note(2239, 4200, 1000);
        assert!(!watch.is_quiet(1001));
        assert!(watch.is_quiet(1000 + QUIET_LOOKS));
    }

    #[test]
    fn a_call_that_follows_an_answer_within_one_look_is_not_quiet() {
        let mut watch = established();
        for (up, down) in [(200, 0), (0, 160), (200, 0), (0, 39), (39, 0), (0, 113)] {
            watch.moved(up, down);
        }
        watch.note(2439, 4312, 1);
        assert!(!watch.is_quiet(100), "it waits for its answer");
        watch.moved(0, 160);
        watch.note(2439, 4472, 100);
        assert!(watch.is_quiet(100 + QUIET_LOOKS));
    }

    #[test]
    fn a_call_as_small_as_a_ping_is_not_quiet() {
        let mut watch = established();
        watch.note(2064, 4000, 1);
        assert!(!watch.is_quiet(100), "under way");
        watch.note(2064, 4060, 100);
        assert!(!watch.is_quiet(200), "no ping is answered with less");
    }

    #[test]
    fn ages_are_spread_around_the_limit() {
        let shares: Vec<_> = (0..1000).map(|token| aged(share(token)) - 1.0).collect();
        assert!(shares.iter().all(|share| share.abs() <= AGE_SPREAD / 2.0));
        let below = shares.iter().filter(|share| **share < 0.0).count();
        assert!((450..550).contains(&below), "{below}");
        assert_eq!(rounds(Duration::ZERO), 1);
        assert_eq!(rounds(Duration::from_secs(25)), 100);
    }
}
