//! Apps of other clusters that apps here may call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::file::{self, List, Setting};
use crate::config::names::Template;
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::spot::{Spot, TextOr};
use crate::config::tree::NodeId;
use crate::config::units;
use crate::model::app::AppId;
use crate::model::name::{Name, NamePattern};
use crate::model::snapshot::{
    Allow, AllowRule, Answer, GatewaySpec, ImportSpec, Kind, Offering, Origin, RouteSpec,
};

use super::apps::{App, Apps, Named, app_id};
use super::clusters::Clusters;
use super::egress::{Pins, Wishes};
use super::namespaces::namespace;
use super::routes::quiet_close;
use super::{Resolver, items};

/// Long enough that a gateway or a sidecar which restarts has done so, and its pods' first moments are over.
pub(super) const FAILBACK: Duration = Duration::from_secs(30);

/// What the resolving of imports looks things up in.
pub(super) struct Known<'a> {
    pub(super) apps: &'a Apps,
    pub(super) templates: Option<&'a [Template]>,
    pub(super) clusters: &'a Clusters,
    pub(super) local: &'a [IpNet],
    pub(super) has_egress: bool,
}

/// Where an app is called, in this order: this cluster, or gateways of another.
pub(super) enum Place {
    Own,
    Gateways(Vec<GatewaySpec>),
}

/// An import as written, so far as it is right.
pub(super) struct Import {
    /// The label of its route.
    pub(super) label: Arc<str>,
    pub(super) node: NodeId,
    pub(super) places: Vec<Place>,
    pub(super) allow: Allow,
    pub(super) quiet_close: bool,
    pub(super) wishes: Wishes,
    pub(super) answer: Answer,
    pub(super) failback: Duration,
}

impl Resolver<'_> {
    /// The networks of this cluster.
    pub(super) fn local(&mut self, written: &Setting<file::Local>) -> Vec<IpNet> {
        let local = written.as_ref().and_then(|spot| spot.value.as_ref());
        self.networks(local.map(|local| items(&local.networks)).unwrap_or_default())
    }

    /// Adds what is imported to the routes: to an app's own, or as one of its own.
    pub(super) fn imports(
        &mut self,
        written: &List<file::Import>,
        known: &Known<'_>,
        pins: &mut Pins,
        routes: &mut Vec<RouteSpec>,
    ) {
        let mut imported = HashMap::new();
        for spot in items(written) {
            let Some(import) = &spot.value else { continue };
            if namespace(import).is_some() {
                continue;
            }
            let resolved = self.import((&import.allow, &import.clusters), spot.node, known);
            let Some((id, node)) = self.app_id(&import.app, spot.node) else { continue };
            if let Some(first) = imported.insert(id.clone(), node) {
                let message =
                    format!("{id} is imported twice, also at {}", self.tree.origin(first));
                self.wrong(node, Wrong::new(message, "join the two: one import, all its clusters"));
                continue;
            }
            if imported.len() == 1 {
                self.check_reach(node, known);
            }
            let wishes = self.wishes(import, &id.label(), pins);
            let own = self.own_app(&import.clusters, &id, known);
            let exported = routes
                .iter_mut()
                .find(|route| route.kind == Kind::App && *route.label == *id.label());
            let names = match &exported {
                Some(route) => {
                    self.check_name(import, route);
                    vec![]
                }
                None => self.app_names(&import.name, Named::Import, &id, node, known.templates),
            };
            let Some((allow, places)) = resolved else { continue };
            let quiet_close = quiet_close(&import.quiet_close);
            let answer = self.answer(&import.answer, &allow);
            let failback = self.parse(&import.failback, units::duration).unwrap_or(FAILBACK);
            let label = id.label();
            let import =
                Import { label, node, places, allow, quiet_close, wishes, answer, failback };
            match exported {
                Some(route) => self.join(import, route),
                None => routes.extend(self.imported(import, own, names)),
            }
        }
    }

    /// The parts of an import that stand for themselves. All are looked at, so that all mistakes are noted.
    pub(super) fn import(
        &mut self,
        (allow, clusters): (&Setting<file::Callers>, &List<String>),
        node: NodeId,
        known: &Known<'_>,
    ) -> Option<(Allow, Vec<Place>)> {
        let allow = self.callers(allow, node, known.apps);
        let fix = "add `clusters: [NAME, …]`, in the order in which they are to be tried";
        let clusters = self.required(clusters, node, "clusters", fix)?;
        let list = clusters.value.as_deref()?;
        if list.is_empty() {
            self.wrong(clusters.node, Wrong::new("the list is empty: it is called nowhere", fix));
        }
        let mut seen = BTreeSet::new();
        let mut places = Vec::new();
        for spot in list {
            let Some(name) = spot.value.as_deref() else { continue };
            if !seen.insert(name) {
                let message = format!("{name} stands in this list twice");
                self.wrong(spot.node, Wrong::new(message, "remove one of the two"));
                continue;
            }
            places.extend(self.parse_spot(spot, |name| place(name, known.clusters)));
        }
        Some((allow?, places))
    }

    /// Who may call what is imported: apps of this cluster. Without a list nobody may.
    fn callers(
        &mut self,
        written: &Setting<file::Callers>,
        import: NodeId,
        apps: &Apps,
    ) -> Option<Allow> {
        let fix =
            "add `allow: [NAMESPACE/APP]` with the apps of this cluster that may call it, or `any`";
        let Some(spot) = written else {
            self.doubtful(import, Wrong::new("nobody may call it: it has no `allow`", fix));
            return Some(Allow::Rules(vec![]));
        };
        match spot.value.as_ref()? {
            TextOr::Text(any) if any == "any" => Some(Allow::Rules(vec![AllowRule::Any])),
            TextOr::Text(_) => {
                let message = "`allow` is neither `any` nor a list of apps";
                self.wrong(
                    spot.node,
                    Wrong::new(message, "write `any`, or a list: [shop/frontend]"),
                );
                None
            }
            TextOr::Other(list) => {
                if list.is_empty() {
                    self.doubtful(
                        spot.node,
                        Wrong::new("the list is empty: it admits nobody", fix),
                    );
                }
                let rules =
                    list.iter().filter_map(|spot| self.parse_spot(spot, |app| caller(app, apps)));
                Some(Allow::Rules(rules.collect()))
            }
        }
    }

    /// What the name stands for. Callers who are sent to the other cluster are judged there alone.
    pub(super) fn answer(&mut self, written: &Setting<file::Answer>, allow: &Allow) -> Answer {
        let Some(spot) = written else { return Answer::default() };
        match spot.value {
            Some(file::Answer::Direct) => {
                if !matches!(allow, Allow::Rules(rules) if rules.contains(&AllowRule::Any)) {
                    let message = "with `answer: direct` callers go past this gateway, so `allow` does not bind them";
                    let fix = "write `answer: linked`, or `allow: any` here and who may call at the other cluster's export";
                    self.doubtful(spot.node, Wrong::new(message, fix));
                }
                Answer::Direct
            }
            Some(file::Answer::Linked) | None => Answer::Linked,
        }
    }

    /// An import is for local clients: without any it is for nobody. To be told once.
    pub(super) fn check_reach(&mut self, node: NodeId, known: &Known<'_>) {
        if known.local.is_empty() && !known.has_egress {
            let message = "no client is local, so nobody can call what is imported: there is no `local.networks`";
            let fix = "add `local: { networks: [CIDR] }` with the networks of this cluster, or `listeners.egress`";
            self.doubtful(node, Wrong::new(message, fix));
        }
    }

    /// The app's own endpoints, where this cluster is one of those that it is called in.
    fn own_app<'a>(
        &mut self,
        written: &List<String>,
        id: &AppId,
        known: &Known<'a>,
    ) -> Option<&'a App> {
        let is_own = |spot: &&Spot<String>| {
            spot.value.as_deref().is_some_and(|name| known.clusters.is_own(name))
        };
        let spot = items(written).iter().find(is_own)?;
        let app = known.apps.find(id);
        if app.is_none_or(|app| !app.is_served) {
            let name = spot.value.as_deref().unwrap_or_default();
            let message = format!("{name} is this cluster, and `apps` has no endpoints of {id}");
            let fix = format!(
                "add `apps: [{{ app: {id}, endpoints: [\"host:port\"] }}]`, or take {name} out of the list"
            );
            self.wrong(spot.node, Wrong::new(message, fix));
        }
        app
    }

    /// An app has one name, and the export has given it.
    fn check_name(&mut self, import: &file::Import, route: &RouteSpec) {
        let Some(own) = &import.name else { return };
        let parsed = self.parse_spot(own, |written| Name::parse(written).map_err(wrong_name));
        let same =
            |name: &Name| matches!(&*route.names, [(NamePattern::Exact(only), _)] if only == name);
        if let Some(name) = parsed.filter(|name| !same(name)) {
            let message = format!(
                "{} is exported under another name than {name}, and an app has one",
                route.label
            );
            let fix = "write the same `name` at the export and the import, or at neither";
            self.wrong(own.node, Wrong::new(message, fix));
        }
    }

    fn join(&mut self, import: Import, route: &mut RouteSpec) {
        route.import = self.import_spec(import, route);
    }

    fn imported(
        &mut self,
        import: Import,
        own: Option<&App>,
        names: Vec<(NamePattern, Origin)>,
    ) -> Option<RouteSpec> {
        let mut route = RouteSpec {
            label: Arc::clone(&import.label),
            kind: Kind::App,
            names,
            allow: Allow::Hidden,
            import: None,
            endpoints: own.map(|app| app.endpoints.clone()).unwrap_or_default(),
            check: own.and_then(|app| app.check),
            send_proxy: false,
            quiet_close: import.quiet_close,
            plaintext: false,
        };
        route.import = self.import_spec(import, &mut route);
        route.import.is_some().then_some(route)
    }

    /// Puts the priorities of the route's own endpoints and of gateways into one order: that of the import's clusters, and within
    /// this one that of the app.
    pub(super) fn import_spec(
        &mut self,
        import: Import,
        route: &mut RouteSpec,
    ) -> Option<ImportSpec> {
        let Import { node, places, allow, quiet_close, wishes, answer, failback, .. } = import;
        let Wishes { egress, plaintext } = wishes;
        let (own, gateways) = (false, vec![]);
        let mut import =
            ImportSpec { allow, own, gateways, quiet_close, failback, egress, plaintext, answer };
        let mut next = 0;
        for place in places {
            match place {
                Place::Own => {
                    import.own = true;
                    let steps: BTreeSet<u8> =
                        route.endpoints.iter().map(|at| at.priority).collect();
                    let ranks: HashMap<u8, usize> = steps.iter().copied().zip(next..).collect();
                    for endpoint in &mut route.endpoints {
                        let rank = ranks.get(&endpoint.priority).copied().unwrap_or_default();
                        endpoint.priority = u8::try_from(rank).unwrap_or(u8::MAX);
                    }
                    next += steps.len();
                }
                Place::Gateways(gateways) => {
                    let priority = u8::try_from(next).unwrap_or(u8::MAX);
                    let gateways = gateways.into_iter();
                    import
                        .gateways
                        .extend(gateways.map(|gateway| GatewaySpec { priority, ..gateway }));
                    next += 1;
                }
            }
        }
        if next > usize::from(u8::MAX) + 1 {
            let message = "its clusters and the priorities of its own endpoints are more than 256 steps together";
            self.wrong(node, Wrong::new(message, "name fewer clusters"));
            return None;
        }
        Some(import)
    }
}

pub(super) fn place(name: &str, clusters: &Clusters) -> Result<Place, Wrong> {
    if clusters.is_own(name) {
        return Ok(Place::Own);
    }
    let cluster = clusters.find(name)?;
    if !cluster.has_gateways {
        let fix = format!("add `gateways: [\"host:port\"]` to `clusters.{name}`");
        return Err(Wrong::new(
            format!("the cluster `{name}` has no gateways, so nothing leads there"),
            fix,
        ));
    }
    let of: Arc<str> = name.into();
    let gateway = |at: &_| GatewaySpec {
        cluster: Arc::clone(&of),
        at: Clone::clone(at),
        priority: 0,
        offering: Offering::Unknown,
    };
    Ok(Place::Gateways(cluster.gateways.iter().map(gateway).collect()))
}

fn caller(written: &str, apps: &Apps) -> Result<AllowRule, Wrong> {
    if written == "any" {
        return Ok(AllowRule::Any);
    }
    let id = app_id(written)?;
    match apps.find(&id) {
        Some(app) if app.calls => Ok(AllowRule::Caller(id)),
        Some(_) => {
            let fix = format!("add `from: [{{ network: CIDR }}]` to {id} under `apps`");
            Err(Wrong::new(format!("nothing tells when {id} calls: it has no `from`"), fix))
        }
        None => {
            let fix = match apps.closest(&id) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("add it: `apps: [{{ app: {id}, from: [{{ network: CIDR }}] }}]`"),
            };
            Err(Wrong::new(format!("{id} is not one of `apps`"), fix))
        }
    }
}
