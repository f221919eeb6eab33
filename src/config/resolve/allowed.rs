//! Allowed apps: the documents that stand in the configuration, and where others are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::allowed_file as written;
use crate::config::file::{File, Import, List, Setting};
use crate::config::problem::Wrong;
use crate::config::spot::Spot;
use crate::config::tree::NodeId;
use crate::config::{OnRevoke, Store};
use crate::model::allowed::{AllowedApps, Permissions, RemoteApp};
use crate::model::app::AppId;
use crate::model::egress::EgressSpec;
use crate::model::snapshot::{Allow, Answer, GatewaySpec, ImportSpec, Origin, ReservedName};

use super::apps::app_id;
use super::imports::{FAILBACK, Known, Place, place};
use super::{Resolver, items};

/// Documents as they are found, with where each caller's stands.
#[derive(Default)]
struct Found {
    documents: BTreeMap<AppId, AllowedApps>,
    nodes: BTreeMap<AppId, NodeId>,
    bound: Option<(NodeId, Vec<RemoteApp>)>,
}

/// What becomes of live connections that are forbidden.
pub(super) fn on_revoke(settings: &Setting<written::Settings>) -> OnRevoke {
    let settings = settings.as_ref().and_then(|spot| spot.value.as_ref());
    match settings.and_then(|settings| settings.on_revoke.as_ref()?.value) {
        Some(written::OnRevoke::Close) => OnRevoke::Close,
        Some(written::OnRevoke::Keep) | None => OnRevoke::Keep,
    }
}

impl Resolver<'_> {
    /// Where documents are kept that change at run time.
    pub(super) fn allowed_apps_store(
        &mut self,
        settings: &Setting<written::Settings>,
    ) -> Option<Store> {
        let settings = settings.as_ref()?.value.as_ref()?;
        self.store(settings.store.as_ref()?)
    }

    /// The documents of the configuration, and what is made of them and those of a store.
    pub(super) fn permissions(
        &mut self,
        file: &File,
        known: &Known<'_>,
        names: &[ReservedName],
    ) -> Permissions {
        let found = self.documents(&file.allowed, known);
        let spot = file.allowed_apps.as_ref();
        let settings = spot.and_then(|spot| spot.value.as_ref());
        let required = settings.and_then(|settings| settings.required.as_ref());
        let store = settings.and_then(|settings| settings.store.as_ref());
        let is_required = required.and_then(|spot| spot.value).unwrap_or_default();
        if let Some(required) = required.filter(|_| is_required) {
            self.check_required(required.node, &file.imports);
            if store.is_none() && found.documents.is_empty() {
                let message = "nobody may call what is imported: there is no document";
                let fix = "add `allowedApps.store`, or documents under `allowed`";
                self.doubtful(required.node, Wrong::new(message, fix));
            }
        }
        let first = found.nodes.values().min().copied().or(store.map(|store| store.node));
        let import = first.and_then(|node| self.import_of_documents(node, known, names));
        Permissions {
            documents: Arc::new(found.documents),
            bound: found.bound.map(|(_, bound)| bound.into()),
            is_stored: store.is_some(),
            required: is_required,
            import,
        }
    }

    fn documents(&mut self, written: &List<written::AllowedApps>, known: &Known<'_>) -> Found {
        let mut found = Found::default();
        for spot in items(written) {
            let Some(document) = &spot.value else { continue };
            match &document.app {
                Some(app) => self.document(app, document, known, &mut found),
                None => self.bound(spot.node, document, known, &mut found),
            }
        }
        found
    }

    fn document(
        &mut self,
        written: &Spot<String>,
        document: &written::AllowedApps,
        known: &Known<'_>,
        found: &mut Found,
    ) {
        let Some(app) = self.parse_spot(written, app_id) else { return };
        if let Some(first) = found.nodes.insert(app.clone(), written.node) {
            let message = format!("{app} has two documents, also at {}", self.tree.origin(first));
            self.wrong(written.node, Wrong::new(message, "join the two"));
            return;
        }
        if known.apps.find(&app).is_none_or(|app| !app.calls) {
            let message = format!("nothing tells when {app} calls: it has no `from` under `apps`");
            let fix = format!("add `apps: [{{ app: {app}, from: [{{ network: CIDR }}] }}]`");
            self.doubtful(written.node, Wrong::new(message, fix));
        }
        let allowed = self.remote_apps(&document.allowed, Some(&app), known);
        found.documents.insert(app.clone(), AllowedApps { app, allowed });
    }

    fn bound(
        &mut self,
        node: NodeId,
        document: &written::AllowedApps,
        known: &Known<'_>,
        found: &mut Found,
    ) {
        let allowed = self.remote_apps(&document.allowed, None, known);
        if let Some((first, _)) = &found.bound {
            let place = self.tree.origin(*first);
            let message = format!("what all apps may call at most is said twice, also at {place}");
            let fix = "join the two; or name the caller: `app: NAMESPACE/APP`";
            self.wrong(node, Wrong::new(message, fix));
        }
        if allowed.is_empty() {
            let message = "no app of this cluster may call anything: this item has no `app`, so it bounds them all";
            let fix = "name the caller: `app: NAMESPACE/APP`; or what all may call: `allowed: [{ app: NAMESPACE/APP }]`";
            self.doubtful(node, Wrong::new(message, fix));
        }
        found.bound.get_or_insert((node, allowed));
    }

    fn remote_apps(
        &mut self,
        written: &List<written::RemoteApp>,
        caller: Option<&AppId>,
        known: &Known<'_>,
    ) -> Vec<RemoteApp> {
        let mut apps: Vec<RemoteApp> = Vec::new();
        for spot in items(written) {
            let Some(remote) = &spot.value else { continue };
            let fix = "add `app: NAMESPACE/APP`, the app that may be called";
            let Some(named) = self.required(&remote.app, spot.node, "app", fix) else { continue };
            let clusters = self.allowed_clusters(&remote.clusters, known);
            let parse = |written: &str| {
                let wrong = |error: crate::model::allowed::RemoteAppError| {
                    Wrong::new(format!("{written:?}: {error}"), error.fix())
                };
                RemoteApp::parse(caller, written).map_err(wrong)
            };
            let Some(app) = self.parse_spot(named, parse) else { continue };
            if apps.iter().any(|known| known.app == app) {
                let message = format!("{app} is allowed twice");
                let fix = "join the two, with the clusters of both";
                self.wrong(named.node, Wrong::new(message, fix));
                continue;
            }
            apps.push(RemoteApp { app, clusters });
        }
        apps
    }

    fn allowed_clusters(&mut self, written: &List<String>, known: &Known<'_>) -> Vec<Arc<str>> {
        let mut clusters: Vec<Arc<str>> = Vec::new();
        for spot in items(written) {
            let parse = |name: &str| place(name, known.clusters).map(|_| Arc::<str>::from(name));
            let Some(name) = self.parse_spot(spot, parse) else { continue };
            if clusters.contains(&name) {
                let message = format!("{name} stands in this list twice");
                self.wrong(spot.node, Wrong::new(message, "remove one of the two"));
            } else {
                clusters.push(name);
            }
        }
        clusters
    }

    fn check_required(&mut self, required: NodeId, imports: &List<Import>) {
        for spot in items(imports) {
            let Some(allow) = spot.value.as_ref().and_then(|import| import.allow.as_ref()) else {
                continue;
            };
            let place = self.tree.origin(required);
            let message = format!(
                "this `allow` is without effect: `allowedApps.required` at {place} lets nothing but documents admit"
            );
            let fix = "leave `allow` out and `strait allow` the callers, or take `required` away";
            self.doubtful(allow.node, Wrong::new(message, fix));
        }
    }

    /// How an app is called that stands in documents alone.
    fn import_of_documents(
        &mut self,
        node: NodeId,
        known: &Known<'_>,
        names: &[ReservedName],
    ) -> Option<(ImportSpec, Origin)> {
        if names.is_empty() {
            let message = "the apps that documents allow have no names: there is no `names`";
            let fix = "add `names: [\"{app}.{namespace}.mesh.example\"]`";
            self.wrong(node, Wrong::new(message, fix));
            return None;
        }
        self.check_reach(node, known);
        let mut gateways: Vec<GatewaySpec> = Vec::new();
        for (name, priority) in known.clusters.reachable().zip(0..=u8::MAX) {
            if let Ok(Place::Gateways(of)) = place(name, known.clusters) {
                gateways.extend(of.into_iter().map(|gateway| GatewaySpec { priority, ..gateway }));
            }
        }
        let import = ImportSpec {
            allow: Allow::Hidden,
            own: false,
            gateways,
            quiet_close: true,
            failback: FAILBACK,
            egress: EgressSpec::default(),
            plaintext: false,
            answer: Answer::Linked,
        };
        Some((import, self.tree.origin(node)))
    }
}
