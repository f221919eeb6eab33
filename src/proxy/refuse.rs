//! Refusing a connection so that the other side learns why.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::model::ending::{Alert, Ending};
use crate::reactor::Socket;
use crate::routing::table::Refusal;

use super::admission::Limit;
use super::buffer;
use super::hello::HelloError;
use super::link::{Leg, far};
use super::places::Places;

/// Most that is discarded of one: a hello's remainder with early data behind it (RFC 8446 §4.2.10 leaves the size to servers,
/// which allow 16 KiB as a rule).
const DISCARD_BYTES: usize = 64 * 1024;
/// How long: a round trip or a few, so that the alert is there before the close.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// The same of a client that has had all the time of `limits.helloTimeout`, and is told nothing that could be lost.
const DISCARD_TIME_OF_LATE: Duration = Duration::from_millis(200);

/// Why a connection is refused, for both sides of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) ending: Ending,
    /// What the client is told.
    pub(super) alert: Option<Alert>,
    /// What the operator is told.
    pub(super) reason: Cow<'static, str>,
    /// What the operator may do.
    pub(super) hint: Option<&'static str>,
    /// The limit that was reached.
    pub(super) limit: Option<Limit>,
    /// The rule that decided, for another gateway; empty where none did.
    pub(super) rule: Arc<str>,
}

impl Refused {
    /// With the ending's own alert and hint.
    pub(super) fn new(ending: Ending, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            ending,
            alert: alert(ending),
            reason: reason.into(),
            hint: hint(ending),
            limit: None,
            rule: Arc::default(),
        }
    }

    /// Over one of the limits, before a hello was read: nothing in TLS can be said yet.
    pub(super) fn over(limit: Limit) -> Self {
        Self { alert: None, ..Self::overloaded(limit, limit.reason()) }
    }

    /// Over one of the limits, with a hello that can be answered.
    pub(super) fn overloaded(limit: Limit, reason: impl Into<Cow<'static, str>>) -> Self {
        let refused = Self::new(Ending::Overloaded, reason);
        Self { hint: Some(limit.hint()), limit: Some(limit), ..refused }
    }

    /// The client has broken the connection.
    pub(super) fn gone(error: &io::Error) -> Self {
        Self::new(Ending::ClientGone, error.to_string())
    }

    /// No hello before the deadline. No alert fits: nothing is wrong with what came so far.
    pub(super) fn late() -> Self {
        Self::new(Ending::HelloTimeout, "no whole hello within limits.helloTimeout")
    }

    /// Bytes that are no acceptable hello.
    pub(super) fn hello(error: HelloError) -> Self {
        let refused = Self::new(error.ending(), error.to_string());
        let limit = matches!(error, HelloError::OverLimit(_)).then_some(Limit::HelloBytes);
        Self { alert: error.alert(), hint: error.hint().or(refused.hint), limit, ..refused }
    }

    /// Bytes that are no TLS, for an app whose import does not say that they are carried. No alert: nobody would read one.
    pub(super) fn plain(start: &[u8]) -> Self {
        let refused = Self::hello(HelloError::plain(start));
        let hint = "this sidecar runs without mTLS: switch it on for the caller (a sentry must run), or write `plaintext: true` at the \
                    import, for endpoints of this cluster; nothing but the network protects it then";
        Self { alert: None, hint: Some(hint), ..refused }
    }

    /// Before its endpoint was connected, the gateway or the address had to end it.
    pub(super) fn cut(is_revoked: bool) -> Self {
        if is_revoked {
            return Self::new(Ending::Revoked, "its name or egress address is to be another app's");
        }
        Self::new(Ending::Drained, "the gateway stops")
    }

    /// Plain bytes on a link, to an app whose export does not take them.
    pub(super) fn plain_by_link(label: &str) -> Self {
        let rule = format!("the export of {label}, which takes no plain bytes");
        let refused = Self::new(Ending::Denied, "plain bytes, and the export takes only TLS");
        let hint = "write `plaintext: true` at the export as well, if both sidecars run without mTLS; the link is then all that protects \
                    the call";
        Self { hint: Some(hint), rule: rule.into(), ..refused }
    }

    /// A name that leads nowhere, or not for this client.
    pub(super) fn decision(refusal: &Refusal) -> Self {
        let refused = Self::new(refusal.ending(), refusal.why.to_string());
        let decided = refusal.label.as_ref().filter(|_| refusal.ending() == Ending::Denied);
        let rule =
            decided.map_or_else(String::new, |label| format!("the export of {label}")).into();
        let hint = refusal.hint().or(refused.hint);
        Self { alert: Some(refusal.alert()), rule, hint, ..refused }
    }
}

/// Says why, in TLS where the client speaks it, and closes so that this arrives: a close with unread bytes would send a RST,
/// which makes the client's kernel drop what it has not read yet.
/// Of no more than `most` at a time it is waited for.
pub(super) async fn close(leg: Leg, refused: &Refused, discarding: &Places, most: usize) {
    // Nobody is there to be told, or the whole gateway goes.
    if matches!(refused.ending, Ending::ClientGone | Ending::Drained | Ending::Revoked) {
        return;
    }
    // Where descriptors are what is missing, the one that it has is given back at once.
    let waits = refused.limit != Some(Limit::Descriptors) && most > 0;
    let place = if waits { discarding.take(most) } else { None };
    let goodbye = async {
        let Some(mut socket) = told(leg, refused).await? else { return Ok(()) };
        socket.shutdown().await?;
        if place.is_some() {
            buffer::discard(&mut socket, DISCARD_BYTES).await
        } else {
            discard_queued(&socket)
        }
    };
    let late = refused.ending == Ending::HelloTimeout;
    // A timeout or an error: it is closed all the same.
    let _ = timeout(if late { DISCARD_TIME_OF_LATE } else { DISCARD_TIME }, goodbye).await;
}

/// Tells the client what it can be told, in its own words, and gives its socket back.
async fn told(leg: Leg, refused: &Refused) -> io::Result<Option<Socket>> {
    match (leg, refused.alert) {
        (Leg::Plain(mut socket), Some(alert)) => {
            socket.write_all(&alert_record(alert)).await?;
            Ok(Some(socket))
        }
        (Leg::Plain(socket), None) => Ok(Some(socket)),
        (Leg::Link(stream), _) => Ok(Some(far::refuse(stream, refused).await)),
        (Leg::Inside(_) | Leg::Lent, _) => Ok(None),
    }
}

/// A fatal alert (RFC 8446 §6) in a record whose version every TLS client takes before a version is agreed on (§5.1).
fn alert_record(alert: Alert) -> [u8; 7] {
    [0x15, 0x03, 0x03, 0, 2, 2, alert as u8]
}

/// Takes away what has come by now: mostly that is the whole hello, and the close is as clean as one that was waited for.
fn discard_queued(socket: &Socket) -> io::Result<()> {
    buffer::with(|buffer| socket.try_read(buffer)).map(drop)
}

/// The alert of an ending that says it all; parser and table know better for some.
fn alert(ending: Ending) -> Option<Alert> {
    match ending {
        Ending::LinkRefused
        | Ending::NoHealthyEndpoint
        | Ending::ConnectFailed
        | Ending::Overloaded
        | Ending::Loop
        | Ending::Internal => Some(Alert::InternalError),
        Ending::MalformedHello => Some(Alert::DecodeError),
        Ending::NoServerName => Some(Alert::MissingExtension),
        Ending::UnknownName | Ending::Denied => Some(Alert::UnrecognizedName),
        // Only clients of this cluster get so far, and they may know what there is.
        Ending::UnknownCaller | Ending::RefusedByFar => Some(Alert::AccessDenied),
        Ending::Completed
        | Ending::ClientGone
        | Ending::BadProxyHeader
        | Ending::HelloTimeout
        | Ending::NotTls
        | Ending::ResetByClient
        | Ending::ResetByEndpoint
        | Ending::IdleTimeout
        | Ending::Drained
        | Ending::Revoked => None,
    }
}

/// What an operator may do about an ending, in words of Dapr's world.
pub(super) fn hint(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::BadProxyHeader => Some(
            "the listener's proxyProtocol.from says that this peer sends a PROXY header first: switch it on at the load balancer, \
             or take its network out of the list",
        ),
        Ending::HelloTimeout => Some(
            "something connects and sends no TLS hello within limits.helloTimeout: a health check that holds its connection, or \
             a path whose MTU loses the hello's second segment",
        ),
        Ending::NotTls => Some(
            "this listener is for sidecars' mTLS: look at the record's client for a health check, a scanner, or somebody who means \
             another port",
        ),
        Ending::MalformedHello => Some(
            "no daprd sends such a hello: look at the record's client for a scanner, at its name resolver for what it puts into \
             names, or on the way to it for what changes bytes",
        ),
        Ending::NoServerName => {
            Some("let the callers resolve with nameformat, sqlite or consul, to names")
        }
        Ending::UnknownName => Some(
            "an app has a route once it is exported or named under routes; `strait explain NAME` tells what comes close",
        ),
        Ending::UnknownCaller => Some(
            "an import asks which app calls: `from` under `apps` says which networks are an app's, and no address may be of two. \
             Behind NAT all callers have one address",
        ),
        Ending::Denied => Some("`strait explain NAME --from ADDRESS` tells which rules there are"),
        Ending::RefusedByFar => Some(
            "both sides must agree: the other cluster's `exports` has to admit this cluster, and where it lists apps, this app",
        ),
        Ending::LinkRefused => Some(
            "look at the certificates of both gateways: issuer, dates, and spiffe://TRUST-DOMAIN/cluster/NAME as their only URI",
        ),
        Ending::NoHealthyEndpoint => Some(
            "every endpoint is down, ejected or not resolved: `strait explain NAME` and /status tell which",
        ),
        Ending::ConnectFailed => Some(
            "nothing answers at the endpoints: an endpoint is daprd's internal gRPC port, 50002 on Kubernetes, \
             --dapr-internal-grpc-port elsewhere",
        ),
        Ending::Loop => Some(
            "an endpoint of the route leads back to this gateway: give the sidecar's own address",
        ),
        Ending::Overloaded => Some(
            "raise the limit if this load is meant to be, or look which peers hold the connections",
        ),
        Ending::Internal => Some("a fault of the gateway: please report the lines around this one"),
        Ending::Completed
        | Ending::ClientGone
        | Ending::ResetByClient
        | Ending::ResetByEndpoint
        | Ending::IdleTimeout
        | Ending::Drained
        | Ending::Revoked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_tells_the_operator_what_to_do() {
        let refusals = Ending::ALL.into_iter().filter(|ending| ending.is_refusal());
        assert_eq!(refusals.clone().count(), 15);
        assert!(refusals.clone().all(|ending| hint(ending).is_some()));
        assert!(
            !Ending::ALL.into_iter().any(|ending| !ending.is_refusal() && hint(ending).is_some())
        );
    }
}
