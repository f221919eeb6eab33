//! The routing table: exact names first, then the longest `*.suffix`. Immutable once built.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::allowed::{Documents, Permissions};
use crate::model::app::AppId;
use crate::model::arena::Entry;
use crate::model::client::{Client, Side};
use crate::model::name::Name;
use crate::model::offer::{Reach, Wanted};
use crate::model::snapshot::{Answer, Kind};
use crate::policy::{Admission, Policy};

use super::endpoint::{DialPermit, Dials, Endpoint, Health};
use super::holds::Hold;
use super::names::Names;
use super::order::{Order, Standing};
use super::sides::{Judged, Sides, Why};

pub use super::sides::Refusal;

/// Where names lead.
#[derive(Debug, Default)]
pub struct Table {
    /// Shared by tables of the same routes.
    names: Arc<Names>,
    /// By the numbers in `names`.
    routes: Box<[Arc<Route>]>,
    /// Those of apps that are imported.
    imports: Box<[Arc<Route>]>,
    sides: Sides,
    cluster: Arc<str>,
    peers: Box<[Peer]>,
    /// By where they are listened at.
    egress: BTreeMap<SocketAddr, EgressAddress>,
    egress_problems: Vec<String>,
}

/// An address that leads to one app, whatever is asked for there.
#[derive(Debug)]
pub struct EgressAddress {
    /// Where the gateway listens.
    pub bind: SocketAddr,
    /// What callers dial.
    pub announce: SocketAddr,
    /// Where it leads; always of an import.
    pub route: Arc<Route>,
}

/// One route, shared by every name that leads to it.
#[derive(Debug)]
pub struct Route {
    /// The metric label.
    pub label: Arc<str>,
    /// What it stands for.
    pub kind: Kind,
    /// The names of an app or a service; empty for plain routes.
    pub holds: Box<[Arc<Hold>]>,
    /// Who may use it: judges links and remote clients, and local ones of an app that is not imported.
    pub policy: Arc<Policy>,
    /// What local clients have instead, for an app that is imported.
    pub import: Option<Arc<Import>>,
    /// What may be dialled, ordered by priority.
    pub candidates: Box<[Candidate]>,
    /// Endpoints that stand in the configuration but cannot be dialled now, with the reason (name not resolved, own listener).
    pub absent: Box<[(Box<str>, Absence)]>,
    /// Whether endpoints get a PROXY v2 header.
    pub send_proxy: bool,
    /// Whether a connection may be closed between calls; of an app that is imported, those of remote clients.
    pub quiet_close: bool,
    /// Whether links may bring what is no TLS.
    pub plaintext: bool,
    /// Dials in progress, counted across tables.
    pub dials: Arc<Dials>,
}

/// An app that is called in other clusters, for local clients alone.
#[derive(Debug)]
pub struct Import {
    /// Which of them may call it.
    pub callers: Policy,
    /// Whether they may get the route's own endpoints too: this cluster is one of those where the app is called.
    pub own: bool,
    /// Whether their connections may be closed between calls.
    pub quiet_close: bool,
    /// Whether those are carried too who do not speak TLS.
    pub plaintext: bool,
    /// The port of a service: what callers dial who have nothing but its name.
    pub port: Option<u16>,
    /// Its names.
    pub names: Box<[Name]>,
    /// What they stand for.
    pub answer: Answer,
    /// How long what is preferred must have been well until connections that went elsewhere are closed so.
    pub failback: Duration,
}

impl Import {
    /// Whether nothing but documents of allowed apps says who may call.
    pub(super) fn is_by_documents(&self) -> bool {
        matches!(self.callers, Policy::Hidden)
    }
}

impl Route {
    /// Whether other clusters may ask for it over a link.
    pub fn is_exported(&self) -> bool {
        let callable = match self.kind {
            Kind::App | Kind::Service => true,
            Kind::Plain => false,
        };
        callable && !matches!(*self.policy, Policy::Hidden)
    }

    /// The names of an app or a service.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.holds.iter().map(|hold| &hold.name)
    }

    /// Its hold on a canonical name.
    pub fn hold(&self, name: &str) -> Option<&Arc<Hold>> {
        self.holds.iter().find(|hold| hold.name.as_str() == name)
    }

    /// How many endpoints of its own can be dialled now.
    pub fn healthy_endpoints(&self) -> usize {
        let now = Instant::now();
        let own = self.candidates.iter().filter(|candidate| candidate.via.is_none());
        own.filter(|candidate| candidate.health_at(now) == Health::Healthy).count()
    }

    /// Whether a connection of a side may be closed between calls.
    pub fn closes_quietly(&self, side: Side) -> bool {
        match (side, &self.import) {
            (Side::Local, Some(import)) => import.quiet_close,
            (Side::Local, None) | (Side::Remote, Some(_) | None) => self.quiet_close,
        }
    }

    /// For how long a client, which is at this endpoint, could have been at one that goes before it. Nothing where none is well, and
    /// where the order is none of preference: only an import has one.
    pub fn preferable(
        &self,
        standing: Standing<'_>,
        endpoint: &Arc<Endpoint>,
        now: Instant,
    ) -> Option<Duration> {
        let before = self.before(standing, endpoint);
        before.filter_map(|candidate| candidate.endpoint.well_for(now)).max()
    }

    /// Whether there are endpoints for a client that go before this one.
    pub fn is_second(&self, standing: Standing<'_>, endpoint: &Arc<Endpoint>) -> bool {
        self.before(standing, endpoint).next().is_some()
    }

    /// The candidates for a client that go before an endpoint.
    fn before<'a>(
        &'a self,
        standing: Standing<'a>,
        endpoint: &Arc<Endpoint>,
    ) -> impl Iterator<Item = &'a Candidate> {
        let place = move |candidate: &Candidate| {
            // What is not offered to it any more goes before nothing, and everything before it.
            Some((self.rank(candidate, standing)?, candidate.priority))
        };
        let same = |candidate: &&Candidate| Arc::ptr_eq(&candidate.endpoint, endpoint);
        let last = (usize::MAX, u8::MAX);
        let here = self.candidates.iter().find(same).map(|it| place(it).unwrap_or(last));
        self.candidates.iter().filter(move |candidate| {
            here.zip(place(candidate)).is_some_and(|(here, there)| there < here)
        })
    }

    /// How long what is preferred must have been well until a connection of a side that went elsewhere may be closed; nothing where
    /// it may not be.
    pub fn failback(&self, side: Side) -> Option<Duration> {
        match (side, &self.import) {
            (Side::Local, Some(import)) => import.quiet_close.then_some(import.failback),
            (Side::Local, None) | (Side::Remote, Some(_) | None) => None,
        }
    }

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
    /// The cluster exports other things to this one.
    NotOffered,
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unresolved => "its DNS name has not been answered yet",
            Self::NoAddress => "its DNS name has no address",
            Self::OwnListener => "it is this gateway's own listener",
            Self::NotOffered => "the cluster does not export it to this one",
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
    /// The link through which the app is reached there; `None` where its own sidecar listens.
    pub via: Option<Arc<Via>>,
}

/// An app behind another cluster's gateway.
#[derive(Debug, PartialEq, Eq)]
pub struct Via {
    /// The cluster that the gateway must prove to be.
    pub cluster: Arc<str>,
    /// The server name to ask it for.
    pub name: Name,
    /// Whether the cluster says that the app can be reached there; `None` while it has said nothing.
    pub reach: Option<Arc<Reach>>,
}

/// Another cluster from which something is imported.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its gateways, as far as they can be dialled.
    pub gateways: Vec<Arc<Endpoint>>,
    /// What is imported from there.
    pub wanted: Arc<Wanted>,
}

impl Candidate {
    /// Health at a moment: the endpoint's, and behind a gateway the app's too.
    pub fn health_at(&self, now: Instant) -> Health {
        let reach = self.via.as_ref().and_then(|via| via.reach.as_ref());
        if reach.is_some_and(|reach| !reach.is_there()) {
            return Health::Down;
        }
        self.endpoint.health_at(now)
    }

    /// Health at this moment.
    pub fn health(&self) -> Health {
        self.health_at(Instant::now())
    }
}

/// A name's route and the pattern that made it match.
#[derive(Debug)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The wildcard's suffix as a part of the name, `None` for an exact name.
    pub below: Option<&'a str>,
}

/// What a client has asked for.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// What has this canonical name.
    Name(&'a str),
    /// What is listened for here.
    Egress(SocketAddr),
}

/// A client may use a route.
#[derive(Debug)]
pub struct Decision {
    /// The route; holding it does not hold the table.
    pub route: Arc<Route>,
    /// Why.
    pub admission: Admission,
    /// Where the client stands, which decides what it may be led to.
    pub side: Side,
    /// The app of this cluster that it is taken for.
    pub caller: Option<AppId>,
    /// The clusters that it may be led to, in its order, where that is not the import's.
    pub order: Option<Arc<Order>>,
}

impl Decision {
    /// Where the client stands.
    pub fn standing(&self) -> Standing<'_> {
        Standing { side: self.side, order: self.order.as_deref() }
    }
}

impl Table {
    /// Puts names and routes together. Names hold the routes' numbers.
    pub(super) fn new(
        names: Arc<Names>,
        routes: Vec<Arc<Route>>,
        sides: Sides,
        cluster: Arc<str>,
        peers: Vec<Peer>,
    ) -> Self {
        let imports = routes.iter().filter(|route| route.import.is_some()).cloned().collect();
        let (egress, egress_problems) = (BTreeMap::new(), Vec::new());
        let (routes, peers) = (routes.into(), peers.into());
        Self { names, routes, imports, sides, cluster, peers, egress, egress_problems }
    }

    /// The same table with egress addresses: where each is listened at, what callers dial, and the label of the import that it
    /// leads to; and who has none, for status.
    #[must_use]
    pub fn with_egress(
        self,
        addresses: impl IntoIterator<Item = (SocketAddr, SocketAddr, Arc<str>)>,
        egress_problems: Vec<String>,
    ) -> Self {
        let imports: HashMap<_, _> =
            self.imports.iter().map(|route| (&*route.label, route)).collect();
        let egress = addresses.into_iter().filter_map(|(bind, announce, label)| {
            let route = Arc::clone(imports.get(&*label)?);
            Some((bind, EgressAddress { bind, announce, route }))
        });
        let egress = egress.collect();
        Self { egress, egress_problems, ..self }
    }

    /// The same table with the documents of a store.
    #[must_use]
    pub fn with_documents(self, documents: Arc<Documents>) -> Self {
        Self { sides: self.sides.with_documents(documents), ..self }
    }

    /// The documents of the store, by which local callers are judged.
    pub fn documents(&self) -> &Arc<Documents> {
        self.sides.documents()
    }

    /// What the configuration says of allowed apps.
    pub fn permissions(&self) -> &Permissions {
        self.sides.permissions()
    }

    /// Who lacks an egress address, and why.
    pub fn egress_problems(&self) -> &[String] {
        &self.egress_problems
    }

    /// The egress addresses, in order.
    pub fn egress(&self) -> impl Iterator<Item = &EgressAddress> {
        self.egress.values()
    }

    /// The egress address that is listened at here.
    pub fn egress_at(&self, bind: SocketAddr) -> Option<&EgressAddress> {
        self.egress.get(&bind)
    }

    /// What the data path does with a client that came by an egress address: it is local, wherever it is, because only
    /// what is given to local callers leads there.
    pub fn decide_egress(&self, bind: SocketAddr, client: &Client) -> Result<Decision, Refusal> {
        match self.egress.get(&bind) {
            Some(address) => self.decide_route(&address.route, client, Side::Local),
            None => Err(self.sides.refusal(Why::NoAddress, None, client, Side::Local)),
        }
    }

    /// Whether it matters which user of this machine a client is.
    pub fn knows_users(&self) -> bool {
        self.sides.know_users()
    }

    /// Whether anything tells where an app of this cluster calls from.
    pub fn knows(&self, app: &AppId) -> bool {
        self.sides.know(app)
    }

    /// The routes of imported apps.
    pub fn imports(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.imports.iter()
    }

    /// Whether an address, not one that is mapped into IPv6, is of this cluster.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.sides.is_local(address)
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

    /// The route that has exactly this canonical name.
    pub fn exact(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(index(self.names.exact(name)?))
    }

    /// The wildcards that cover a canonical name, the longest first. They count only where no exact name does.
    pub fn wildcards<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Match<'a>> {
        self.names.wildcards(name).filter_map(|(suffix, number)| {
            Some(Match { route: self.routes.get(index(number))?, below: Some(suffix) })
        })
    }

    /// What the data path does with a client that asks for a canonical name.
    pub fn decide(&self, name: &str, client: &Client) -> Result<Decision, Refusal> {
        let side = self.sides.side(client);
        let Some(found) = self.lookup(name) else {
            return Err(self.sides.refusal(Why::NoRoute, None, client, side));
        };
        self.decide_route(found.route, client, side)
    }

    fn decide_route(
        &self,
        route: &Arc<Route>,
        client: &Client,
        side: Side,
    ) -> Result<Decision, Refusal> {
        match self.sides.judge(route, client, side) {
            Ok(Judged { admission, caller, order }) => {
                Ok(Decision { route: Arc::clone(route), admission, side, caller, order })
            }
            Err(why) => Err(self.sides.refusal(why, Some(route.as_ref()), client, side)),
        }
    }

    /// Whether a local client may still be where it was once led, in this cluster or another, by the name that it asked for or the
    /// egress address that it came by.
    pub fn still_admits(
        &self,
        at: At<'_>,
        client: &Client,
        caller: Option<&AppId>,
        cluster: Option<&Arc<str>>,
    ) -> bool {
        let route = match at {
            At::Name(name) => self.lookup(name).map(|found| found.route),
            At::Egress(bind) => self.egress.get(&bind).map(|address| &address.route),
        };
        route.is_some_and(|route| {
            let judged = self.sides.judge_as(route, client, Side::Local, caller.cloned());
            judged.is_ok_and(|judged| judged.order.is_none_or(|order| order.has(cluster)))
        })
    }

    /// Whether other clusters may ask for a canonical name over a link.
    pub fn exports(&self, name: &str) -> bool {
        self.lookup(name).is_some_and(|found| found.route.is_exported())
    }

    /// The cluster that this table is of.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// The other clusters from which something is imported.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What another cluster may call here.
    pub fn exported_to<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Arc<Route>> {
        let offered =
            move |route: &&Arc<Route>| route.is_exported() && route.policy.admits_cluster(cluster);
        self.routes.iter().filter(offered)
    }

    /// Where clients stand, and who they are.
    pub(super) fn sides(&self) -> &Sides {
        &self.sides
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
