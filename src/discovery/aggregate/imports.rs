//! What other clusters say of the apps that are imported from them, entered into the routes of the configuration.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::model::app::AppId;
use crate::model::name::{Name, NamePattern};
use crate::model::offer::{Callee, Offer, Offered};
use crate::model::snapshot::{
    Allow, GatewaySpec, ImportSpec, Kind, NamespaceImport, Offering, Origin, RouteSpec, Routes,
};
use crate::routing::table::Table;

/// The routes with all that is offered: what is imported by name gets its marks, what is imported with its namespace becomes a
/// route. An app whose name leads elsewhere already, in `now` or among the routes, is left out: another cluster must not be able
/// to take a name, nor to make a table impossible.
pub(super) fn enter(routes: &Arc<Routes>, offered: &Offered, now: &Table) -> Arc<Routes> {
    if routes.peers.is_empty() || offered.is_empty() {
        return Arc::clone(routes);
    }
    let mut entered = Routes::clone(routes);
    for route in &mut entered.routes {
        let Some(import) = &mut route.import else { continue };
        let Some(callee) = Callee::parse(&route.label) else { continue };
        mark(import, &callee, offered);
    }
    let mut taken = Taken::new(routes, now);
    for written in &routes.namespaces {
        for app in apps(written, offered) {
            let Some(names) = taken.admit(routes, &app) else { continue };
            let mut import = written.import.clone();
            mark(&mut import, &Callee::App(app.clone()), offered);
            entered.routes.push(route(import, &written.origin, &app, names));
        }
    }
    Arc::new(entered)
}

pub(super) fn mark(import: &mut ImportSpec, callee: &Callee, offered: &Offered) {
    for GatewaySpec { cluster, offering, .. } in &mut import.gateways {
        let Some(offers) = offered.get(cluster) else { continue };
        *offering = match offers.apps.get(callee) {
            Some(offer) => Offering::Offered(Offer::clone(offer)),
            None => Offering::Missing,
        };
    }
}

/// All apps of a namespace that one of its clusters offers, in order.
fn apps(written: &NamespaceImport, offered: &Offered) -> Vec<AppId> {
    let clusters =
        written.import.gateways.iter().filter_map(|gateway| offered.get(&gateway.cluster));
    let apps = clusters.flat_map(|offers| offers.apps.keys().filter_map(Callee::app));
    let within = apps.filter(|app| *app.namespace() == *written.namespace);
    // By what they are called, so that two that differ only in case are one.
    let by_name: BTreeMap<_, _> =
        within.map(|app| (app.app().to_ascii_lowercase(), app.clone())).collect();
    by_name.into_values().collect()
}

/// The route of an app that is imported without being named in the configuration.
pub(super) fn route(
    import: ImportSpec,
    origin: &Origin,
    app: &AppId,
    names: Vec<Name>,
) -> RouteSpec {
    let name = |name| (NamePattern::Exact(name), origin.clone());
    RouteSpec {
        label: app.label(),
        kind: Kind::App,
        names: names.into_iter().map(name).collect(),
        allow: Allow::Hidden,
        quiet_close: import.quiet_close,
        plaintext: false,
        import: Some(import),
        endpoints: Vec::new(),
        check: None,
        send_proxy: false,
    }
}

/// Apps and names that stand for something already.
pub(super) struct Taken<'a> {
    now: &'a Table,
    labels: HashSet<String>,
    names: HashSet<Name>,
}

impl<'a> Taken<'a> {
    pub(super) fn new(routes: &Routes, now: &'a Table) -> Self {
        let all = routes.routes.iter();
        let exact = |(pattern, _): &(NamePattern, _)| match pattern {
            NamePattern::Exact(name) => Some(name.clone()),
            NamePattern::Below(_) => None,
        };
        Self {
            now,
            labels: all.clone().map(|route| route.label.to_ascii_lowercase()).collect(),
            names: all.flat_map(|route| &route.names).filter_map(exact).collect(),
        }
    }

    /// The names of an app that is to be added; `None` where it cannot be. What is imported or exported by name stays as it is.
    pub(super) fn admit(&mut self, routes: &Routes, app: &AppId) -> Option<Vec<Name>> {
        let label = app.label();
        let names = routes.reserved.iter().map(|template| template.expand(app).ok());
        let names: Vec<Name> = names.collect::<Option<_>>()?;
        let is_free = |name: &Name| {
            let leads = self.now.exact(name.as_str());
            !self.names.contains(name) && leads.is_none_or(|route| *route.label == *label)
        };
        if self.labels.contains(&label.to_ascii_lowercase()) || !names.iter().all(is_free) {
            return None;
        }
        self.names.extend(names.iter().cloned());
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offer::{Offers, Presence, Reach};
    use crate::model::snapshot::{Addresses, AllowRule, EndpointAt, PeerSpec, ReservedName};
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::Endpoints;
    use std::path::Path;

    fn origin() -> Origin {
        Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 }
    }

    fn name(written: &str) -> Name {
        Name::parse(written).unwrap()
    }

    fn import(clusters: &[&str]) -> ImportSpec {
        let gateway = |(priority, cluster): (u8, &&str)| GatewaySpec {
            cluster: (*cluster).into(),
            at: EndpointAt::parse(&format!("203.0.113.{priority}:8443")).unwrap(),
            priority,
            offering: Offering::Unknown,
        };
        ImportSpec {
            allow: Allow::Rules(vec![AllowRule::Any]),
            own: false,
            gateways: (0..).zip(clusters).map(gateway).collect(),
            quiet_close: true,
            failback: std::time::Duration::from_secs(30),
            egress: crate::model::egress::EgressSpec::default(),
            plaintext: false,
            answer: crate::model::snapshot::Answer::Linked,
        }
    }

    /// `shop/orders` by name from east, `lab/*` from east and south, and a plain route at a name of `lab`.
    fn routes() -> Arc<Routes> {
        let imported = NamespaceImport {
            namespace: "shop".into(),
            import: import(&["east"]),
            origin: origin(),
        };
        let app = |written| AppId::parse(written).unwrap();
        let like = imported.import.clone();
        let named = |app: &AppId, name| route(like.clone(), &imported.origin, app, vec![name]);
        let mut plain = named(&app("x/plain"), name("taken.lab.example"));
        (plain.kind, plain.import, plain.allow) = (Kind::Plain, None, Allow::Open);
        plain.label = "taken.lab.example".into();
        let orders = named(&app("shop/orders"), name("orders.shop.example"));
        let namespace = NamespaceImport {
            namespace: "lab".into(),
            import: import(&["east", "south"]),
            origin: origin(),
        };
        let reserved = ReservedName {
            template: "{app}.{namespace}.example".into(),
            suffix: name("example"),
            origin: origin(),
        };
        let peer = PeerSpec { cluster: "east".into(), gateways: vec![], wanted: Arc::default() };
        Arc::new(Routes {
            routes: vec![orders, plain],
            reserved: vec![reserved],
            namespaces: vec![namespace],
            peers: vec![peer],
            ..Routes::default()
        })
    }

    fn offered(says: &[(&str, &[&str])]) -> Offered {
        let presence = Arc::<Presence>::default();
        let offer = |written: &&str| {
            let app = Callee::parse(written).unwrap();
            let far = Name::parse(&format!("{}.far.example", app.app().unwrap().app()));
            let names = vec![far.unwrap_or_else(|_| name("far.example"))];
            (app, Offer { names, reach: Arc::new(Reach::new(&presence, 1)) })
        };
        let offers = |(cluster, apps): &(&str, &[&str])| {
            let cluster: Arc<str> = (*cluster).into();
            let apps = apps.iter().map(offer).collect();
            (Arc::clone(&cluster), Arc::new(Offers { cluster, apps, ignored: 0 }))
        };
        says.iter().map(offers).collect()
    }

    fn table(routes: &Routes) -> Table {
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes, addresses: &addresses, own: &own };
        build(&inputs, &mut Endpoints::default()).unwrap()
    }

    /// Each route's label, names and, by cluster, whether it is offered there.
    fn told(routes: &Routes) -> Vec<String> {
        let gateway = |gateway: &GatewaySpec| match &gateway.offering {
            Offering::Unknown => format!("{}?", gateway.cluster),
            Offering::Offered(_) => gateway.cluster.to_string(),
            Offering::Missing => format!("!{}", gateway.cluster),
        };
        let imported =
            routes.routes.iter().filter_map(|route| Some((route, route.import.as_ref()?)));
        let told = imported.map(|(route, import)| {
            let names: Vec<_> = route.names.iter().map(|(name, _)| name.to_string()).collect();
            let gateways: Vec<_> = import.gateways.iter().map(gateway).collect();
            format!("{} {} {}", route.label, names.join(","), gateways.join(","))
        });
        told.collect()
    }

    #[test]
    fn while_nobody_has_spoken_the_routes_are_those_of_the_configuration() {
        let routes = routes();
        let entered = enter(&routes, &Offered::new(), &Table::default());
        assert!(Arc::ptr_eq(&entered, &routes));
        let orders = "shop/orders orders.shop.example";
        assert_eq!(told(&entered), [format!("{orders} east?")]);
        let entered = enter(&routes, &offered(&[("south", &[])]), &Table::default());
        assert_eq!(told(&entered), [format!("{orders} east?")]);
        let entered = enter(&routes, &offered(&[("east", &[])]), &Table::default());
        assert_eq!(told(&entered), [format!("{orders} !east")]);
        let entered = enter(&routes, &offered(&[("east", &["shop/orders"])]), &Table::default());
        assert_eq!(told(&entered), [format!("{orders} east")]);
    }

    #[test]
    fn a_namespace_has_what_one_of_its_clusters_exports_there() {
        let routes = routes();
        let offered = offered(&[("east", &["lab/a", "shop/more"]), ("south", &["lab/b", "lab/a"])]);
        let entered = enter(&routes, &offered, &table(&routes));
        let expected = [
            "shop/orders orders.shop.example !east",
            "lab/a a.lab.example east,south",
            "lab/b b.lab.example !east,south",
        ];
        assert_eq!(told(&entered), expected);
        // Again, with the table that it makes in force: they do not stand in their own way.
        assert_eq!(told(&enter(&routes, &offered, &table(&entered))), expected);
        let made = table(&entered);
        let candidate = &made.lookup("a.lab.example").unwrap().route.candidates[0];
        assert_eq!(candidate.via.as_ref().unwrap().name, name("a.far.example"));
    }

    #[test]
    fn no_offer_takes_a_name_or_makes_a_table_impossible() {
        let routes = routes();
        let apps = ["lab/taken", "lab/Twin", "lab/twin", "lab/long", "shop/orders"];
        let long = format!("lab/{}", "l".repeat(64));
        let apps = apps.map(|app| if app == "lab/long" { &*long } else { app });
        let entered = enter(&routes, &offered(&[("east", &apps)]), &Table::default());
        let labels: Vec<_> = entered.routes.iter().map(|route| &*route.label).collect();
        assert_eq!(labels, ["shop/orders", "taken.lab.example", "lab/twin"]);
        table(&entered);
        // A name of a routes file is known by the table in force alone.
        let orders = enter(&routes, &offered(&[("east", &["lab/orders"])]), &table(&routes));
        assert_eq!(orders.routes.len(), 3);
        let mut elsewhere = Routes::clone(&routes);
        elsewhere.routes[1].names[0].0 = NamePattern::Exact(name("orders.lab.example"));
        let entered = enter(&routes, &offered(&[("east", &["lab/orders"])]), &table(&elsewhere));
        assert_eq!(entered.routes.len(), 2);
    }
}
