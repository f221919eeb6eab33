//! The far side of a link: taken off, judged, answered.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::cluster::link::{Arrived, LinkError, LinkStream, Unaccepted};
use crate::cluster::reply::{Code, Refusal};
use crate::cluster::{ALPN, Links};
use crate::model::client::{Client, Linked};
use crate::model::cluster::{exchange_name, is_own_name};
use crate::model::ending::Ending;
use crate::model::name::CanonicalName;
use crate::routing::table::Table;
use crate::telemetry::links::Direction;

use super::super::Shared;
use super::super::hello;
use super::super::id::ConnectionId;
use super::super::incoming::Incoming;
use super::super::record::Record;
use super::super::refuse::Refused;
use super::Leg;

/// Who the client is: itself, or, if what has come is a link, whoever its preamble names. From then on `incoming` is the link's inside.
pub(in crate::proxy) async fn unwrap(
    shared: &Shared,
    incoming: &mut Incoming,
    name: &CanonicalName,
    client: Client,
    deadline: Instant,
    record: &mut Record,
) -> Result<Client, Refused> {
    match asked(shared, incoming, name) {
        None => Ok(client),
        // On the heap: whoever comes without a link does not keep the room of a handshake.
        Some(links) => Box::pin(accept(shared, &links, incoming, client, deadline, record)).await,
    }
}

/// What to accept with, if a link is what comes: for that protocol alone, and for a name that is exported, or that of the exchange. All
/// else goes by its name.
fn asked(shared: &Shared, incoming: &Incoming, name: &CanonicalName) -> Option<Arc<Links>> {
    let is_link = shared.links.is_on() && hello::offers_only(incoming.received(), ALPN);
    let for_us = is_link && {
        let table = &shared.live.load().table;
        table.exports(name.as_str()) || is_exchange(table, name)
    };
    if for_us { shared.links.load() } else { None }
}

fn is_exchange(table: &Table, name: &CanonicalName) -> bool {
    is_own_name(name.as_str()) && exchange_name(table.cluster()) == name.as_str()
}

/// The cluster that asks what is exported to it, if that is what a link has come for.
pub(in crate::proxy) fn asking(
    shared: &Shared,
    client: &Client,
    name: &CanonicalName,
) -> Option<Arc<str>> {
    let linked = client.link.as_ref()?;
    is_exchange(&shared.live.load().table, name).then(|| Arc::clone(&linked.cluster))
}

async fn accept(
    shared: &Shared,
    links: &Links,
    incoming: &mut Incoming,
    client: Client,
    deadline: Instant,
    record: &mut Record,
) -> Result<Client, Refused> {
    let Some((socket, received)) = incoming.lend() else {
        return Err(Refused::new(Ending::Internal, "the connection is in use"));
    };
    let arrived = timeout_at(deadline, links.accept(socket, received)).await;
    let Arrived { stream, cluster, preamble } = match arrived {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(Unaccepted { error, socket })) => {
            incoming.leg = Leg::Plain(socket);
            return Err(unaccepted(shared, &error));
        }
        Err(_elapsed) => {
            shared.metrics.links.refused(Direction::In, "late");
            let reason = "no whole link with its preamble within limits.helloTimeout";
            return Err(Refused::new(Ending::HelloTimeout, reason));
        }
    };
    incoming.leg = Leg::Link(stream);
    if preamble.plain {
        incoming.is_said_to_be_plain();
    }
    record.held.link = Some(shared.metrics.links.open(&cluster, Direction::In));
    if let Some(id) = ConnectionId::parse(&preamble.unique_id) {
        record.adopt(id);
    }
    let linked = Linked { cluster, app: preamble.app };
    let client = Client { source: preamble.ends.source, link: Some(Arc::new(linked)), ..client };
    record.client(client.clone());
    if !preamble.plain {
        // The near gateway has sent them with the preamble. Only they show whether it tells the truth.
        let first = timeout_at(deadline, incoming.first());
        first.await.unwrap_or_else(|_| Err(Refused::late()))?;
    }
    Ok(client)
}

/// The other gateway has been told what TLS or a reply can tell.
fn unaccepted(shared: &Shared, error: &LinkError) -> Refused {
    if let LinkError::Broken(error) = error {
        return Refused::gone(error);
    }
    shared.metrics.links.refused(Direction::In, error.label());
    Refused { alert: None, ..super::refused(error) }
}

/// Tells the near gateway that an endpoint is there.
pub(in crate::proxy) async fn accepted(leg: &mut Leg) -> Result<(), Refused> {
    match leg {
        Leg::Plain(_) | Leg::Inside(_) | Leg::Lent => Ok(()),
        Leg::Link(stream) => stream.accept().await.map_err(|error| Refused::gone(&error)),
    }
}

/// Tells the near gateway why not. The socket is left to be read until the other side is done.
pub(in crate::proxy) async fn refuse(
    stream: LinkStream,
    refused: &Refused,
) -> crate::reactor::Socket {
    stream.refuse(Refusal::new(code(refused.ending), Arc::clone(&refused.rule))).await
}

fn code(ending: Ending) -> Code {
    match ending {
        Ending::Denied | Ending::UnknownCaller => Code::Denied,
        Ending::UnknownName => Code::UnknownName,
        Ending::NoHealthyEndpoint => Code::NoHealthyEndpoint,
        Ending::ConnectFailed | Ending::RefusedByFar | Ending::LinkRefused => Code::ConnectFailed,
        Ending::Overloaded => Code::Overloaded,
        Ending::Drained | Ending::Revoked => Code::Draining,
        Ending::HelloTimeout => Code::BadPreamble,
        Ending::Completed
        | Ending::ClientGone
        | Ending::BadProxyHeader
        | Ending::NotTls
        | Ending::MalformedHello
        | Ending::NoServerName
        | Ending::ResetByClient
        | Ending::ResetByEndpoint
        | Ending::IdleTimeout
        | Ending::Loop
        | Ending::Internal => Code::Internal,
    }
}
