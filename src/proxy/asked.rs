//! What a connection asks for, and whether it gets it: by the name in its hello, or by the address that it came to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::Settings;
use crate::model::client::Client;
use crate::model::name::CanonicalName;
use crate::routing::table::{Decision, Refusal, Route};

use super::Shared;
use super::callers::with_user;
use super::hello::Hello;
use super::incoming::Incoming;
use super::listener::Listening;
use super::record::Record;
use super::refuse::Refused;

/// What a connection asks for.
#[expect(clippy::large_enum_variant, reason = "one for each connection, and most have a name")]
#[derive(Debug)]
pub(super) enum Asked {
    /// The app of a name.
    Name(Hello),
    /// The app that is listened for here. With the random of its hello, if it began with one.
    Address(SocketAddr, Option<[u8; 32]>),
}

impl Asked {
    pub(super) fn name(&self) -> Option<&CanonicalName> {
        match self {
            Self::Name(hello) => Some(&hello.name),
            Self::Address(..) => None,
        }
    }

    pub(super) fn random(&self) -> Option<[u8; 32]> {
        match self {
            Self::Name(hello) => Some(hello.random),
            Self::Address(_, random) => *random,
        }
    }
}

/// Reads what the connection begins with: where a name decides, that, and else only enough to know whether it is TLS, and whole.
pub(super) async fn asked(
    listening: &Listening,
    incoming: &mut Incoming,
    limit: usize,
) -> Result<Asked, Refused> {
    match &listening.tenure {
        None => incoming.hello(limit).await.map(Asked::Name),
        // Nothing is waited for: with many protocols, of databases and mail, the server speaks first.
        Some(tenure) if tenure.is_service => {
            incoming.is_said_to_be_plain();
            Ok(Asked::Address(tenure.bind, None))
        }
        Some(tenure) => {
            incoming.opening(limit).await.map(|random| Asked::Address(tenure.bind, random))
        }
    }
}

/// Decides, and once more where the names that stand for callers are to be asked for again first.
pub(super) async fn decide(
    shared: &Shared,
    asked: &Asked,
    incoming: &Incoming,
    client: &Client,
    record: &mut Record,
) -> Result<(Decision, Arc<Settings>), Refused> {
    let mut decided = decide_now(shared, asked, incoming, client, record);
    if let Err(refusal) = &mut decided
        && !refusal.hosts.is_empty()
    {
        let hosts = std::mem::take(&mut refusal.hosts);
        // On the heap: few connections need it.
        Box::pin(shared.callers.ask_again(hosts)).await;
        decided = decide_now(shared, asked, incoming, client, record);
    }
    if matches!(asked, Asked::Address(..)) {
        let is_known = match &decided {
            Ok((decision, _)) => decision.caller.is_some(),
            Err(refusal) => !refusal.is_of_unknown_caller(),
        };
        shared.callers.note(client, is_known);
    }
    let decided = decided.map_err(|refusal| refused(shared, &refusal, record));
    // Whoever speaks no TLS understands no alert.
    let (decision, settings) = decided.map_err(|refused| {
        if incoming.is_plain() { Refused { alert: None, ..refused } } else { refused }
    })?;
    if incoming.is_plain() {
        takes_plain(&decision.route, client, incoming)
            .inspect_err(|_| record.route(&decision.route.label))?;
    }
    Ok((decision, settings))
}

/// Whether a route takes what is no TLS: of a link by its export, else by its import.
fn takes_plain(route: &Route, client: &Client, incoming: &Incoming) -> Result<(), Refused> {
    match &client.link {
        Some(_) if route.plaintext => Ok(()),
        Some(_) => Err(Refused::plain_by_link(&route.label)),
        None if route.import.as_ref().is_some_and(|import| import.plaintext) => Ok(()),
        None => Err(Refused::plain(incoming.received())),
    }
}

/// The one load of what is in force. The table is let go with it: what goes on holds its route, and the settings that were
/// published with the table.
fn decide_now(
    shared: &Shared,
    asked: &Asked,
    incoming: &Incoming,
    client: &Client,
    record: &mut Record,
) -> Result<(Decision, Arc<Settings>), Refusal> {
    let generation = shared.live.load();
    record.settings(&generation.settings);
    let table = &generation.table;
    let known = table.knows_users().then(|| with_user(client, incoming.leg.socket()));
    let client = known.as_ref().unwrap_or(client);
    let decision = match asked {
        Asked::Name(hello) => table.decide(hello.name.as_str(), client),
        Asked::Address(bind, _) => table.decide_egress(*bind, client),
    };
    decision.map(|decision| (decision, Arc::clone(&generation.settings)))
}

fn refused(shared: &Shared, refusal: &Refusal, record: &mut Record) -> Refused {
    if let Some(label) = &refusal.label {
        record.route(label);
    }
    let refused = Refused::decision(refusal);
    let rewriting = shared.callers.rewriting();
    if !refusal.is_of_unknown_caller() || rewriting.is_empty() {
        return refused;
    }
    Refused { reason: format!("{}; {}", refused.reason, told(&rewriting)).into(), ..refused }
}

/// Where callers cannot be told apart.
pub(super) fn told(rewriting: &[IpAddr]) -> String {
    let addresses: Vec<_> = rewriting.iter().map(ToString::to_string).collect();
    format!(
        "nearly all connections by egress come from {}, which is no app's: a node or gateway that puts its own address in place of \
         the caller's (SNAT, masquerade). Have it keep the source (externalTrafficPolicy: Local, or no masquerade between pods), or \
         open the import with `allow: any`",
        addresses.join(", ")
    )
}
