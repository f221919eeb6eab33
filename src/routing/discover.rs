//! What an app of this cluster may call: where, whether that is well, and by which names and addresses. Asks the table that the data
//! path asks.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::app::AppId;
use crate::model::client::{Client, Side};
use crate::model::snapshot::Kind;

use super::endpoint::Health;
use super::order::Standing;
use super::table::{Candidate, Route, Table};

/// What an app may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discovery {
    /// The caller, namespace/app.
    pub app: String,
    /// Whether the gateway knows by `from` under `apps` where it calls from. If not, its calls are nobody's, and only what anybody
    /// may call is open to it.
    pub known: bool,
    /// The apps, in the order of their names.
    pub apps: Vec<Callable>,
}

/// An app that may be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Callable {
    /// namespace/app.
    pub app: String,
    /// Whether a call would be led anywhere now.
    pub healthy: bool,
    /// Where, in the order in which it is tried. Empty while no cluster offers it.
    pub clusters: Vec<Place>,
    /// The server names that lead to it, at an ingress listener of this gateway.
    pub names: Vec<String>,
    /// The egress addresses that lead to it, whatever is asked for there.
    pub egress: Vec<SocketAddr>,
    /// Whether calls without TLS are carried.
    pub plaintext: bool,
}

/// A cluster where an app is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Its name; this cluster's own for the app's own endpoints.
    pub cluster: String,
    /// Whether the app can be reached there now.
    pub healthy: bool,
}

/// What an app of this cluster may call by a table.
pub fn discover(table: &Table, caller: &AppId) -> Discovery {
    let apps = table
        .imports()
        .filter(|route| route.kind == Kind::App)
        .filter_map(|route| app(table, route, caller));
    let mut apps: Vec<_> = apps.collect();
    apps.sort_by(|one, other| one.app.cmp(&other.app));
    let mut discovery = Discovery { app: caller.to_string(), known: table.knows(caller), apps };
    addresses(table, &mut discovery.apps);
    discovery
}

fn app(table: &Table, route: &Route, caller: &AppId) -> Option<Callable> {
    // No rule of an import sees an address: the caller is an app, or anybody.
    let client = Client::direct((Ipv4Addr::UNSPECIFIED, 0).into());
    let judged = table.sides().judge_as(route, &client, Side::Local, Some(caller.clone())).ok()?;
    let standing = Standing { side: Side::Local, order: judged.order.as_deref() };
    let import = route.import.as_ref()?;
    let clusters = places(table, route, standing);
    Some(Callable {
        app: route.label.to_string(),
        healthy: clusters.iter().any(|place| place.healthy),
        clusters,
        names: import.names.iter().map(|name| name.as_str().to_owned()).collect(),
        egress: Vec::new(),
        plaintext: import.plaintext,
    })
}

fn places(table: &Table, route: &Route, standing: Standing<'_>) -> Vec<Place> {
    let ranked = |candidate| Some((route.rank(candidate, standing)?, candidate));
    let mut candidates: Vec<_> = route.candidates.iter().filter_map(ranked).collect();
    candidates.sort_by_key(|(rank, candidate)| (*rank, candidate.priority));
    let mut places: Vec<Place> = Vec::new();
    for (_, candidate) in candidates {
        let cluster = cluster(table, candidate);
        let healthy = candidate.health() == Health::Healthy;
        match places.iter_mut().find(|place| place.cluster == cluster) {
            Some(place) => place.healthy |= healthy,
            None => places.push(Place { cluster: cluster.to_owned(), healthy }),
        }
    }
    places
}

fn cluster<'a>(table: &'a Table, candidate: &'a Candidate) -> &'a str {
    candidate.via.as_ref().map_or(&**table.cluster(), |via| &*via.cluster)
}

/// Adds the egress addresses, of which there may be thousands: each is looked at once.
fn addresses(table: &Table, apps: &mut [Callable]) {
    for address in table.egress() {
        let at = apps.binary_search_by(|known| known.app.as_str().cmp(&address.route.label));
        if let Some(known) = at.ok().and_then(|at| apps.get_mut(at)) {
            known.egress.push(address.announce);
        }
    }
}
