//! The life of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::{Limits, Settings};
use crate::model::client::Client;
use crate::model::ending::Ending;
use crate::model::name::CanonicalName;
use crate::proxy_protocol::{self, Addresses};
use crate::reactor::{Socket, Watched};
use crate::routing::table::Decision;
use crate::socket;

use super::Shared;
use super::admission::Limit;
use super::asked::{asked, decide};
use super::core::Core;
use super::dial::{self, Dial, Dialled};
use super::engine;
use super::id::ConnectionId;
use super::incoming::Incoming;
use super::link::{Leg, far, near};
use super::listener::Listening;
use super::record::Record;
use super::refuse::{self, Refused};
use super::relay::{End, Leaving, Relay, Terms};

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

/// A connection whose endpoint is connected.
struct Joined {
    endpoint: Leg,
    /// What the endpoint gets first: our own header and what the client has sent.
    preface: Bytes,
    header: usize,
    /// Octets of the client's that the endpoint has got already, over a link.
    sent: usize,
    counters: (IntCounter, IntCounter),
    idle: Duration,
    may_leave: bool,
    dial: Dial,
}

/// Serves one connection to its end.
pub(super) async fn serve(core: Arc<Core>, listening: Arc<Listening>, accepted: Accepted) {
    let shared = &*core.shared;
    let Accepted { socket, peer, at, settings, open } = accepted;
    let (told, heard) = (Arc::clone(&core.shared), Arc::clone(&listening));
    // On the heap, where it stays when the engine takes it over.
    let mut record = Box::new(Record::new(told, heard, peer, at, &settings));
    let mut incoming = Incoming::new(socket, peer);
    let joined = tokio::select! {
        biased;
        joined = join(shared, &listening, &mut incoming, &settings.limits, at, &mut record) => joined,
        () = listening.cut(&core).cancelled() => Err(Refused::cut(listening.is_revoked())),
    };
    match joined {
        Ok(joined) => {
            record.held.open = Some(open);
            carry(&core, &listening, incoming.leg, joined, record).await;
        }
        Err(refused) => {
            record.refused(&refused, incoming.spoke());
            // Gone before the goodbye, which takes up to a second and decides nothing.
            drop(record);
            let most = shared.admission.descriptors.most_discarding();
            tokio::select! {
                biased;
                () = refuse::close(incoming.leg, &refused, &shared.discarding, most) => {}
                () = core.cut.cancelled() => {}
            }
            drop(open);
        }
    }
}

/// From accept to a connected endpoint: PROXY header, hello, link, route, policy, dial.
async fn join(
    shared: &Shared,
    listening: &Listening,
    incoming: &mut Incoming,
    limits: &Limits,
    accepted: Instant,
    record: &mut Record,
) -> Result<Joined, Refused> {
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
    let Decision { route, side, .. } = &decision;
    let counters = record.route(&route.label);
    let dial = shared.dialling.enter(asked.random().unwrap_or_else(|| record.id().random()))?;
    let dialled = connect(shared, incoming, &decision, &client, announced, &settings, record);
    let endpoint = dialled.await?;
    far::accepted(&mut incoming.leg).await?;

    let mut front = Vec::new();
    if let Some(name) = asked.name().filter(|_| route.send_proxy) {
        front = header(announced, incoming, name, record.id())?;
    }
    let (preface, sent) = incoming.preface(&front, &endpoint);
    let idle = settings.limits.idle_timeout;
    let (header, may_leave) = (front.len(), route.closes_quietly(*side));
    Ok(Joined { endpoint, preface, header, sent, counters, idle, may_leave, dial })
}

/// A link on which another gateway asks what is exported to it.
async fn inquire(
    shared: &Shared,
    incoming: &mut Incoming,
    cluster: Arc<str>,
    dial: Dial,
    record: &mut Record,
) -> Result<Joined, Refused> {
    let endpoint = far::inquire(shared, cluster)?;
    // It carries no connection, and there are few: neither links nor places of callers are counted down for it.
    (record.held.link, record.held.permit) = (None, None);
    let counters = record.route(&EXCHANGE.into());
    far::accepted(&mut incoming.leg).await?;
    let settings = shared.live.load();
    let idle = settings.settings.limits.idle_timeout;
    let (preface, header, sent) = (Bytes::new(), 0, 0);
    Ok(Joined { endpoint, preface, header, sent, counters, idle, may_leave: false, dial })
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
    name: &CanonicalName,
    id: ConnectionId,
) -> Result<Vec<u8>, Refused> {
    let ends = match announced {
        Some(announced) => announced,
        None => incoming.ends().map_err(|error| Refused::gone(&error))?,
    };
    Ok(proxy_protocol::encode(ends.source, ends.destination, name.as_str(), &id.text()))
}

/// Dials, and notes where that has led.
async fn connect(
    shared: &Shared,
    incoming: &Incoming,
    decision: &Decision,
    client: &Client,
    announced: Option<Addresses>,
    settings: &Settings,
    record: &mut Record,
) -> Result<Leg, Refused> {
    let Decision { route, side, caller, .. } = decision;
    record.caller(caller.clone());
    let caller = near::Caller {
        links: &shared.links,
        metrics: &shared.metrics,
        incoming,
        client,
        announced,
        app: caller.as_ref(),
        id: record.id(),
    };
    let dialled = dial::dial(route, *side, &settings.limits, caller, record.attempts()).await;
    // Whoever speaks no TLS understands no alert.
    let untold = |refused| Refused { alert: None, ..refused };
    let dialled =
        dialled.map_err(|refused| if incoming.is_plain() { untold(refused) } else { refused });
    let Dialled { leg, cluster, load } = dialled?;
    if leg.socket().is_none_or(|socket| shared.admission.descriptors.are_scarce(socket)) {
        let limit = Limit::Descriptors;
        return Err(Refused::overloaded(limit, limit.reason()));
    }
    record.connected(load);
    if let Some(cluster) = cluster {
        record.linked(&cluster);
    }
    Ok(leg)
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
    let Joined { endpoint, preface, header, sent, counters, idle, may_leave, dial } = joined;
    match watched(client, endpoint) {
        Ok((client, endpoint)) => {
            let finish = record;
            let connection = engine::Connection {
                client,
                endpoint,
                preface,
                header,
                counters,
                idle,
                may_leave,
                dial,
                finish,
            };
            engine::carry(connection, stop).await;
        }
        Err((client, endpoint)) => {
            // Fails only on a socket that is broken already, which the relay finds out. The client's is inherited.
            let _ = endpoint.socket().map(socket::keep_alive);
            let shared = &*core.shared;
            let wanted = || shared.wanted();
            let drain = &shared.draining;
            let leaving = may_leave.then_some(Leaving { wanted: &wanted, drain });
            let (up, down) = counters;
            let terms = Terms { up, down, idle, stop, leaving };
            // On the heap: a task must not keep the room for it where the engine carries.
            let relay = Box::pin(relay((client, endpoint), (preface, header, sent), dial, terms));
            let (end, up, down) = relay.await;
            record.relayed(end, up, down);
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

/// Copies to the end; how it ended, and the bytes up and down.
async fn relay(
    (mut client, mut endpoint): (Leg, Leg),
    (preface, header, sent): (Bytes, usize, usize),
    dial: Dial,
    terms: Terms<'_>,
) -> (End, u64, u64) {
    let mut relay = Relay::new(&mut client, &mut endpoint, preface, header, terms);
    relay.has_sent(sent);
    let end = relay.until_answer().await;
    // The endpoint has answered: it is none of our own listeners, which would have sent the hello back to us.
    drop(dial);
    let end = match end {
        Some(end) => end,
        None => relay.until_end().await,
    };
    (end, relay.bytes_up(), relay.bytes_down())
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
