//! Imports of whole namespaces, and which clusters are asked what they export.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::file::{self, List};
use crate::config::problem::Wrong;
use crate::config::tree::NodeId;
use crate::config::units;
use crate::model::egress::EgressSpec;
use crate::model::offer::{Callee, Wanted};
use crate::model::snapshot::{
    EndpointAt, GatewaySpec, ImportSpec, NamespaceImport, PeerSpec, ReservedName, RouteSpec,
};

use super::apps::app_id;
use super::imports::{FAILBACK, Known, Place};
use super::routes::quiet_close;
use super::{Resolver, items};

/// The namespace, where `app` is written as all apps of one: `shop/*`.
pub(super) fn namespace(written: &file::Import) -> Option<&str> {
    written.app.as_ref()?.value.as_deref()?.strip_suffix("/*")
}

impl Resolver<'_> {
    /// Imports of all that other clusters export in a namespace.
    pub(super) fn namespaces(
        &mut self,
        written: &List<file::Import>,
        known: &Known<'_>,
        names: &[ReservedName],
    ) -> Vec<NamespaceImport> {
        let mut found: Vec<NamespaceImport> = Vec::new();
        for spot in items(written) {
            let Some(import) = &spot.value else { continue };
            let Some(namespace) = namespace(import) else { continue };
            let Some(app) = &import.app else { continue };
            // Any app of it will do to judge it.
            let judged = app_id(&format!("{namespace}/a")).map_err(|wrong| {
                self.wrong(app.node, wrong);
            });
            if let Some(first) = found.iter().find(|first| *first.namespace == *namespace) {
                let message = format!("{namespace}/* is imported twice, also at {}", first.origin);
                self.wrong(
                    app.node,
                    Wrong::new(message, "join the two: one import, all its clusters"),
                );
                continue;
            }
            self.check_names(import, app.node, names);
            let Some((allow, places)) =
                self.import((&import.allow, &import.clusters), spot.node, known)
            else {
                continue;
            };
            let gateways = self.gateways_alone(places, app.node);
            let quiet_close = quiet_close(&import.quiet_close);
            let failback = self.parse(&import.failback, units::duration).unwrap_or(FAILBACK);
            let answer = self.answer(&import.answer, &allow);
            // A pin would be one address for all of them.
            let addresses = self.addresses(&import.addresses);
            let import = ImportSpec {
                allow,
                own: false,
                gateways,
                quiet_close,
                failback,
                egress: EgressSpec { addresses, ..EgressSpec::default() },
                plaintext: false,
                answer,
            };
            let origin = self.tree.origin(app.node);
            if judged.is_ok() {
                found.push(NamespaceImport { namespace: namespace.into(), import, origin });
            }
        }
        found
    }

    /// Its apps are called as `names` says, which is all that is known of them beforehand.
    fn check_names(&mut self, import: &file::Import, node: NodeId, names: &[ReservedName]) {
        if let Some(pin) = &import.egress {
            let message = "one address cannot be that of every app of a namespace";
            let fix = "leave `egress` out: each of its apps is given an address of its own; or import the app by name";
            self.wrong(pin.node, Wrong::new(message, fix));
        }
        if let Some(plaintext) = &import.plaintext {
            let message = "that an app is carried without TLS is to be said of each by itself";
            let fix = "import the app by name: whatever the other cluster exports tomorrow should not go unprotected";
            self.wrong(plaintext.node, Wrong::new(message, fix));
        }
        if let Some(name) = &import.name {
            let message = "one name cannot stand for every app of a namespace";
            self.wrong(
                name.node,
                Wrong::new(message, "leave `name` out: `names` says how they are called"),
            );
        } else if names.is_empty() {
            let fix = "add `names: [\"{app}.{namespace}.mesh.example\"]`";
            self.wrong(node, Wrong::new("its apps have no names: there is no `names`", fix));
        }
    }

    /// The gateways in the order of their clusters.
    fn gateways_alone(&mut self, places: Vec<Place>, node: NodeId) -> Vec<GatewaySpec> {
        let mut ordered = Vec::new();
        for (place, priority) in places.into_iter().zip(0..=u8::MAX) {
            match place {
                Place::Own => {
                    let message = "this cluster cannot stand in an import of a whole namespace";
                    let fix =
                        "import those of its own apps by name that others are to stand in for";
                    self.wrong(node, Wrong::new(message, fix));
                }
                Place::Gateways(gateways) => {
                    let gateways = gateways.into_iter();
                    ordered.extend(gateways.map(|gateway| GatewaySpec { priority, ..gateway }));
                }
            }
        }
        ordered
    }
}

/// The clusters from which something is imported, each with what that is.
pub(super) fn peers(routes: &[RouteSpec], namespaces: &[NamespaceImport]) -> Vec<PeerSpec> {
    let mut peers = Peers::default();
    for route in routes {
        match (&route.import, Callee::parse(&route.label)) {
            (Some(import), Some(Callee::App(app))) => {
                peers.add(import, |wanted| wanted.apps.insert(app.clone()));
            }
            (Some(import), Some(Callee::Service(name))) => {
                peers.add(import, |wanted| wanted.services.insert(name.clone()));
            }
            (None, _) | (_, None) => {}
        }
    }
    for NamespaceImport { namespace, import, .. } in namespaces {
        peers.add(import, |wanted| wanted.namespaces.insert(Arc::clone(namespace)));
    }
    let peer =
        |(cluster, (gateways, wanted))| PeerSpec { cluster, gateways, wanted: Arc::new(wanted) };
    peers.0.into_iter().map(peer).collect()
}

/// Gateways and wishes by cluster.
#[derive(Default)]
struct Peers(BTreeMap<Arc<str>, (Vec<EndpointAt>, Wanted)>);

impl Peers {
    fn add(&mut self, import: &ImportSpec, mut want: impl FnMut(&mut Wanted) -> bool) {
        for GatewaySpec { cluster, at, .. } in &import.gateways {
            let (gateways, wanted) = self.0.entry(Arc::clone(cluster)).or_default();
            if !gateways.contains(at) {
                gateways.push(at.clone());
            }
            want(wanted);
        }
    }
}
