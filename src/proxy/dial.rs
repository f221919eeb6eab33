//! From a route to a connected endpoint.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::config::{Limits, Settings};
use crate::model::ending::Ending;
use crate::reactor::Socket;
use crate::routing::balance::{Attempts, Tried};
use crate::routing::endpoint::{Endpoint, OpenConnection};
use crate::routing::table::{Candidate, Decision, Route};
use crate::socket::{self, Connect};

use super::admission::Limit;
use super::link::{Leg, near};
use super::refuse::Refused;

/// Where a connection may be led.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) decision: Decision,
    pub(super) settings: Arc<Settings>,
    /// What has been tried of it.
    pub(super) tried: Tried,
    /// What to say when nothing is left.
    pub(super) refused: Refused,
}

/// A connected endpoint.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) leg: Leg,
    /// Octets that it has been sent of what the client has said.
    pub(super) sent: usize,
    /// The cluster that it is in; `None` for this one.
    pub(super) cluster: Option<Arc<str>>,
    /// Counts as the endpoint's load until the connection ends.
    pub(super) load: OpenConnection,
    /// There are more that could be tried.
    pub(super) others: bool,
}

/// Why one candidate was not it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refused: Refused,
    pub(super) shown: Shown,
    /// No other may be tried.
    pub(super) last: bool,
}

/// What an attempt has shown of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// That it is well, whatever it said.
    Answer,
    /// That it is not.
    Failure,
    /// That it is a gateway which does not link: all callers of whatever lies behind it would wait for that.
    Loss,
    /// Nothing: it was this side's fault, or its time was too short.
    Nothing,
}

impl Way {
    pub(super) fn new(decision: Decision, settings: Arc<Settings>) -> Self {
        let refused = Refused::new(Ending::NoHealthyEndpoint, "no endpoint can be tried");
        Self { decision, settings, tried: Tried::default(), refused }
    }
}

/// Connects to one of a route's endpoints, the next one when one fails, each at most once. `attempts` counts them. What lies behind
/// another cluster's gateway is reached on behalf of the caller.
pub(super) async fn dial(
    way: &mut Way,
    caller: near::Caller<'_>,
    attempts: &mut u32,
) -> Result<Dialled, Refused> {
    let Way { decision, settings, tried, refused } = way;
    let Decision { route, .. } = &*decision;
    let Some(_permit) = route.dial_permit() else {
        return Err(Refused::overloaded(Limit::Dials, Limit::Dials.reason()));
    };
    let mut candidates = Attempts::beyond(route, decision.standing(), mem::take(tried));
    // What needs a header of ours in front of it waits, and so do bytes that are no TLS, until nothing more can go wrong here.
    let waits = route.send_proxy || caller.incoming.is_plain();
    let opening = if waits { &[] } else { caller.incoming.received() };
    let dialled = first(&mut candidates, &settings.limits, caller, opening, attempts).await;
    *tried = candidates.into_tried();
    dialled.map_err(|failed| failed.unwrap_or_else(|| nothing(route, refused)))
}

/// Why nothing is left to try: what was tried before, or else what stands in the way of the first that is configured.
fn nothing(route: &Route, before: &Refused) -> Refused {
    match route.absent.first() {
        Some((at, absence)) if before.ending == Ending::NoHealthyEndpoint => {
            let reason = format!("no endpoint can be tried; {at}: {absence}");
            Refused { reason: reason.into(), ..before.clone() }
        }
        Some(_) | None => before.clone(),
    }
}

/// The first that can be connected to, which gets `opening` as soon as it is, if that is at once. Err: why the last one cannot, if
/// there was any.
async fn first(
    candidates: &mut Attempts<'_>,
    limits: &Limits,
    caller: near::Caller<'_>,
    opening: &[u8],
    attempts: &mut u32,
) -> Result<Dialled, Option<Refused>> {
    let deadline = Instant::now() + limits.connect_total;
    let mut refused = None;
    while Instant::now() < deadline
        && let Some(Candidate { endpoint, via, .. }) = candidates.next()
    {
        *attempts += 1;
        let each = limits.connect_timeout;
        let patience = Patience { each, deadline, alone: *attempts == 1 };
        let (address, load) = (endpoint.address, endpoint.connection());
        let mut sent = 0;
        let tried = match via {
            None => plain(address, opening, patience, &mut sent).await,
            // On the heap: most callers' apps are no further than this.
            Some(via) => {
                let others = candidates.has_more();
                Box::pin(near::reach(caller, via, address, patience, others)).await
            }
        };
        note(endpoint, &tried);
        match tried {
            Ok(leg) => {
                let cluster = via.as_ref().map(|via| Arc::clone(&via.cluster));
                return Ok(Dialled { leg, sent, cluster, load, others: candidates.has_more() });
            }
            Err(failed) if failed.last || sent > 0 => return Err(Some(failed.refused)),
            Err(failed) => refused = Some(failed.refused),
        }
    }
    Err(refused)
}

/// What an attempt has shown of an endpoint. That of an endpoint itself is not over: it has yet to answer.
fn note(endpoint: &Endpoint, tried: &Result<Leg, Failed>) {
    match tried {
        Ok(Leg::Link(_)) | Err(Failed { shown: Shown::Answer, .. }) => endpoint.connected(),
        Ok(Leg::Plain(_) | Leg::Inside(_) | Leg::Lent)
        | Err(Failed { shown: Shown::Nothing, .. }) => {}
        Err(Failed { shown: Shown::Failure, .. }) => endpoint.failed(),
        Err(Failed { shown: Shown::Loss, .. }) => endpoint.lost(),
    }
}

/// The time that an attempt has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// `limits.connectTimeout`.
    pub(super) each: Duration,
    /// That of all attempts.
    pub(super) deadline: Instant,
    /// Nothing else was tried before, so that one for which the time is too short is to be blamed for it.
    pub(super) alone: bool,
}

impl Patience {
    /// Until when one may take that has so long by itself.
    pub(super) fn at_most(self, patience: Duration) -> Instant {
        self.deadline.min(Instant::now() + patience)
    }

    /// What it shows that nothing came until then. One that got only what the ones before it left has shown nothing.
    pub(super) fn shown(self, until: Instant) -> Shown {
        if self.alone || until < self.deadline { Shown::Failure } else { Shown::Nothing }
    }
}

async fn plain(
    address: SocketAddr,
    opening: &[u8],
    patience: Patience,
    sent: &mut usize,
) -> Result<Leg, Failed> {
    let until = patience.at_most(patience.each);
    match timeout_at(until, connect(address, opening, sent)).await {
        Ok(Ok(socket)) => Ok(Leg::Plain(socket)),
        Ok(Err(error)) => Err(Failed::connect(address, &error)),
        Err(_elapsed) => {
            let refused = failed(address, "no answer in time");
            Err(Failed { refused, shown: patience.shown(until), last: false })
        }
    }
}

impl Failed {
    /// No connection.
    pub(super) fn connect(address: SocketAddr, error: &io::Error) -> Self {
        // The next one may still do: source ports run out for one destination at a time, and a host without IPv6 has none for
        // the IPv6 addresses of a name.
        if socket::is_own_shortage(error) {
            return Self { refused: exhausted(address, error), shown: Shown::Nothing, last: false };
        }
        let refused = failed(address, &error.to_string());
        Self { refused, shown: Shown::Failure, last: false }
    }

    /// The same of a gateway that was to link.
    pub(super) fn without_link(self) -> Self {
        let shown = match self.shown {
            Shown::Failure => Shown::Loss,
            shown @ (Shown::Answer | Shown::Loss | Shown::Nothing) => shown,
        };
        Self { shown, ..self }
    }

    /// Nobody's fault but this connection's.
    pub(super) fn at_once(refused: Refused) -> Self {
        Self { refused, shown: Shown::Nothing, last: true }
    }
}

/// A connected socket. If it was connected at once, `sent` octets of `opening` have been sent to it, also when it is an error.
pub(super) async fn connect(
    address: SocketAddr,
    opening: &[u8],
    sent: &mut usize,
) -> io::Result<Socket> {
    let socket = match socket::connect(address, opening)? {
        Connect::Begun(stream) => Socket::connecting(stream).await?,
        Connect::Done(stream, so_much) => {
            *sent = so_much;
            Socket::from_std(stream)?
        }
    };
    // A port of this host that nobody listens at, but which the kernel took as the source port too: TCP lets a socket connect to
    // itself (RFC 9293 §3.5, simultaneous open), and daprd's 50002 is in the range that Linux takes source ports from.
    if address.ip().is_loopback() && socket.local_addr()? == address {
        *sent = 0;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

fn failed(address: SocketAddr, what: &str) -> Refused {
    Refused::new(Ending::ConnectFailed, format!("{address}: {what}"))
}

fn exhausted(address: SocketAddr, error: &io::Error) -> Refused {
    Refused::overloaded(Limit::Sockets, format!("no socket for {address}: {error}"))
}

/// Randoms of the hellos that are being dialled for. A plain loop, a route whose endpoint leads back to this gateway by an
/// address that it does not know as its own, brings the same hello again before any endpoint has answered.
///
/// By content, not by time: the same hello later, as a replay or a test sends it, is not a loop.
#[derive(Debug, Clone)]
pub(super) struct Dialling(Arc<[Mutex<HashSet<Random>>; SHARDS]>);

type Random = [u8; 32];

/// Enough that cores seldom meet at a lock.
const SHARDS: usize = 64;

/// One hello that is being dialled for, until this is dropped.
#[derive(Debug)]
pub(super) struct Dial {
    dialling: Dialling,
    random: Random,
}

impl Default for Dialling {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Mutex::default())))
    }
}

impl Dialling {
    /// Notes a hello; nothing when it is noted already.
    pub(super) fn enter(&self, random: Random) -> Result<Dial, Refused> {
        if self.shard(&random).insert(random) {
            Ok(Dial { dialling: self.clone(), random })
        } else {
            let reason = "the gateway is dialling an endpoint for this very hello";
            Err(Refused::new(Ending::Loop, reason))
        }
    }

    fn shard(&self, random: &Random) -> MutexGuard<'_, HashSet<Random>> {
        let [first, ..] = *random;
        let [shard, ..] = &*self.0;
        let shard = self.0.get(usize::from(first) % SHARDS).unwrap_or(shard);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.dialling.shard(&self.random).remove(&self.random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_a_loop_only_while_it_is_dialled_for() {
        let dialling = Dialling::default();
        let dial = dialling.enter([7; 32]).unwrap();
        assert_eq!(dialling.enter([7; 32]).unwrap_err().ending, Ending::Loop);
        assert!(dialling.enter([8; 32]).is_ok());
        drop(dial);
        assert!(dialling.enter([7; 32]).is_ok());
    }
}
