//! The routing table: exact names first, then the longest `*.suffix`. Immutable once built.

use std::fmt;
use std::sync::Arc;

use crate::model::arena::Entry;
use crate::model::client::Client;
use crate::model::ending::{Alert, Ending};
use crate::policy::{Admission, Networks, Policy};

use super::endpoint::{DialPermit, Dials, Endpoint};
use super::names::Names;

/// Where names lead.
#[derive(Debug, Default)]
pub struct Table {
    /// Shared by tables of the same routes.
    names: Arc<Names>,
    /// By the numbers in `names`.
    routes: Box<[Arc<Route>]>,
    known_sources: Networks,
}

/// One route, shared by every name that leads to it.
#[derive(Debug)]
pub struct Route {
    /// The metric label.
    pub label: Arc<str>,
    /// Who may use it.
    pub policy: Arc<Policy>,
    /// What may be dialled, ordered by priority.
    pub candidates: Box<[Candidate]>,
    /// Endpoints that stand in the configuration but cannot be dialled now, with the reason (name not resolved, own listener).
    pub absent: Box<[(Box<str>, Absence)]>,
    /// Whether endpoints get a PROXY v2 header.
    pub send_proxy: bool,
    /// Whether a connection may be closed between calls.
    pub quiet_close: bool,
    /// Dials in progress, counted across tables.
    pub dials: Arc<Dials>,
}

impl Route {
    /// Room for one more dial until the value is dropped; `None` when too many are in progress: the endpoints do not answer.
    pub fn dial_permit(&self) -> Option<DialPermit> {
        self.dials.permit()
    }
}

/// Why a configured endpoint is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Its DNS name has not been answered yet (or, offline, nobody asked).
    Unresolved,
    /// Its DNS name stands for no address.
    NoAddress,
    /// It is this gateway's own listener.
    OwnListener,
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unresolved => "its DNS name has not been answered yet",
            Self::NoAddress => "its DNS name has no address",
            Self::OwnListener => "it is this gateway's own listener",
        })
    }
}

/// An endpoint as one route sees it.
#[derive(Debug)]
pub struct Candidate {
    /// The endpoint, shared with every route that goes there.
    pub endpoint: Arc<Endpoint>,
    /// Share of the load within its priority.
    pub weight: u16,
    /// Lower goes first.
    pub priority: u8,
}

/// A name's route and the pattern that made it match.
#[derive(Debug)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The wildcard's suffix as a part of the name, `None` for an exact name.
    pub below: Option<&'a str>,
}

/// A client may use a route.
#[derive(Debug)]
pub struct Decision {
    /// The route; holding it does not hold the table.
    pub route: Arc<Route>,
    /// Why.
    pub admission: Admission,
}

/// A client may not use a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `UnknownName` or `Denied`.
    pub ending: Ending,
    /// The route that denied, for the record.
    pub label: Option<Arc<str>>,
    /// Whether the client may be told that the name exists: some `allow` rule admits its network somewhere.
    pub known_source: bool,
}

impl Refusal {
    /// The TLS alert that tells the client. Strangers cannot tell a name that is denied from one that is not there.
    pub fn alert(&self) -> Alert {
        if self.ending == Ending::Denied && self.known_source {
            Alert::AccessDenied
        } else {
            Alert::UnrecognizedName
        }
    }
}

impl Table {
    /// Puts names and routes together. Names hold the routes' numbers.
    pub(super) fn new(names: Arc<Names>, routes: Vec<Arc<Route>>) -> Self {
        let policies = routes.iter().map(|route| &*route.policy);
        let known_sources = Networks::admitted_by_rules(policies);
        Self { names, routes: routes.into(), known_sources }
    }

    /// The names, for another table of the same routes.
    pub(super) fn shared_names(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }

    /// The route of a canonical name.
    pub fn lookup<'a>(&'a self, name: &'a str) -> Option<Match<'a>> {
        match self.names.exact(name) {
            Some(number) => Some(Match { route: self.routes.get(index(number))?, below: None }),
            None => self.wildcards(name).next(),
        }
    }

    /// The wildcards that cover a canonical name, the longest first. They count only where no exact name does.
    pub fn wildcards<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Match<'a>> {
        self.names.wildcards(name).filter_map(|(suffix, number)| {
            Some(Match { route: self.routes.get(index(number))?, below: Some(suffix) })
        })
    }

    /// What the data path does with a client that asks for a canonical name.
    pub fn decide(&self, name: &str, client: &Client) -> Result<Decision, Refusal> {
        let known_source = self.known_sources.contain(client.network_address());
        let Some(found) = self.lookup(name) else {
            return Err(Refusal { ending: Ending::UnknownName, label: None, known_source });
        };
        match found.route.policy.admit(client) {
            Some(admission) => Ok(Decision { route: Arc::clone(found.route), admission }),
            None => Err(Refusal {
                ending: Ending::Denied,
                label: Some(Arc::clone(&found.route.label)),
                known_source,
            }),
        }
    }

    /// Number of names, wildcards included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name leads anywhere.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every name with its route; in no order that means anything.
    pub fn names(&self) -> impl Iterator<Item = (Entry<'_>, &Arc<Route>)> {
        self.names.all().filter_map(|(name, number)| Some((name, self.routes.get(index(number))?)))
    }

    /// Every route once, for status and health.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}

/// A route's number as an index.
fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
