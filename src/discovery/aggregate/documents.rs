//! What documents of allowed apps name, entered into the routes: each of these apps is imported, for those whom documents admit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::allowed::{Documents, Permissions, RemoteApp};
use crate::model::app::AppId;
use crate::model::offer::{Callee, Offered, Wanted};
use crate::model::snapshot::{GatewaySpec, ImportSpec, PeerSpec, RouteSpec, Routes};
use crate::routing::table::Table;

use super::imports::{Taken, mark, route};

/// The apps that some document names, each with the clusters where somebody may call it; `None` is everywhere. While these stay the
/// same, so do the routes, whoever may call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Targets(BTreeMap<AppId, Option<BTreeSet<Arc<str>>>>);

impl Targets {
    /// All that the configuration's documents and the store's name, as far as the whole cluster may call it.
    pub(super) fn of(permissions: &Permissions, stored: &Documents) -> Self {
        let mut targets = Self::default();
        if permissions.import.is_none() {
            return targets;
        }
        let configured = permissions.documents.values();
        let stored = stored.values().map(|document| &document.says);
        for remote in configured.chain(stored).flat_map(|says| &says.allowed) {
            if permissions.bound(remote.app.as_str()).is_some() {
                targets.add(remote);
            }
        }
        targets
    }

    fn add(&mut self, remote: &RemoteApp) {
        let anywhere = remote.clusters.is_empty();
        match self.0.get_mut(&remote.app) {
            Some(clusters) if anywhere => *clusters = None,
            Some(None) => {}
            Some(Some(clusters)) => clusters.extend(remote.clusters.iter().cloned()),
            None => {
                let clusters = (!anywhere).then(|| remote.clusters.iter().cloned().collect());
                self.0.insert(remote.app.clone(), clusters);
            }
        }
    }
}

/// The routes with an import for each of these apps that has none. An app whose name leads elsewhere already is left out, as with
/// what other clusters offer.
pub(super) fn enter(
    routes: Arc<Routes>,
    targets: &Targets,
    offered: &Offered,
    now: &Table,
) -> Arc<Routes> {
    let Some((template, origin)) = &routes.permissions.import else { return routes };
    if targets.0.is_empty() {
        return routes;
    }
    let mut entered = Routes::clone(&routes);
    let mut taken = Taken::new(&routes, now);
    let known: BTreeMap<Arc<str>, usize> =
        (0..).zip(&routes.routes).map(|(at, route)| (Arc::clone(&route.label), at)).collect();
    for (app, clusters) in &targets.0 {
        let mut import = import(template, clusters.as_ref());
        mark(&mut import, &Callee::App(app.clone()), offered);
        let is_entered = match known.get(app.as_str()).and_then(|&at| entered.routes.get_mut(at)) {
            Some(route) => join(route, import),
            None => match taken.admit(&routes, app) {
                Some(names) => {
                    entered.routes.push(route(import, origin, app, names));
                    true
                }
                None => false,
            },
        };
        if is_entered {
            want(&mut entered.peers, template, app, clusters.as_ref());
        }
    }
    Arc::new(entered)
}

/// The routes as they are while no source has said anything: with what the configuration's own documents name.
pub fn enter_configured(routes: &Arc<Routes>) -> Arc<Routes> {
    let targets = Targets::of(&routes.permissions, &Documents::default());
    enter(Arc::clone(routes), &targets, &Offered::new(), &Table::default())
}

/// The import of an app, with the gateways of these clusters.
fn import(template: &ImportSpec, clusters: Option<&BTreeSet<Arc<str>>>) -> ImportSpec {
    ImportSpec { gateways: gateways(template, clusters).cloned().collect(), ..template.clone() }
}

fn gateways<'a>(
    template: &'a ImportSpec,
    clusters: Option<&BTreeSet<Arc<str>>>,
) -> impl Iterator<Item = &'a GatewaySpec> {
    let is_one = move |cluster: &Arc<str>| clusters.is_none_or(|named| named.contains(cluster));
    template.gateways.iter().filter(move |gateway| is_one(&gateway.cluster))
}

/// An app of this cluster is preferred here, unless a document says otherwise. One that is imported has its import.
fn join(route: &mut RouteSpec, mut import: ImportSpec) -> bool {
    if route.import.is_some() {
        return false;
    }
    let last = route.endpoints.iter().map(|endpoint| endpoint.priority).max();
    // Also where no document names this cluster: its other callers still have the app's own endpoints.
    import.own = true;
    for gateway in &mut import.gateways {
        let after = last.map_or(0, |last| last.saturating_add(1));
        gateway.priority = gateway.priority.saturating_add(after);
    }
    import.quiet_close = route.quiet_close;
    route.import = Some(import);
    true
}

fn want(
    peers: &mut Vec<PeerSpec>,
    template: &ImportSpec,
    app: &AppId,
    clusters: Option<&BTreeSet<Arc<str>>>,
) {
    for GatewaySpec { cluster, at, .. } in gateways(template, clusters) {
        let known = peers.iter().position(|peer| peer.cluster == *cluster);
        let known = known.unwrap_or_else(|| {
            let (gateways, wanted) = (Vec::new(), Arc::<Wanted>::default());
            peers.push(PeerSpec { cluster: Arc::clone(cluster), gateways, wanted });
            peers.len() - 1
        });
        let Some(peer) = peers.get_mut(known) else { continue };
        if !peer.gateways.contains(at) {
            peer.gateways.push(at.clone());
        }
        Arc::make_mut(&mut peer.wanted).apps.insert(app.clone());
    }
}
