//! The life of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use prometheus::IntCounter;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::{Limits, Settings};
use crate::model::client::Client;
use crate::model::ending::Ending;
use crate::proxy_protocol::{self, Addresses};
use crate::reactor::{self, Socket, Task, Watched};
use crate::routing::table::Decision;
use crate::socket;

use super::Shared;
use super::admission::Limit;
use super::asked::{asked, decide};
use super::awaited::{self, Awaited, Onward};
use super::core::Core;
use super::dial::{self, Dial, Dialled, Way};
use super::engine::{self, Carried};
use super::incoming::Incoming;
use super::link::{Leg, far, near};
use super::listener::Listening;
use super::record::Record;
use super::refuse::{self, Refused};
use super::relay::{End, Leaving, Relay, Terms};
use super::renamed;

/// A PROXY header comes in the first segment, or in that segment's retransmission: the protocol's specification (§2) asks
/// receivers to wait at least 3 s for that.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(3);

/// The metric label of links on which gateways ask each other.
pub(crate) const EXCHANGE: &str = "exchange";

/// A connection as it is accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: SocketAddr,
    pub(super) at: Instant,
    /// What applies until the name is known; then what the table was published with does.
    pub(super) settings: Arc<Settings>,
    /// It is open until this is dropped.
    pub(super) open: TaskTrackerToken,
}

/// An endpoint as it is connected.
struct Reached {
    endpoint: Leg,
    /// Octets that it has been sent of what the client has said.
    sent: usize,
    /// There are others that could be dialled.
    others: bool,
}

/// A connection whose endpoint is connected.
struct Joined {
    endpoint: Leg,
    /// What the endpoint gets first: our own header and what the client has sent, as far as it has not got that already.
    preface: Bytes,
    /// Octets that the client has said, and which are counted already.
    said: usize,
    /// Count bytes up and down from now on.
    counters: (IntCounter, IntCounter),
    idle: Duration,
    may_leave: bool,
    away: bool,
    awaited: Box<Awaited>,
}

/// Serves one connection to its end.
pub(super) async fn serve(core: Arc<Core>, listening: Arc<Listening>, accepted: Accepted) {
    let Accepted { socket, peer, at, settings, open } = accepted;
    let (told, heard) = (Arc::clone(&core.shared), Arc::clone(&listening));
    // On the heap, where it stays when the engine takes it over.
    let mut record = Box::new(Record::new(told, heard, peer, at, &settings));
    record.held.open = Some(open);
    let mut incoming = Incoming::new(socket, peer);
    let joined = tokio::select! {
        biased;
        joined = join(&core, &listening, &mut incoming, &settings.limits, at, &mut record) => joined,
        () = listening.cut(&core).cancelled() => Err(Refused::cut(listening.is_revoked())),
    };
    conclude(&core, &listening, incoming, joined, record).await;
}

/// Serves a connection to its end whose endpoint has not answered: another one gets the hello, or the client is told that there is
/// none.
pub(super) fn go_on(
    mut record: Box<Record>,
    client: Leg,
    awaited: Awaited,
    carried: &Carried,
) -> Task {
    let refused = awaited::unanswered(carried.end, &record.endpoint());
    let sent = carried.up;
    Box::pin(async move {
        let Awaited { dial, onward } = awaited;
        let Some(mut onward) = onward else { return };
        let (core, listening) = (Arc::clone(&onward.core), record.listening());
        let received = onward.again(sent);
        let may = received.is_some();
        let mut incoming = Incoming::again(client, record.peer(), received.unwrap_or_default());
        let joined = if may {
            onward.way.refused = refused;
            tokio::select! {
                biased;
                joined = reach(&core.shared, &mut incoming, dial, onward, &mut record) => joined,
                () = listening.cut(&core).cancelled() => Err(Refused::cut(listening.is_revoked())),
            }
        } else {
            Err(refused)
        };
        conclude(&core, &listening, incoming, joined, record).await;
    })
}

/// From a connected endpoint, or none, to the end.
async fn conclude(
    core: &Core,
    listening: &Listening,
    incoming: Incoming,
    joined: Result<Joined, Refused>,
    mut record: Box<Record>,
) {
    match joined {
        Ok(joined) => carry(core, listening, incoming.leg, joined, record).await,
        Err(refused) => {
            record.refused(&refused, incoming.spoke());
            let open = record.held.open.take();
            // Gone before the goodbye, which takes up to a second and decides nothing.
            drop(record);
            let shared = &core.shared;
            let most = shared.admission.descriptors.most_discarding();
            tokio::select! {
                biased;
                () = refuse::close(incoming.into_leg(), &refused, &shared.discarding, most) => {}
                () = core.cut.cancelled() => {}
            }
            drop(open);
        }
    }
}

/// From accept to a connected endpoint: PROXY header, hello, link, route, policy, dial.
async fn join(
    core: &Arc<Core>,
    listening: &Listening,
    incoming: &mut Incoming,
    limits: &Limits,
    accepted: Instant,
    record: &mut Record,
) -> Result<Joined, Refused> {
    let shared = &*core.shared;
    let mut entry = shared.admission.enter(&listening.open, incoming.leg.socket(), limits)?;
    let deadline = accepted + limits.hello_timeout;

    let header_deadline = deadline.min(accepted + PROXY_HEADER_TIME);
    let announced = announced(listening, incoming, header_deadline).await?;
    let source = announced.map_or(incoming.peer, |announced| announced.source);
    let client = Client { source, ..Client::direct(incoming.peer) };
    record.client(client.clone());
    shared.admission.admit(&mut entry, source, limits)?;

    let asked = timeout_at(deadline, asked(listening, incoming, limits.hello_bytes));
    let asked = asked.await.unwrap_or_else(|_| Err(Refused::late()))?;
    record.hello(asked.name());
    let client = match asked.name() {
        Some(name) => far::unwrap(shared, incoming, name, client, deadline, record).await?,
        None => client,
    };
    record.held.permit = Some(entry.heard());
    #[cfg(test)]
    asked.name().into_iter().for_each(super::tests::fault);

    if let Some(cluster) = asked.name().and_then(|name| far::asking(shared, &client, name)) {
        let dial = shared.dialling.enter(asked.random().unwrap_or_else(|| record.id().random()))?;
        return inquire(shared, incoming, cluster, dial, record).await;
    }
    let (decision, settings) = decide(shared, &asked, incoming, &client, record).await?;
    record.decided(&decision);
    record.route(&decision.route.label);
    let hold = asked.name().and_then(|name| decision.route.hold(name.as_str())).cloned();
    if let Some(hold) = hold.as_ref().filter(|hold| hold.has_others()) {
        // On the heap: hardly any name has ever been another app's.
        Box::pin(renamed::wait(shared, hold)).await?;
    }
    let dial = shared.dialling.enter(asked.random().unwrap_or_else(|| record.id().random()))?;
    let way = Way::new(decision, settings);
    let onward = Onward::new(Arc::clone(core), way, announced);
    let joined = reach(shared, incoming, dial, onward, record).await?;
    if let Some(hold) = hold {
        record.held.stay = Some(hold.enter().ok_or_else(|| Refused::cut(true))?);
    }
    // Here, and not where it is sent: another endpoint may get the same once more.
    joined.counters.0.inc_by(joined.said as u64);
    far::accepted(&mut incoming.leg).await?;
    Ok(joined)
}

/// From what has been said to an endpoint that is to get it.
async fn reach(
    shared: &Shared,
    incoming: &mut Incoming,
    dial: Dial,
    mut onward: Onward,
    record: &mut Record,
) -> Result<Joined, Refused> {
    let Reached { endpoint, sent, others } = connect(shared, incoming, &mut onward, record).await?;
    let decision = &onward.way.decision;
    let Decision { route, side, .. } = decision;
    let mut front = Vec::new();
    let is_linked = matches!(endpoint, Leg::Link(_));
    if route.send_proxy && !is_linked && !record.name().is_empty() {
        front = header(onward.announced, incoming, record)?;
    }
    let plain = incoming.is_plain();
    let opening = incoming.said(&front);
    let said = opening.of_client().len();
    let mut preface = Bytes::new();
    if sent < opening.bytes.len() && (plain || !is_linked) {
        preface = opening.bytes.clone();
        preface.advance(sent);
    }
    let idle = onward.way.settings.limits.idle_timeout;
    let may_leave = route.closes_quietly(*side);
    let away = record.is_away(decision);
    onward.said = others.then_some(opening);
    onward.asked();
    // Plain bytes may be meant to have no answer, and are never sent again.
    let onward = (!plain).then_some(onward);
    let awaited = Box::new(Awaited { dial, onward });
    let counters = counters(record)?;
    Ok(Joined { endpoint, preface, said, counters, idle, may_leave, away, awaited })
}

/// A link on which another gateway asks what is exported to it.
async fn inquire(
    shared: &Shared,
    incoming: &mut Incoming,
    cluster: Arc<str>,
    dial: Dial,
    record: &mut Record,
) -> Result<Joined, Refused> {
    let (endpoint, place) = shared.inquiries.enter(cluster)?;
    // It carries no connection: the places of callers are not for it, it has one of its cluster's.
    (record.held.permit, record.held.inquiry) = (None, Some(place));
    record.route(&EXCHANGE.into());
    let counters = counters(record)?;
    far::accepted(&mut incoming.leg).await?;
    let settings = shared.live.load();
    let idle = settings.settings.limits.idle_timeout;
    let (preface, said) = (Bytes::new(), 0);
    let awaited = Box::new(Awaited { dial, onward: None });
    let (may_leave, away) = (false, false);
    Ok(Joined { endpoint, preface, said, counters, idle, may_leave, away, awaited })
}

/// What its bytes are counted into.
fn counters(record: &Record) -> Result<(IntCounter, IntCounter), Refused> {
    record.counters().ok_or_else(|| Refused::new(Ending::Internal, "it has no route"))
}

/// What a PROXY header says of the connection's ends, where the listener expects one of this peer.
async fn announced(
    listening: &Listening,
    incoming: &mut Incoming,
    deadline: Instant,
) -> Result<Option<Addresses>, Refused> {
    if !listening.expects_header(incoming.peer) {
        return Ok(None);
    }
    let late = || Refused::new(Ending::BadProxyHeader, "no whole PROXY header in time");
    timeout_at(deadline, incoming.proxy_header()).await.unwrap_or_else(|_| Err(late()))
}

/// The header in front of the hello, for an endpoint that wants one.
fn header(
    announced: Option<Addresses>,
    incoming: &Incoming,
    record: &Record,
) -> Result<Vec<u8>, Refused> {
    let ends = match announced {
        Some(announced) => announced,
        None => incoming.ends().map_err(|error| Refused::gone(&error))?,
    };
    let id = record.id().text();
    Ok(proxy_protocol::encode(ends.source, ends.destination, record.name(), &id))
}

/// Dials, and notes where that has led.
async fn connect(
    shared: &Shared,
    incoming: &Incoming,
    onward: &mut Onward,
    record: &mut Record,
) -> Result<Reached, Refused> {
    let app = onward.way.decision.caller.clone();
    let client = record.who().clone();
    let caller = near::Caller {
        links: &shared.links,
        metrics: &shared.metrics,
        incoming,
        client: &client,
        announced: onward.announced,
        app: app.as_ref(),
        id: record.id(),
    };
    let dialled = dial::dial(&mut onward.way, caller, record.attempts()).await;
    // Whoever speaks no TLS understands no alert.
    let untold = |refused| Refused { alert: None, ..refused };
    let dialled =
        dialled.map_err(|refused| if incoming.is_plain() { untold(refused) } else { refused });
    let Dialled { leg, sent, cluster, load, others } = dialled?;
    if leg.socket().is_none_or(|socket| shared.admission.descriptors.are_scarce(socket)) {
        let limit = Limit::Descriptors;
        return Err(Refused::overloaded(limit, limit.reason()));
    }
    onward.endpoint = cluster.is_none().then(|| Arc::clone(load.endpoint()));
    record.connected(load);
    record.linked(cluster);
    Ok(Reached { endpoint: leg, sent, others })
}

/// From a connected endpoint to the end: by the engine, for which this task is not needed any more, or by the relay where the
/// sockets are not of the core's own set.
async fn carry(
    core: &Core,
    listening: &Listening,
    client: Leg,
    joined: Joined,
    mut record: Box<Record>,
) {
    let stop = listening.cut(core);
    if record.is_revoked() {
        // Since it was let in. Whoever ends those that are carried has not seen this one.
        return record.relayed(End::Stopped, 0, 0);
    }
    let Joined { endpoint, preface, said, counters, idle, may_leave, away, awaited } = joined;
    match watched(client, endpoint) {
        Ok((client, endpoint)) => {
            let finish = record;
            let connection = engine::Connection {
                client,
                endpoint,
                preface,
                said,
                counters,
                idle,
                may_leave,
                away,
                awaited,
                finish,
            };
            engine::carry(connection, stop).await;
        }
        Err((client, endpoint)) => {
            // Fails only on a socket that is broken already, which the relay finds out. The client's is inherited.
            let _ = endpoint.socket().map(socket::keep_alive);
            let sides = Sides { client, endpoint, preface, said, counters, idle };
            // On the heap: a task must not keep the room for it where the engine carries.
            Box::pin(relay((core, stop), sides, (may_leave, away), *awaited, record)).await;
        }
    }
}

/// Two sockets of the core's own set, or else what came.
fn watched(client: Leg, endpoint: Leg) -> Result<(Watched, Watched), (Leg, Leg)> {
    match (client, endpoint) {
        (Leg::Plain(client), Leg::Plain(endpoint)) => Socket::watched(client, endpoint)
            .map_err(|(client, endpoint)| (Leg::Plain(client), Leg::Plain(endpoint))),
        (client, endpoint) => Err((client, endpoint)),
    }
}

/// What a relay copies between.
struct Sides {
    client: Leg,
    endpoint: Leg,
    preface: Bytes,
    said: usize,
    counters: (IntCounter, IntCounter),
    idle: Duration,
}

/// Copies to the end.
async fn relay(
    (core, stop): (&Core, &CancellationToken),
    sides: Sides,
    (may_leave, away): (bool, bool),
    awaited: Awaited,
    mut record: Box<Record>,
) {
    let Sides { mut client, mut endpoint, preface, said, counters, idle } = sides;
    let shared = &*core.shared;
    let (wanted, due_back) = (|| shared.wanted(), |share| record.is_due_back(share));
    let back: &(dyn Fn(f64) -> bool + Sync) = &due_back;
    let leaving = Leaving { wanted: &wanted, drain: &shared.draining, back: away.then_some(back) };
    let leaving = may_leave.then_some(leaving);
    let (up, down) = counters;
    let terms = Terms { up, down, idle, stop, leaving };
    let mut relay = Relay::new(&mut client, &mut endpoint, preface, said, terms);
    let (end, unanswered) = tokio::select! {
        biased;
        over = relayed(&mut relay, awaited) => over,
        () = shared.revoked(&record) => (End::Stopped, None),
    };
    let carried = Carried { end, up: relay.bytes_up(), down: relay.bytes_down() };
    drop(relay);
    match unanswered {
        Some(awaited) => reactor::spawn(go_on(record, client, awaited, &carried)),
        None => record.relayed(carried.end, carried.up, carried.down),
    }
}

/// How it ended; with what was held for an answer that has not come, if the client is not to learn of that.
async fn relayed(relay: &mut Relay<'_, Leg, Leg>, awaited: Awaited) -> (End, Option<Awaited>) {
    if awaited.decides(End::ResetByEndpoint) {
        relay.must_answer();
    }
    let answer = relay.until_answer();
    let end = match awaited.due() {
        Some(due) => timeout_at(due, answer).await.unwrap_or(Some(End::Silent)),
        None => answer.await,
    };
    let failed = end.map_or(relay.bytes_down() == 0, |end| awaited.is_failure(end));
    let failed = failed && !relay.is_client_done();
    if failed {
        awaited.failed();
    }
    match end {
        Some(end) if failed && awaited.decides(end) => (end, Some(awaited)),
        Some(end) => {
            relay.close(end);
            (end, None)
        }
        None => {
            // The endpoint is none of our own listeners, which would have sent the hello back to us.
            if relay.bytes_down() > 0 {
                awaited.answered();
            } else {
                drop(awaited);
            }
            (relay.until_end().await, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn besides_its_bytes_a_pending_connection_holds_less_than_4_kib() {
        fn size_of_task<F: Future>(
            _: impl FnOnce(Arc<Core>, Arc<Listening>, Accepted) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let held = size_of_task(serve) + size_of::<Record>();
        assert!(held < 4000, "{held}");
    }
}
