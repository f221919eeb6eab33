//! Builds a table from what the sources said: a pure function, run beside the table in force.
//!
//! In two steps, because they change at different times: names are entered into an index when the configuration changes, routes
//! are made of it anew also when DNS says something else. Only the first can fail, and only the first takes long.

mod indexing;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::name::{Name, NamePattern};
use crate::model::routes_file::RoutesFile;
use crate::model::snapshot::{
    Addresses, Allow, EndpointAt, ImportSpec, Kind, Origin, ReservedName, RouteSpec, Routes,
};
use crate::policy::Policy;

use super::endpoint::Endpoints;
use super::holds::Hold;
use super::names::Names;
use super::own::OwnAddresses;
use super::resolve::{Resolver, ordered};
use super::sides::Sides;
use super::table::{Import, Peer, Route, Table};

/// The metric label of every route that comes from a routes file: a million label values would cost more than the table.
pub const FILE_LABEL: &str = "routes_file";

/// Everything a table is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the configuration asks for.
    pub routes: &'a Routes,
    /// What DNS says.
    pub addresses: &'a Addresses,
    /// The gateway's own listeners as they are bound, never to be dialled.
    pub own: &'a OwnListeners,
}

/// The gateway's own listeners, metrics and admin included.
#[derive(Debug, Clone)]
pub struct OwnListeners {
    /// As bound: ports are real, addresses may be unspecified.
    pub bound: Vec<SocketAddr>,
    /// Whether this host has an address: only then a listener on every address takes it. Handed in, because a table is built
    /// from nothing but what it is given.
    pub is_local: fn(IpAddr) -> bool,
}

impl Default for OwnListeners {
    /// None, on a host of which nothing is known.
    fn default() -> Self {
        Self { bound: Vec::new(), is_local: |_| false }
    }
}

/// What makes a table impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// Where the mistake stands.
    pub origin: Origin,
    /// The offending text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, text, message, fix } = self;
        write!(out, "{origin}: {text:?}: {message}; {fix}")
    }
}

impl std::error::Error for BuildError {}

/// Builds a table. All errors at once, up to a hundred.
pub fn build(inputs: &Inputs<'_>, endpoints: &mut Endpoints) -> Result<Table, Vec<BuildError>> {
    let names = indexing::index(inputs.routes)?;
    Ok(table(Arc::new(names), inputs, endpoints))
}

/// Whether the same names lead to the same places in both, so that a table of one may share the names of the other's.
pub fn have_same_names(one: &Routes, other: &Routes) -> bool {
    fn patterns(route: &RouteSpec) -> impl Iterator<Item = &NamePattern> {
        route.names.iter().map(|(pattern, _)| pattern)
    }
    let is_route = |one: &RouteSpec, other: &RouteSpec| patterns(one).eq(patterns(other));
    let is_template = |one: &ReservedName, other: &ReservedName| one.template == other.template;
    are_all(&one.routes, &other.routes, is_route)
        && are_all(&one.files, &other.files, Arc::ptr_eq)
        && are_all(&one.reserved, &other.reserved, is_template)
}

fn are_all<T>(one: &[T], other: &[T], alike: impl Fn(&T, &T) -> bool) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
}

/// Builds a table whose routes have the same names as those that another one was built of. The two share them.
pub fn rebuild(before: &Table, inputs: &Inputs<'_>, endpoints: &mut Endpoints) -> Table {
    table(before.shared_names(), inputs, endpoints)
}

fn table(names: Arc<Names>, inputs: &Inputs<'_>, endpoints: &mut Endpoints) -> Table {
    let (routes, peers) = routes(inputs, endpoints);
    let sides = Sides::new(inputs.routes, inputs.addresses, &routes);
    Table::new(names, routes, sides, Arc::clone(&inputs.routes.cluster), peers)
}

/// The routes in the order in which the index counts them: those with settings of their own, then those of each file. And the
/// clusters that are asked what they export.
fn routes(inputs: &Inputs<'_>, endpoints: &mut Endpoints) -> (Vec<Arc<Route>>, Vec<Peer>) {
    let own = OwnAddresses::new(&inputs.own.bound, inputs.own.is_local);
    let resolver = Resolver { addresses: inputs.addresses, endpoints, own };
    let Routes { routes, files, .. } = inputs.routes;
    let lists: usize = files.iter().map(|file| file.lists().count()).sum();
    let mut maker = Maker {
        resolver,
        open: Arc::new(Policy::compile(&Allow::Open)),
        file_label: FILE_LABEL.into(),
    };
    let mut made = Vec::with_capacity(routes.len() + lists);
    made.extend(routes.iter().map(|spec| Arc::new(maker.route(spec))));
    made.extend(files.iter().flat_map(|file| maker.file(file)));
    let peers = inputs.routes.peers.iter().map(|peer| maker.resolver.peer(peer)).collect();
    maker.resolver.endpoints.purge();
    (made, peers)
}

struct Maker<'a> {
    resolver: Resolver<'a>,
    open: Arc<Policy>,
    file_label: Arc<str>,
}

impl Maker<'_> {
    fn route(&mut self, spec: &RouteSpec) -> Route {
        let written = spec.endpoints.iter().map(|at| (&at.at, at.weight, at.priority));
        let (mut candidates, mut absent) = self.resolver.resolve(spec.check, written);
        if let (Some(import), Some(name)) = (&spec.import, first_name(spec)) {
            let (more, more_absent) = self.resolver.gateways(&import.gateways, name);
            candidates.extend(more);
            absent.extend(more_absent);
        }
        Route {
            label: Arc::clone(&spec.label),
            kind: spec.kind,
            holds: self.holds(spec),
            policy: Arc::new(Policy::compile(&spec.allow)),
            import: spec.import.as_ref().map(|import| Arc::new(compiled(spec, import))),
            candidates: ordered(candidates),
            absent: absent.into(),
            send_proxy: spec.send_proxy,
            quiet_close: spec.quiet_close,
            plaintext: spec.plaintext,
            dials: self.resolver.endpoints.dials(&spec.label),
        }
    }

    /// Of a plain route nobody can say what it leads to, by which name.
    fn holds(&mut self, spec: &RouteSpec) -> Box<[Arc<Hold>]> {
        let holds = &mut self.resolver.endpoints.holds;
        match spec.kind {
            Kind::App | Kind::Service => {
                exact_names(spec).map(|name| holds.hold(name, &spec.label)).collect()
            }
            Kind::Plain => [].into(),
        }
    }

    /// A route for each list of a file.
    fn file(&mut self, file: &RoutesFile) -> Vec<Arc<Route>> {
        file.lists().map(|list| Arc::new(self.list(list))).collect()
    }

    fn list(&mut self, list: &[EndpointAt]) -> Route {
        let (candidates, absent) = self.resolver.resolve(None, list.iter().map(|at| (at, 1, 0)));
        let written: Vec<_> = list.iter().map(ToString::to_string).collect();
        Route {
            label: Arc::clone(&self.file_label),
            kind: Kind::Plain,
            holds: [].into(),
            policy: Arc::clone(&self.open),
            import: None,
            candidates: ordered(candidates),
            absent: absent.into(),
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
            // By endpoints, not by label: one dead endpoint must not use up the dials of every route in the file. No label has
            // a colon, as every endpoint does.
            dials: self.resolver.endpoints.dials(&written.join(" ")),
        }
    }
}

/// The name by which other clusters know an app: the first that it has.
fn first_name(spec: &RouteSpec) -> Option<&Name> {
    exact_names(spec).next()
}

fn exact_names(spec: &RouteSpec) -> impl Iterator<Item = &Name> {
    spec.names.iter().filter_map(|(pattern, _)| match pattern {
        NamePattern::Exact(name) => Some(name),
        NamePattern::Below(_) => None,
    })
}

fn compiled(spec: &RouteSpec, import: &ImportSpec) -> Import {
    let &ImportSpec { own, quiet_close, failback, plaintext, answer, egress, .. } = import;
    let names = exact_names(spec).cloned().collect();
    let callers = Policy::compile(&import.allow);
    Import { callers, own, quiet_close, plaintext, port: egress.port, names, answer, failback }
}

#[cfg(test)]
mod tests;
