//! What documents of allowed apps let local callers do.

use std::sync::Arc;

use crate::model::allowed::{self, Documents, RemoteApp};
use crate::model::app::AppId;
use crate::model::snapshot::Routes;

use super::order::{Order, Place};
use super::sides::Why;
use super::table::Route;

/// The documents of the configuration and of the store, and what bounds them.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    configured: allowed::Permissions,
    stored: Arc<Documents>,
    /// This cluster.
    own: Arc<str>,
}

impl Permissions {
    pub(super) fn new(routes: &Routes) -> Self {
        let (configured, own) = (routes.permissions.clone(), Arc::clone(&routes.cluster));
        Self { configured, stored: Arc::default(), own }
    }

    pub(super) fn with_documents(self, stored: Arc<Documents>) -> Self {
        Self { stored, ..self }
    }

    pub(super) fn stored(&self) -> &Arc<Documents> {
        &self.stored
    }

    /// What the configuration says.
    pub(super) fn configured(&self) -> &allowed::Permissions {
        &self.configured
    }

    /// Whether anybody has said something of allowed apps.
    pub(super) fn are_used(&self) -> bool {
        self.configured.are_used()
    }

    /// Whether nothing but a document admits to an app.
    pub(super) fn are_required(&self) -> bool {
        self.configured.required
    }

    /// What the caller's documents say of an app. Of two that have it the store's holds: it is the one that was written at run
    /// time.
    pub(super) fn find(&self, caller: &AppId, app: &str) -> Option<&RemoteApp> {
        let stored = self.stored.get(caller).and_then(|document| document.says.find(app));
        stored.or_else(|| self.configured.documents.get(caller)?.find(app))
    }

    /// The clusters where a caller is led, whom a document or the import admits: those of the document in its order, else those of
    /// the import in that of the import, as far as the cluster's own list has them. `None` where the import's order holds.
    pub(super) fn order(
        &self,
        route: &Route,
        caller: Option<&AppId>,
        document: Option<&RemoteApp>,
    ) -> Result<Option<Order>, Why> {
        let app = &route.label;
        let bound = self.configured.bound(app).ok_or_else(|| Why::OutOfBounds(Arc::clone(app)))?;
        let chosen = document.map(|remote| &*remote.clusters).unwrap_or_default();
        if chosen.is_empty() && bound.is_empty() {
            return Ok(None);
        }
        let places = if chosen.is_empty() {
            route.places()
        } else {
            chosen.iter().map(|cluster| self.place(cluster)).collect()
        };
        let is_within = |place: &Place| {
            let name = place.as_ref().unwrap_or(&self.own);
            bound.is_empty() || bound.contains(name)
        };
        let order = Order::new(places.into_iter().filter(is_within));
        if order.is_empty() {
            return Err(Why::NoCluster { caller: caller.cloned(), app: Arc::clone(app) });
        }
        Ok(Some(order))
    }

    fn place(&self, cluster: &Arc<str>) -> Place {
        (*cluster != self.own).then(|| Arc::clone(cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allowed::{AllowedApps, Document};
    use crate::model::client::Client;
    use crate::model::ending::Ending;
    use crate::model::name::NamePattern;
    use crate::model::snapshot::{
        Addresses, Allow, AllowRule, Answer, CallerSpec, EndpointAt, GatewaySpec, ImportSpec, Kind,
        Offering, Origin, RouteSpec,
    };
    use crate::routing::balance::Attempts;
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::Endpoints;
    use crate::routing::table::Table;
    use proptest::prelude::*;
    use proptest::sample::subsequence;
    use std::net::IpAddr;
    use std::path::Path;

    const CLUSTERS: [&str; 3] = ["east", "south", "north"];

    fn app(written: &str) -> AppId {
        AppId::parse(written).unwrap()
    }

    fn names(clusters: &[usize]) -> Vec<Arc<str>> {
        clusters.iter().map(|&cluster| CLUSTERS[cluster].into()).collect()
    }

    /// Who may call shop/orders, of shop/a at 10.0.0.1 and one that nobody knows.
    #[derive(Debug, Clone)]
    struct World {
        /// The clusters of the import, in order.
        import: Vec<usize>,
        /// `None`: only documents say who may call.
        allow: Option<Vec<AllowRule>>,
        /// What shop/a's documents in the configuration and in the store have of the app.
        configured: Option<Vec<usize>>,
        stored: Option<Vec<usize>>,
        bound: Bound,
        required: bool,
        is_known: bool,
    }

    /// The list of the whole cluster.
    #[derive(Debug, Clone)]
    enum Bound {
        /// There is none.
        Absent,
        /// It does not have the app.
        Elsewhere,
        /// It has the app, with these clusters.
        Within(Vec<usize>),
    }

    fn world() -> impl Strategy<Value = World> {
        let clusters =
            || subsequence((0..CLUSTERS.len()).collect::<Vec<_>>(), 0..=3).prop_shuffle();
        let some = || subsequence((0..CLUSTERS.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle();
        let rules = prop_oneof![
            Just(vec![]),
            Just(vec![AllowRule::Any]),
            Just(vec![AllowRule::Caller(app("shop/a"))]),
        ];
        (
            some(),
            prop::option::of(rules),
            prop::option::of(clusters()),
            prop::option::of(clusters()),
            prop_oneof![
                5 => Just(Bound::Absent),
                1 => Just(Bound::Elsewhere),
                4 => clusters().prop_map(Bound::Within),
            ],
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(import, allow, configured, stored, bound, required, is_known)| {
                World { import, allow, configured, stored, bound, required, is_known }
            })
    }

    impl World {
        fn says(clusters: &[usize]) -> AllowedApps {
            let remote = RemoteApp { app: app("shop/orders"), clusters: names(clusters) };
            AllowedApps { app: app("shop/a"), allowed: vec![remote] }
        }

        fn permissions(&self) -> allowed::Permissions {
            let documents = self.configured.iter().map(|to| (app("shop/a"), Self::says(to)));
            let bound = match &self.bound {
                Bound::Absent => None,
                Bound::Elsewhere => Some(Arc::default()),
                Bound::Within(clusters) => Some(Self::says(clusters).allowed.into()),
            };
            allowed::Permissions {
                documents: Arc::new(documents.collect()),
                bound,
                is_stored: true,
                required: self.required,
                import: None,
            }
        }

        fn table(&self) -> Table {
            let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
            let gateway = |(priority, &cluster): (u8, &usize)| GatewaySpec {
                cluster: CLUSTERS[cluster].into(),
                at: EndpointAt::parse(&format!("203.0.113.{cluster}:8443")).unwrap(),
                priority,
                offering: Offering::Unknown,
            };
            let import = ImportSpec {
                allow: self.allow.clone().map_or(Allow::Hidden, Allow::Rules),
                own: false,
                gateways: (0..).zip(&self.import).map(gateway).collect(),
                quiet_close: true,
                failback: std::time::Duration::ZERO,
                egress: crate::model::egress::EgressSpec::default(),
                plaintext: false,
                answer: Answer::Linked,
            };
            let route = RouteSpec {
                label: "shop/orders".into(),
                kind: Kind::App,
                names: vec![(NamePattern::parse("orders.example").unwrap(), origin)],
                allow: Allow::Hidden,
                import: Some(import),
                endpoints: vec![],
                check: None,
                send_proxy: false,
                quiet_close: true,
                plaintext: false,
            };
            let networks = vec!["10.0.0.1/32".parse().unwrap()];
            let caller = CallerSpec { app: app("shop/a"), networks, hosts: vec![], users: vec![] };
            let routes = Routes {
                routes: vec![route],
                local: vec!["10.0.0.0/8".parse().unwrap()],
                callers: vec![caller],
                cluster: "west".into(),
                permissions: self.permissions(),
                ..Routes::default()
            };
            let (addresses, own) = (Addresses::default(), OwnListeners::default());
            let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
            let stored = self.stored.iter().map(|clusters| {
                let document = Document { says: Self::says(clusters), version: "1".into() };
                (app("shop/a"), Arc::new(document))
            });
            let table = build(&inputs, &mut Endpoints::default()).unwrap();
            table.with_documents(Arc::new(stored.collect()))
        }

        /// The clusters where it is led, one after the other, by the sentences.
        fn expected(&self) -> Result<Vec<usize>, Ending> {
            let document = self.stored.as_ref().or(self.configured.as_ref());
            let document = document.filter(|_| self.is_known);
            let by_import = self.allow.iter().flatten().any(|rule| {
                *rule == AllowRule::Any
                    || self.is_known && *rule == AllowRule::Caller(app("shop/a"))
            });
            if document.is_none() && (!by_import || self.required) {
                return Err(if self.is_known { Ending::Denied } else { Ending::UnknownCaller });
            }
            let order = document.filter(|order| !order.is_empty()).unwrap_or(&self.import);
            let within: Vec<usize> = match &self.bound {
                Bound::Elsewhere => return Err(Ending::Denied),
                Bound::Within(bound) if !bound.is_empty() => {
                    order.iter().copied().filter(|cluster| bound.contains(cluster)).collect()
                }
                Bound::Within(_) | Bound::Absent => order.clone(),
            };
            if within.is_empty() {
                return Err(Ending::Denied);
            }
            Ok(within.into_iter().filter(|cluster| self.import.contains(cluster)).collect())
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_rules_read_one_by_one(world in world()) {
            let table = world.table();
            let source: IpAddr = if world.is_known { [10, 0, 0, 1] } else { [10, 0, 0, 9] }.into();
            let decided = table.decide("orders.example", &Client::direct((source, 1).into()));
            let led = decided.map_err(|refusal| refusal.ending()).map(|decision| {
                let tried = Attempts::new(&decision.route, decision.standing());
                let cluster = |name: &str| CLUSTERS.iter().position(|known| *known == name);
                tried.filter_map(|next| cluster(&next.via.as_ref()?.cluster)).collect::<Vec<_>>()
            });
            prop_assert_eq!(led, world.expected());
        }
    }
}
