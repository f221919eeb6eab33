//! The near side of a link: opened for a local caller, to a gateway of another cluster.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::time::timeout_at;

use crate::cluster::Current;
use crate::cluster::link::{LinkError, LinkStream};
use crate::cluster::preamble::{self, Preamble};
use crate::cluster::reply::{Code, Refusal};
use crate::model::app::AppId;
use crate::model::client::Client;
use crate::model::ending::{Alert, Ending};
use crate::proxy_protocol::Addresses;
use crate::routing::table::Via;
use crate::telemetry::links::Direction;
use crate::telemetry::metrics::Metrics;

use super::super::dial::{self, Failed, Patience, Shown};
use super::super::hello;
use super::super::id::ConnectionId;
use super::super::incoming::Incoming;
use super::super::refuse::Refused;
use super::Leg;

/// A link that is not there by then will not be: two round trips and a signature on each side. The caller's next cluster is to have
/// its turn while the caller still waits.
const LINK_TIME: Duration = Duration::from_millis(500);

/// On whose behalf a link may be opened, and what goes over it first.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Caller<'a> {
    pub(in crate::proxy) links: &'a Current,
    pub(in crate::proxy) metrics: &'a Metrics,
    pub(in crate::proxy) incoming: &'a Incoming,
    pub(in crate::proxy) client: &'a Client,
    /// Where the client connected to, as far as a PROXY header has told.
    pub(in crate::proxy) announced: Option<Addresses>,
    pub(in crate::proxy) app: Option<&'a AppId>,
    pub(in crate::proxy) id: ConnectionId,
}

/// Opens a link and asks for the app: accepted, it leads to the app's endpoint, which has got what the client has sent so far.
/// `others`: there are more candidates, which are to have their turn if the far side does not find the app within the time of one
/// connect.
pub(in crate::proxy) async fn reach(
    caller: Caller<'_>,
    via: &Via,
    address: SocketAddr,
    patience: Patience,
    others: bool,
) -> Result<Leg, Failed> {
    let until = patience.at_most(LINK_TIME);
    let Ok(opened) = timeout_at(until, open(caller, via, address)).await else {
        let failed = failed(via, address, "no link in time", patience.shown(until));
        return Err(failed.without_link());
    };
    let mut stream = opened.map_err(Failed::without_link)?;
    let first = first(caller)?;
    // Of plain bytes none has been sent.
    let received = caller.incoming.received();
    let again = caller.incoming.is_plain() || hello::is_hello_alone(received);
    let elsewhere = others && again;
    let until = if elsewhere { patience.at_most(patience.each) } else { patience.deadline };
    match timeout_at(until, stream.ask(&first)).await {
        Ok(Ok(())) => Ok(Leg::Link(stream)),
        Ok(Err(error)) => Err(unanswered(caller, via, address, &error, again)),
        Err(_elapsed) => {
            // The far gateway has linked, so it lives: it waits for the app.
            let failed = failed(via, address, "no reply in time", Shown::Nothing);
            Err(Failed { last: !elsewhere, ..failed })
        }
    }
}

async fn open(caller: Caller<'_>, via: &Via, address: SocketAddr) -> Result<LinkStream, Failed> {
    // The preamble goes first, inside TLS.
    let connected = dial::connect(address, &[], &mut 0).await;
    let socket = connected.map_err(|error| Failed::connect(address, &error))?;
    let Some(links) = caller.links.load() else {
        return Err(failed(via, address, "there are no links any more", Shown::Nothing));
    };
    let opened = links.open(socket, &via.cluster, via.name.as_str()).await;
    opened.map_err(|error| not_linked(caller.metrics, via, address, &error))
}

/// The preamble and what the client has said so far.
fn first(caller: Caller<'_>) -> Result<Vec<u8>, Failed> {
    let own = caller.incoming.ends();
    let own = own.map_err(|error| Failed::at_once(Refused::gone(&error)))?;
    let destination = caller.announced.map_or(own.destination, |announced| announced.destination);
    let preamble = Preamble {
        ends: Addresses { source: caller.client.source, destination },
        unique_id: caller.id.text().to_vec(),
        app: caller.app.cloned(),
        traceparent: None,
        plain: caller.incoming.is_plain(),
    };
    let mut first = preamble::encode(&preamble);
    // Plain bytes may be a call that must not run twice: they wait for an endpoint.
    if !preamble.plain {
        first.extend_from_slice(caller.incoming.received());
    }
    Ok(first)
}

/// No reply, or a refusal. What the client has sent may go elsewhere if nothing of it has reached an endpoint, or if that is a
/// hello and no more: a handshake that begins twice is what TLS allows for, and early data is what must not run twice.
fn unanswered(
    caller: Caller<'_>,
    via: &Via,
    address: SocketAddr,
    error: &LinkError,
    again: bool,
) -> Failed {
    match error {
        LinkError::Refused(refusal) => by_far(via, refusal),
        LinkError::Alert(_) => not_linked(caller.metrics, via, address, error),
        LinkError::NotConfigured(_)
        | LinkError::Name(_)
        | LinkError::Certificate(_)
        | LinkError::Tls(_)
        | LinkError::NoLink
        | LinkError::Preamble(_)
        | LinkError::Reply(_)
        | LinkError::Broken(_) => {
            let failed = not_linked(caller.metrics, via, address, error);
            Failed { last: !again, ..failed }
        }
    }
}

/// Neither of the two gateways has passed on a byte.
fn not_linked(metrics: &Metrics, via: &Via, address: SocketAddr, error: &LinkError) -> Failed {
    match error {
        // A gateway that does not know the name takes the link for a client's connection, and answers it as one.
        LinkError::Alert(AlertDescription::UnrecognisedName | AlertDescription::AccessDenied) => {
            by_far(via, &Refusal::new(Code::UnknownName, ""))
        }
        LinkError::Broken(error) => failed(via, address, &error.to_string(), Shown::Failure),
        LinkError::NotConfigured(_)
        | LinkError::Name(_)
        | LinkError::Certificate(_)
        | LinkError::Alert(_)
        | LinkError::Tls(_)
        | LinkError::NoLink
        | LinkError::Preamble(_)
        | LinkError::Reply(_)
        | LinkError::Refused(_) => {
            metrics.links.refused(Direction::Out, error.label());
            let refused = super::refused(error);
            let reason = format!("{}, {address}: {}", via.cluster, refused.reason);
            let refused = Refused { reason: reason.into(), ..refused };
            Failed { refused, shown: Shown::Failure, last: false }
        }
    }
}

/// The far gateway is well, and does not carry the call.
fn by_far(via: &Via, refusal: &Refusal) -> Failed {
    let ending = match refusal.code {
        Code::Certificate => Ending::LinkRefused,
        Code::Denied
        | Code::UnknownName
        | Code::NoHealthyEndpoint
        | Code::ConnectFailed
        | Code::Overloaded
        | Code::Draining
        | Code::BadPreamble
        | Code::Internal
        | Code::Other(_) => Ending::RefusedByFar,
    };
    let refused = Refused::new(ending, format!("{}: {refusal}", via.cluster));
    let alert = match refusal.code {
        Code::Denied | Code::UnknownName => refused.alert,
        Code::NoHealthyEndpoint
        | Code::ConnectFailed
        | Code::Overloaded
        | Code::Draining
        | Code::BadPreamble
        | Code::Certificate
        | Code::Internal
        | Code::Other(_) => Some(Alert::InternalError),
    };
    Failed { refused: Refused { alert, ..refused }, shown: Shown::Answer, last: !refusal.another }
}

fn failed(via: &Via, address: SocketAddr, what: &str, shown: Shown) -> Failed {
    let reason = format!("{}, {address}: {what}", via.cluster);
    Failed { refused: Refused::new(Ending::ConnectFailed, reason), shown, last: false }
}
