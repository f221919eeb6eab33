//! Where a client stands and what that lets it do: local ones are judged by the import, all others by the export.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::allowed::{self, Documents};
use crate::model::app::AppId;
use crate::model::client::{Client, Linked, Side};
use crate::model::ending::{Alert, Ending};
use crate::model::name::Name;
use crate::model::snapshot::{Addresses, Kind, Routes};
use crate::policy::{Admission, Networks, Policy};

use super::callers::{Caller, Callers};
use super::order::Order;
use super::permissions::Permissions;
use super::table::{Import, Route};

/// What a table knows of clients.
#[derive(Debug, Default)]
pub(super) struct Sides {
    local: Networks,
    callers: Callers,
    permissions: Permissions,
    /// Where clients come from whom some rule admits somewhere: they are no strangers.
    known: Networks,
}

/// A client may not use a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The route that it was refused at, for the record.
    pub label: Option<Arc<str>>,
    /// Whether the client may be told that the name exists: it is of this cluster, has proven to be of another one, or some
    /// `allow` rule admits its network somewhere.
    pub known_source: bool,
    /// Names by which the client might be known meanwhile, if they were asked for again.
    pub hosts: Vec<Name>,
}

/// Why a client may not use a name. Written as the record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No route has it.
    NoRoute,
    /// No app has this egress address any more.
    NoAddress,
    /// The app is there for local clients alone.
    OnlyImported,
    /// A link asks for what no export offers.
    NotExported,
    /// No rule of the route's policy admits the client's address.
    NoRule,
    /// No rule of the export admits the cluster, or this app of it.
    ClusterDenied(Arc<Linked>),
    /// The import asks which app calls, and the client's address is no app's.
    UnknownCaller,
    /// The import asks which app calls, and the client's address stands for two.
    Ambiguous(AppId, AppId),
    /// The import does not admit this app.
    CallerDenied(AppId),
    /// No document of the caller has the app, and no import admits it.
    NotAllowed {
        /// Who calls.
        caller: AppId,
        /// What is called.
        app: Arc<str>,
        /// Whether an import could not admit it.
        required: bool,
    },
    /// The list of the whole cluster does not have the app.
    OutOfBounds(Arc<str>),
    /// Of the clusters that the caller's document or the import has, the cluster's list leaves none.
    NoCluster {
        /// Who calls.
        caller: Option<AppId>,
        /// What is called.
        app: Arc<str>,
    },
}

impl Sides {
    pub(super) fn new(routes: &Routes, addresses: &Addresses, table: &[Arc<Route>]) -> Self {
        Self {
            local: Networks::of(routes.local.iter().copied()),
            callers: Callers::new(&routes.callers, addresses),
            permissions: Permissions::new(routes),
            known: Networks::admitted_by_rules(table.iter().map(|route| &*route.policy)),
        }
    }

    /// The same with the documents of a store.
    pub(super) fn with_documents(self, documents: Arc<Documents>) -> Self {
        Self { permissions: self.permissions.with_documents(documents), ..self }
    }

    pub(super) fn documents(&self) -> &Arc<Documents> {
        self.permissions.stored()
    }

    pub(super) fn permissions(&self) -> &allowed::Permissions {
        self.permissions.configured()
    }

    /// Whether anybody can be local.
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        self.local.contain(address)
    }

    /// Where a client stands.
    pub(super) fn side(&self, client: &Client) -> Side {
        match client.network_address() {
            Some(address) if self.is_local(address) => Side::Local,
            Some(_) | None => Side::Remote,
        }
    }

    /// Who a client is among the apps of this cluster. Nobody of another one is.
    pub(super) fn caller(&self, client: &Client) -> Caller {
        client
            .network_address()
            .map_or(Caller::Unknown, |address| self.callers.at(address, client.user))
    }

    /// Whether anything tells where an app of this cluster calls from.
    pub(super) fn know(&self, app: &AppId) -> bool {
        self.callers.know(app)
    }

    /// Whether any app of this cluster is known by the user whom its processes run as.
    pub(super) fn know_users(&self) -> bool {
        self.callers.know_users()
    }

    /// The names that stand for the addresses of those who may call what is imported.
    fn hosts(&self, route: &Route, import: &Import) -> Vec<Name> {
        let by_import = import.callers.callers().flat_map(|app| self.callers.hosts(app));
        let allowed = |app: &AppId| self.permissions.find(app, &route.label).is_some();
        let by_document = self.callers.named().filter(|(app, _)| allowed(app));
        let by_document = by_document.flat_map(|(_, hosts)| hosts);
        by_import.chain(by_document).cloned().collect()
    }

    /// Whether a client may use a route, and as whom.
    pub(super) fn judge(&self, route: &Route, client: &Client, side: Side) -> Result<Judged, Why> {
        match (side, &route.import) {
            (Side::Local, Some(_)) => self.judge_caller(route, client, side, self.caller(client)),
            (Side::Local, None) | (Side::Remote, Some(_) | None) => judge_client(route, client),
        }
    }

    /// The same of a client that has been taken for an app before.
    pub(super) fn judge_as(
        &self,
        route: &Route,
        client: &Client,
        side: Side,
        caller: Option<AppId>,
    ) -> Result<Judged, Why> {
        self.judge_caller(route, client, side, caller.map_or(Caller::Unknown, Caller::App))
    }

    fn judge_caller(
        &self,
        route: &Route,
        client: &Client,
        side: Side,
        caller: Caller,
    ) -> Result<Judged, Why> {
        let Some(import) = route.import.as_deref().filter(|_| side == Side::Local) else {
            return judge_client(route, client);
        };
        // What is no app is a matter of its import alone.
        if !self.permissions.are_used() || route.kind != Kind::App {
            return judge_by_import(import, client, caller);
        }
        self.judge_app(route, import, client, caller)
    }

    fn judge_app(
        &self,
        route: &Route,
        import: &Import,
        client: &Client,
        caller: Caller,
    ) -> Result<Judged, Why> {
        let app = match &caller {
            Caller::App(app) => Some(app.clone()),
            Caller::Unknown | Caller::Ambiguous(..) => None,
        };
        let document = app.as_ref().and_then(|app| self.permissions.find(app, &route.label));
        let judged = match (document, &app) {
            (Some(_), Some(app)) => {
                let (admission, caller) = (Admission::Document(app.clone()), app.clone());
                Judged { admission, caller: Some(caller), order: None }
            }
            // Without a document it is what it is without documents: an app of this cluster.
            _ if import.is_by_documents() && !matches!(*route.policy, Policy::Hidden) => {
                let judged = judge_client(route, client)?;
                return Ok(Judged { order: Some(Arc::new(Order::own())), ..judged });
            }
            (None | Some(_), _) => self.judge_without_document(route, import, client, caller)?,
        };
        let order = self.permissions.order(route, judged.caller.as_ref(), document)?;
        Ok(Judged { order: order.map(Arc::new), ..judged })
    }

    /// By the import's own list, as far as that counts.
    fn judge_without_document(
        &self,
        route: &Route,
        import: &Import,
        client: &Client,
        caller: Caller,
    ) -> Result<Judged, Why> {
        let required = self.permissions.are_required();
        let by_import = judge_by_import(import, client, caller.clone());
        match (by_import, caller) {
            (Ok(judged), _) if !required => Ok(judged),
            (Ok(_) | Err(_), Caller::App(caller)) => {
                Err(Why::NotAllowed { caller, app: Arc::clone(&route.label), required })
            }
            (Ok(_) | Err(_), Caller::Unknown) => Err(Why::UnknownCaller),
            (Ok(_) | Err(_), Caller::Ambiguous(one, other)) => Err(Why::Ambiguous(one, other)),
        }
    }

    pub(super) fn refusal(
        &self,
        why: Why,
        route: Option<&Route>,
        client: &Client,
        side: Side,
    ) -> Refusal {
        let known = |address| side == Side::Local || self.known.contain(address);
        let known_source = client.network_address().is_none_or(known);
        let import = route.and_then(|route| route.import.as_deref());
        let hosts = match (&why, route, import) {
            (Why::UnknownCaller, Some(route), Some(import)) => self.hosts(route, import),
            (_, Some(_) | None, Some(_) | None) => Vec::new(),
        };
        let label = route.map(|route| Arc::clone(&route.label));
        Refusal { why, label, known_source, hosts }
    }
}

/// A client may use a route.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) admission: Admission,
    /// The app of this cluster that it was taken for.
    pub(super) caller: Option<AppId>,
    /// The clusters that it may be led to, in its order, where that is not the import's.
    pub(super) order: Option<Arc<Order>>,
}

fn judge_by_import(import: &Import, client: &Client, caller: Caller) -> Result<Judged, Why> {
    let app = match &caller {
        Caller::App(app) => Some(app),
        Caller::Unknown | Caller::Ambiguous(..) => None,
    };
    let order = None;
    // Where anybody may call it does not matter who does.
    match (import.callers.admit(client, app), caller) {
        (Some(admission), Caller::App(app)) => Ok(Judged { admission, caller: Some(app), order }),
        (Some(admission), Caller::Unknown | Caller::Ambiguous(..)) => {
            Ok(Judged { admission, caller: None, order })
        }
        (None, Caller::App(app)) => Err(Why::CallerDenied(app)),
        (None, Caller::Unknown) => Err(Why::UnknownCaller),
        (None, Caller::Ambiguous(one, other)) => Err(Why::Ambiguous(one, other)),
    }
}

fn judge_client(route: &Route, client: &Client) -> Result<Judged, Why> {
    let admitted = |admission| Judged { admission, caller: None, order: None };
    admit_client(route, client).map(admitted)
}

fn admit_client(route: &Route, client: &Client) -> Result<Admission, Why> {
    if matches!(*route.policy, Policy::Hidden) {
        return Err(Why::OnlyImported);
    }
    match &client.link {
        Some(_) if !route.is_exported() => Err(Why::NotExported),
        Some(linked) => {
            let admission = route.policy.admit(client, None);
            admission.ok_or_else(|| Why::ClusterDenied(Arc::clone(linked)))
        }
        None => route.policy.admit(client, None).ok_or(Why::NoRule),
    }
}

impl Refusal {
    /// Whether nobody knows which app the client is.
    pub fn is_of_unknown_caller(&self) -> bool {
        self.why == Why::UnknownCaller
    }

    /// What the operator can do, where the ending alone does not tell.
    pub fn hint(&self) -> Option<&'static str> {
        match self.why {
            Why::NotAllowed { .. } => Some(
                "if it may call: `strait allow CALLER APP`; `strait allowed CALLER` tells what it may call",
            ),
            Why::OutOfBounds(_) | Why::NoCluster { .. } => Some(
                "the item of `allowed` that has no `app` bounds every app of the cluster: add the app there, and the clusters where \
                 it may be called",
            ),
            Why::NoRoute
            | Why::NoAddress
            | Why::OnlyImported
            | Why::NotExported
            | Why::NoRule
            | Why::ClusterDenied(_)
            | Why::UnknownCaller
            | Why::Ambiguous(..)
            | Why::CallerDenied(_) => None,
        }
    }

    /// How the connection ends.
    pub fn ending(&self) -> Ending {
        match self.why {
            Why::NoRoute | Why::NoAddress | Why::OnlyImported | Why::NotExported => {
                Ending::UnknownName
            }
            Why::UnknownCaller | Why::Ambiguous(..) => Ending::UnknownCaller,
            Why::NoRule
            | Why::ClusterDenied(_)
            | Why::CallerDenied(_)
            | Why::NotAllowed { .. }
            | Why::OutOfBounds(_)
            | Why::NoCluster { .. } => Ending::Denied,
        }
    }

    /// The TLS alert that tells the client. Strangers cannot tell a name that is denied from one that is not there, and nobody
    /// elsewhere one that is only imported.
    pub fn alert(&self) -> Alert {
        let told = match self.why {
            Why::NoRoute | Why::NoAddress | Why::OnlyImported | Why::NotExported => false,
            Why::NoRule
            | Why::ClusterDenied(_)
            | Why::UnknownCaller
            | Why::Ambiguous(..)
            | Why::CallerDenied(_)
            | Why::NotAllowed { .. }
            | Why::OutOfBounds(_)
            | Why::NoCluster { .. } => self.known_source,
        };
        if told { Alert::AccessDenied } else { Alert::UnrecognizedName }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => out.write_str("no route has this name"),
            Self::NoAddress => out.write_str("no app has this egress address any more"),
            Self::OnlyImported => out
                .write_str("it is imported and not exported: it is there for local clients alone"),
            Self::NotExported => {
                out.write_str("no export has this name, and a link leads to nothing else")
            }
            Self::NoRule => out.write_str("no allow rule of the route admits the source"),
            Self::ClusterDenied(linked) => {
                write!(out, "no allow rule of the export admits {linked}")
            }
            Self::UnknownCaller => out
                .write_str("the import asks which app calls, and no app's `from` has this source"),
            Self::Ambiguous(one, other) => write!(
                out,
                "the import asks which app calls, and this source is ambiguous: it is in `from` of {one} and of {other}"
            ),
            Self::CallerDenied(app) => write!(out, "the import's allow list does not have {app}"),
            Self::NotAllowed { caller, app, required: true } => write!(
                out,
                "the allowed apps of {caller} do not have {app}, and with `allowedApps.required` nothing else admits"
            ),
            Self::NotAllowed { caller, app, required: false } => write!(
                out,
                "the allowed apps of {caller} do not have {app}, and no import's allow list has {caller}"
            ),
            Self::OutOfBounds(app) => {
                write!(out, "`allowed` of the whole cluster does not have {app}")
            }
            Self::NoCluster { caller, app } => {
                let whose = caller.as_ref().map(|caller| format!(" for {caller}"));
                let whose = whose.unwrap_or_default();
                write!(
                    out,
                    "`allowed` of the whole cluster has {app} in none of the clusters where it could be called{whose}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{Name, NamePattern};
    use crate::model::snapshot::{
        Addresses, Allow, AllowRule, Answer, CallerSpec, EndpointAt, EndpointSpec, GatewaySpec,
        ImportSpec, Kind, Origin, RouteSpec,
    };
    use crate::routing::balance::Attempts;
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::Endpoints;
    use crate::routing::table::Table;
    use ipnet::IpNet;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::path::Path;

    const APPS: [&str; 3] = ["shop/a", "shop/b", "shop/c"];
    const CLUSTERS: [&str; 2] = ["east", "south"];
    /// Clients of the naive model: two local networks, one of which nests in the other, and two that are not.
    const SOURCES: [&str; 4] = ["10.0.1.1", "10.0.2.1", "192.0.2.1", "198.51.100.1"];

    fn app_id(written: &str) -> AppId {
        AppId::parse(written).unwrap()
    }

    fn net(written: &str) -> IpNet {
        written.parse().unwrap()
    }

    /// An app under one name, with an endpoint of its own and a gateway of each cluster that its import names.
    fn entry(export: Option<Vec<AllowRule>>, import: Option<(Vec<AllowRule>, bool)>) -> RouteSpec {
        let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
        let own = EndpointSpec {
            at: EndpointAt::parse("10.0.9.1:50002").unwrap(),
            weight: 1,
            priority: 0,
            origin: origin.clone(),
        };
        let gateway = |(number, cluster): (u8, &&str)| GatewaySpec {
            cluster: (*cluster).into(),
            at: EndpointAt::parse(&format!("203.0.113.{number}:8443")).unwrap(),
            priority: number,
            offering: crate::model::snapshot::Offering::Unknown,
        };
        RouteSpec {
            label: "shop/orders".into(),
            kind: Kind::App,
            names: vec![(NamePattern::parse("orders.example").unwrap(), origin)],
            allow: export.map_or(Allow::Hidden, Allow::Rules),
            import: import.map(|(rules, own)| ImportSpec {
                allow: Allow::Rules(rules),
                own,
                answer: Answer::Linked,
                quiet_close: true,
                egress: crate::model::egress::EgressSpec::default(),
                plaintext: false,
                failback: std::time::Duration::ZERO,
                gateways: (1..).zip(&CLUSTERS).map(gateway).collect(),
            }),
            endpoints: vec![own],
            check: None,
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
        }
    }

    fn table(route: RouteSpec, callers: &[(AppId, Vec<IpNet>)]) -> Table {
        let local = vec![net("10.0.0.0/16")];
        let spec = |(app, networks): &(AppId, Vec<IpNet>)| {
            let (app, networks) = (app.clone(), networks.clone());
            CallerSpec { app, networks, hosts: vec![], users: vec![] }
        };
        let callers = callers.iter().map(spec).collect();
        let routes = Routes { routes: vec![route], local, callers, ..Routes::default() };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        build(&inputs, &mut Endpoints::default()).unwrap()
    }

    fn direct(source: &str) -> Client {
        let source: IpAddr = source.parse().unwrap();
        Client::direct((source, 1).into())
    }

    fn linked(cluster: &str, app: Option<&str>) -> Client {
        let linked = Linked { cluster: cluster.into(), app: app.map(app_id) };
        // The far cluster says that the client is one of ours: nothing may come of it.
        Client { link: Some(Arc::new(linked)), ..direct("10.0.1.1") }
    }

    fn why(table: &Table, client: &Client) -> (Why, Ending, Alert) {
        let refusal = table.decide("orders.example", client).unwrap_err();
        let (ending, alert) = (refusal.ending(), refusal.alert());
        (refusal.why, ending, alert)
    }

    #[test]
    fn what_is_imported_is_there_for_local_clients_alone() {
        let table = table(entry(None, Some((vec![AllowRule::Any], true))), &[]);
        let decision = table.decide("orders.example", &direct("10.0.1.1")).unwrap();
        assert_eq!((decision.side, decision.caller), (Side::Local, None));
        let unknown = table.decide("nobody.example", &direct("192.0.2.1")).unwrap_err();
        for client in [direct("192.0.2.1"), linked("east", None)] {
            let (why, ending, alert) = why(&table, &client);
            assert_eq!((why, ending), (Why::OnlyImported, Ending::UnknownName));
            assert_eq!(alert, unknown.alert(), "nobody elsewhere learns that it is there");
        }
        assert!(!table.exports("orders.example"));
    }

    #[test]
    fn an_import_asks_which_app_calls_and_says_why_not() {
        let callers = [
            (app_id("shop/a"), vec![net("10.0.1.0/24")]),
            (app_id("shop/b"), vec![net("10.0.0.0/22")]),
        ];
        let rules = vec![AllowRule::Caller(app_id("shop/a"))];
        let ambiguous = table(entry(None, Some((rules.clone(), false))), &callers);
        let (reason, ending, alert) = why(&ambiguous, &direct("10.0.1.1"));
        assert_eq!((ending, alert), (Ending::UnknownCaller, Alert::AccessDenied));
        let text = "it is in `from` of shop/a and of shop/b";
        assert!(reason.to_string().ends_with(text), "{reason}");
        assert_eq!(why(&ambiguous, &direct("10.0.2.1")).0, Why::CallerDenied(app_id("shop/b")));
        assert_eq!(why(&ambiguous, &direct("10.0.200.1")).1, Ending::UnknownCaller);
        let clear = table(entry(None, Some((rules, false))), &callers[..1]);
        let decision = clear.decide("orders.example", &direct("10.0.1.1")).unwrap();
        assert_eq!(decision.caller, Some(app_id("shop/a")));
        assert_eq!(decision.admission, Admission::Rule("shop/a".into()));
    }

    #[test]
    fn a_link_leads_to_exports_alone_and_is_judged_by_cluster_and_app() {
        let rule = AllowRule::Cluster { cluster: "east".into(), apps: vec![app_id("shop/a")] };
        let export = table(entry(Some(vec![rule]), None), &[]);
        assert!(export.exports("orders.example"));
        let admitted = export.decide("orders.example", &linked("east", Some("shop/a"))).unwrap();
        assert_eq!(admitted.admission, Admission::Rule("cluster east for shop/a".into()));
        assert_eq!(admitted.side, Side::Remote);
        let (reason, ending, _) = why(&export, &linked("east", Some("shop/b")));
        assert_eq!(ending, Ending::Denied);
        assert_eq!(reason.to_string(), "no allow rule of the export admits shop/b of cluster east");
        let network = vec![AllowRule::Network(net("10.0.0.0/8"))];
        let by_network = table(entry(Some(network), None), &[]);
        assert_eq!(why(&by_network, &linked("east", None)).1, Ending::Denied);
        let plain = RouteSpec { kind: Kind::Plain, allow: Allow::Open, ..entry(None, None) };
        assert_eq!(why(&table(plain, &[]), &linked("east", None)).0, Why::NotExported);
    }

    /// What a client of the model may be led to: own endpoint, gateways; or nothing.
    #[derive(Debug, PartialEq)]
    enum Led {
        Refused(Ending),
        To(BTreeSet<String>),
    }

    /// A made-up world: who is local by which networks, what is exported and imported, and who asks.
    #[derive(Debug, Clone)]
    struct World {
        /// Apps that call from 10.0.1.0/24 and from 10.0.0.0/22, by their number.
        callers: [Option<usize>; 2],
        /// `None`: not exported. Rules by number: any, the network of the third source, and each cluster.
        export: Option<BTreeSet<usize>>,
        /// `None`: not imported. Apps by number, and whether the own cluster is called too.
        import: Option<(BTreeSet<usize>, bool)>,
        source: usize,
        /// The cluster and the app that it claims.
        link: Option<(usize, Option<usize>)>,
    }

    fn world() -> impl Strategy<Value = World> {
        let some = |most: usize| prop::collection::btree_set(0..most, 0..3);
        let caller = || prop::option::of(0..APPS.len());
        (
            [caller(), caller()],
            prop::option::of(some(4)),
            prop::option::of((some(APPS.len()), any::<bool>())),
            0..SOURCES.len(),
            prop::option::weighted(0.3, (0..CLUSTERS.len(), caller())),
        )
            .prop_map(|(callers, export, import, source, link)| World {
                callers,
                export,
                import,
                source,
                link,
            })
    }

    impl World {
        fn table(&self) -> Table {
            let rule = |&number: &usize| match number {
                0 => AllowRule::Any,
                1 => AllowRule::Network(net("192.0.2.0/24")),
                cluster => AllowRule::Cluster {
                    cluster: CLUSTERS[cluster - 2].into(),
                    apps: if cluster == 2 { vec![app_id(APPS[0])] } else { vec![] },
                },
            };
            let export = self.export.as_ref().map(|rules| rules.iter().map(rule).collect());
            let import = self.import.as_ref().map(|(apps, own)| {
                (apps.iter().map(|&app| AllowRule::Caller(app_id(APPS[app]))).collect(), *own)
            });
            let networks = ["10.0.1.0/24", "10.0.0.0/22"].map(net);
            let from = |(app, network): (&Option<usize>, IpNet)| {
                app.map(|app| (app_id(APPS[app]), vec![network]))
            };
            let callers: Vec<_> = self.callers.iter().zip(networks).filter_map(from).collect();
            table(entry(export, import), &callers)
        }

        fn client(&self) -> Client {
            match self.link {
                Some((cluster, app)) => linked(CLUSTERS[cluster], app.map(|app| APPS[app])),
                None => direct(SOURCES[self.source]),
            }
        }

        /// The sentences, one after the other.
        fn expected(&self) -> Led {
            let local = self.link.is_none() && self.source < 2;
            match &self.import {
                Some((allowed, own)) if local => {
                    let [narrow, wide] = self.callers;
                    let narrow = narrow.filter(|_| self.source == 0);
                    let apps: BTreeSet<usize> = narrow.into_iter().chain(wide).collect();
                    match apps.iter().collect::<Vec<_>>()[..] {
                        [app] if allowed.contains(app) => to(*own, true),
                        [_] => Led::Refused(Ending::Denied),
                        _ => Led::Refused(Ending::UnknownCaller),
                    }
                }
                _ => {
                    let Some(rules) = &self.export else {
                        return Led::Refused(Ending::UnknownName);
                    };
                    let by_address = self.link.is_none() && self.source == 2 && rules.contains(&1);
                    let by_link = self.link.is_some_and(|(cluster, app)| {
                        rules.contains(&(cluster + 2)) && (cluster == 1 || app == Some(0))
                    });
                    if rules.contains(&0) || by_address || by_link {
                        to(true, false)
                    } else {
                        Led::Refused(Ending::Denied)
                    }
                }
            }
        }
    }

    fn to(own: bool, gateways: bool) -> Led {
        let own = own.then(|| "10.0.9.1:50002".to_owned());
        let gateways = (1..=CLUSTERS.len()).filter(|_| gateways);
        let gateways = gateways.map(|number| format!("203.0.113.{number}:8443"));
        Led::To(own.into_iter().chain(gateways).collect())
    }

    proptest! {
        #[test]
        fn agrees_with_the_rules_read_one_by_one(world in world()) {
            // A table holds an app that is neither exported nor imported as one that nobody may see.
            let (table, client) = (world.table(), world.client());
            let led = match table.decide("orders.example", &client) {
                Err(refusal) => Led::Refused(refusal.ending()),
                Ok(decision) => {
                    let tried = Attempts::new(&decision.route, decision.side);
                    Led::To(tried.map(|next| next.endpoint.address.to_string()).collect())
                }
            };
            prop_assert_eq!(led, world.expected());
            if let Some(route) = table.lookup("orders.example") {
                let vias = route.route.candidates.iter().filter_map(|candidate| candidate.via.as_ref());
                let name = Name::parse("orders.example").unwrap();
                prop_assert!(vias.clone().all(|via| via.name == name));
            }
        }
    }
}
