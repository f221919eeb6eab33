//! The decision that the data path would take for a name, told step by step.
//!
//! Asks the table that the data path asks, and adds why.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::client::{Asker, Client, Side};
use crate::model::ending::{Alert, Ending};
use crate::model::name::{CanonicalName, NameError};
use crate::model::snapshot::Kind;
use crate::policy::{Admission, Policy};

use super::balance::Attempts;
use super::callers::Caller;
use super::choices::{absent, priorities};
use super::endpoint::Health;
use super::order::{Order, Standing};
use super::sides::Why;
use super::table::{Absence, EgressAddress, Match, Refusal, Route, Table};

pub use super::explanation::{
    AbsentEndpoint, CandidateEndpoint, EgressAnswer, Explanation, MatchedRoute, PolicyAnswer,
    PriorityGroup, SideAnswer, Verdict, ViaAnswer,
};

/// Explains a name, as far as somebody says who would ask for it. `live` says that health and load are those of a gateway at
/// work.
pub fn explain(table: &Table, written: &str, asker: &Asker, live: bool) -> Explanation {
    // No server name holds a colon.
    if let Ok(address) = written.parse() {
        return explain_address(table, written, address, asker, live);
    }
    let name = match CanonicalName::parse(written.as_bytes()) {
        Ok(name) => name,
        Err(error) => {
            let hint =
                format!("a hello with this name is refused before any route is looked at: {error}");
            return Explanation::blank(written, no_name(error), Some(hint));
        }
    };
    let name = name.as_str();
    let client = asker.client();
    let side = client.as_ref().map(|client| table.sides().side(client));
    let known = |explanation| Explanation {
        name: Some(name.into()),
        side: client.as_ref().zip(side).and_then(|(client, side)| side_answer(table, client, side)),
        ..explanation
    };
    let Some(found) = table.lookup(name) else {
        return known(unknown_name(table, written, name, client.as_ref()));
    };
    let judged = judge(table, found.route, name, client.as_ref());
    let (verdict, hint) = judged.verdict(found.route, side, asker, live);
    known(Explanation {
        route: Some(matched(table, &found, name)),
        priorities: priorities(found.route, judged.standing(side), live),
        policy: Some(judged.into()),
        egress: EgressAnswer::of(table, found.route),
        absent: absent(found.route, live),
        ..Explanation::blank(written, verdict, hint)
    })
}

/// Explains an egress address, as callers dial it or as it is listened at.
fn explain_address(
    table: &Table,
    written: &str,
    address: SocketAddr,
    asker: &Asker,
    live: bool,
) -> Explanation {
    let is_it = |at: &&EgressAddress| at.announce == address || at.bind == address;
    let Some(at) = table.egress().find(is_it) else {
        let hint = "no app has this egress address: `strait status` tells who has which, and what is not served";
        let verdict = refused(Ending::UnknownName, Alert::UnrecognizedName);
        return Explanation::blank(written, verdict, Some(hint.into()));
    };
    let (route, side) = (&at.route, Side::Local);
    let decided = asker.client().map(|client| table.decide_egress(at.bind, &client));
    let judged = match decided {
        Some(Ok(decision)) => Judged::Admitted(decision.admission, decision.order),
        Some(Err(refusal)) => Judged::Refused(refusal, judging_texts(route, side)),
        None => Judged::NoClient(judging_texts(route, side)),
    };
    let (verdict, hint) = judged.verdict(route, Some(side), asker, live);
    let matched = MatchedRoute {
        label: route.label.to_string(),
        kind: kind(route).into(),
        pattern: at.announce.to_string(),
        because: "it is an egress address of its own".into(),
        also: vec![],
    };
    let callers = asker.client().map(|client| callers(table, &client)).unwrap_or_default();
    let because = "it comes by egress, which is for local callers alone".into();
    Explanation {
        name: Some(written.into()),
        side: Some(SideAnswer { side: side.label().into(), because, callers }),
        route: Some(matched),
        priorities: priorities(route, judged.standing(Some(side)), live),
        policy: Some(judged.into()),
        absent: absent(route, live),
        ..Explanation::blank(written, verdict, hint)
    }
}

/// The apps that a client is known as: one names it, more are ambiguous.
fn callers(table: &Table, client: &Client) -> Vec<String> {
    match table.sides().caller(client) {
        Caller::Unknown => vec![],
        Caller::App(app) => vec![app.to_string()],
        Caller::Ambiguous(one, other) => vec![one.to_string(), other.to_string()],
    }
}

impl Explanation {
    fn blank(written: &str, verdict: Verdict, hint: Option<String>) -> Self {
        Self {
            written: written.into(),
            name: None,
            side: None,
            route: None,
            policy: None,
            egress: None,
            priorities: vec![],
            absent: vec![],
            verdict,
            hint,
        }
    }
}

/// Without `local.networks` there is but one side, and nothing to tell.
fn side_answer(table: &Table, client: &Client, side: Side) -> Option<SideAnswer> {
    if client.link.is_none() && !table.sides().has_local() {
        return None;
    }
    let because = match (&client.link, side) {
        (Some(linked), Side::Local | Side::Remote) => {
            format!("it comes over a link from cluster {}", linked.cluster)
        }
        (None, Side::Local) => "its address is in `local.networks`".into(),
        (None, Side::Remote) => "its address is not in `local.networks`".into(),
    };
    let callers = match side {
        Side::Remote => vec![],
        Side::Local => callers(table, client),
    };
    Some(SideAnswer { side: side.label().into(), because, callers })
}

/// As the hello parser refuses it.
fn no_name(error: NameError) -> Verdict {
    match error {
        NameError::Empty => refused(Ending::NoServerName, Alert::DecodeError),
        NameError::TooLong
        | NameError::LabelTooLong
        | NameError::EmptyLabel
        | NameError::BadByte(_)
        | NameError::IpLiteral => refused(Ending::MalformedHello, Alert::UnrecognizedName),
    }
}

fn unknown_name(table: &Table, written: &str, name: &str, client: Option<&Client>) -> Explanation {
    let refusal = client.and_then(|client| table.decide(name, client).err());
    let alert = refusal.map_or(Alert::UnrecognizedName, |refusal| refusal.alert());
    let hint = if table.is_empty() {
        "no route is configured at all".into()
    } else {
        format!(
            "no route has this name: write {name:?} under `names` or `routes`, or ask for another"
        )
    };
    Explanation::blank(written, refused(Ending::UnknownName, alert), Some(hint))
}

fn matched(table: &Table, found: &Match<'_>, name: &str) -> MatchedRoute {
    let wildcards = table.wildcards(name).filter_map(|wildcard| wildcard.below);
    let also: Vec<String> = wildcards
        .filter(|&below| found.below != Some(below))
        .map(|below| format!("*.{below}"))
        .collect();
    let (pattern, because) = match (found.below, also.is_empty()) {
        (None, true) => (name.into(), "it is exactly this name"),
        (None, false) => (name.into(), "it is exactly this name, which goes before every wildcard"),
        (Some(below), true) => {
            (format!("*.{below}"), "it is the only wildcard that covers the name")
        }
        (Some(below), false) => {
            (format!("*.{below}"), "it is the longest wildcard that covers the name")
        }
    };
    MatchedRoute {
        label: found.route.label.to_string(),
        kind: kind(found.route).into(),
        pattern,
        because: because.into(),
        also,
    }
}

fn kind(route: &Route) -> &'static str {
    match (route.kind, route.is_exported(), &route.import) {
        (Kind::Plain, _, _) | (Kind::App | Kind::Service, false, None) => "route",
        (Kind::App, true, None) => "export",
        (Kind::App, false, Some(_)) => "import",
        (Kind::App, true, Some(_)) => "export and import",
        (Kind::Service, true, None) => "exported service",
        (Kind::Service, false, Some(_)) => "imported service",
        (Kind::Service, true, Some(_)) => "exported and imported service",
    }
}

/// What the policy says of a client, if there is one.
enum Judged {
    /// With an order of clusters of its own, perhaps.
    Admitted(Admission, Option<Arc<Order>>),
    Refused(Refusal, Vec<String>),
    NoClient(Vec<String>),
}

fn judge(table: &Table, route: &Route, name: &str, client: Option<&Client>) -> Judged {
    match (client, &*route.policy) {
        (None, Policy::Open) => Judged::Admitted(Admission::Open, None),
        (None, Policy::Rules(_) | Policy::Hidden) => Judged::NoClient(all_rules(route)),
        (Some(client), Policy::Open | Policy::Rules(_) | Policy::Hidden) => {
            match table.decide(name, client) {
                Ok(decision) => Judged::Admitted(decision.admission, decision.order),
                Err(refusal) => {
                    Judged::Refused(refusal, judging_texts(route, table.sides().side(client)))
                }
            }
        }
    }
}

/// The policy that judges clients of a side.
fn judging(route: &Route, side: Side) -> &Policy {
    match (side, &route.import) {
        (Side::Local, Some(import)) => &import.callers,
        (Side::Local, None) | (Side::Remote, Some(_) | None) => &route.policy,
    }
}

fn judging_texts(route: &Route, side: Side) -> Vec<String> {
    judging(route, side).rules().map(String::from).collect()
}

/// Every rule that judges anybody; those for local and for remote clients told apart where they differ.
fn all_rules(route: &Route) -> Vec<String> {
    let Some(import) = &route.import else {
        return route.policy.rules().map(String::from).collect();
    };
    let local = import.callers.rules().map(|rule| format!("local {rule}"));
    local.chain(route.policy.rules().map(|rule| format!("remote {rule}"))).collect()
}

impl Judged {
    /// Where the client stands, if it is one of a side.
    fn standing(&self, side: Option<Side>) -> Option<Standing<'_>> {
        let order = match self {
            Self::Admitted(_, order) => order.as_deref(),
            Self::Refused(..) | Self::NoClient(_) => None,
        };
        side.map(|side| Standing { side, order })
    }

    fn verdict(
        &self,
        route: &Route,
        side: Option<Side>,
        asker: &Asker,
        live: bool,
    ) -> (Verdict, Option<String>) {
        match self {
            // Without an import both sides are offered the same.
            Self::Admitted(_, order) => {
                let (side, order) = (side.unwrap_or(Side::Remote), order.as_deref());
                endpoint_verdict(route, Standing { side, order }, live)
            }
            Self::NoClient(_) => {
                let because = match route.import {
                    Some(_) => {
                        "it is imported: what holds is another thing for local clients than for remote ones"
                    }
                    None => "the route's allow list asks where the client is",
                };
                let hint = "say where the client connects from (--from ADDRESS) to have it judged";
                (Verdict::Undecided { because: because.into() }, Some(hint.into()))
            }
            Self::Refused(refusal, _) => {
                let verdict = refused(refusal.ending(), refusal.alert());
                (verdict, Some(refused_hint(refusal, asker)))
            }
        }
    }
}

fn refused_hint(refusal: &Refusal, asker: &Asker) -> String {
    match &refusal.why {
        Why::NoRoute => "write the name under `names` or `routes`, or ask for another".into(),
        Why::NoAddress => "ask `strait status` which egress address the app has now".into(),
        Why::OnlyImported => "only clients from `local.networks` may call what is imported: add the client's network there if it is \
                              of this cluster, or export the app if others may call it here"
            .into(),
        Why::NotExported => "add the app to `exports`: a link leads to nothing else".into(),
        Why::NoRule => no_rule_hint(refusal, asker),
        Why::ClusterDenied(linked) => {
            format!("add `cluster: {}` to the export's `allow` if {linked} may call", linked.cluster)
        }
        Why::UnknownCaller => format!(
            "add `from: [{{ network: CIDR }}]` with the network of {asker} to the app under `apps` that it is. Behind NAT all callers \
             have one address"
        ),
        Why::Ambiguous(one, other) => {
            format!("take {asker} out of `from` of {one} or of {other}: an address may stand for one app alone")
        }
        Why::CallerDenied(app) => format!("add {app} to the import's `allow` if it may call"),
        Why::NotAllowed { caller, app, .. } => format!("if it may call: strait allow {caller} {app}"),
        Why::OutOfBounds(app) => {
            format!("add {app} to the item of `allowed` that has no `app`, if apps of this cluster may call it")
        }
        Why::NoCluster { app, .. } => format!(
            "add one of these clusters to {app} in the item of `allowed` that has no `app`, or allow another cluster: strait allow"
        ),
    }
}

fn no_rule_hint(refusal: &Refusal, asker: &Asker) -> String {
    let concealed = if refusal.known_source {
        ""
    } else {
        "; no rule of any route admits it, so it is told that the name is unknown"
    };
    format!(
        "add the network of {asker} to `allow` if this client may call{concealed}. Behind a load balancer or NAT the client's \
         address is theirs, unless they send a PROXY header"
    )
}

/// What becomes of a client that the policy admits. Asks the very choice that a connection makes.
fn endpoint_verdict(
    route: &Route,
    standing: Standing<'_>,
    live: bool,
) -> (Verdict, Option<String>) {
    let unresolved = route.absent.iter().any(|(_, absence)| *absence == Absence::Unresolved);
    let Some(next) = Attempts::new(route, standing).next() else {
        if unresolved && !live {
            let because =
                "its endpoints are DNS names, which only a running gateway resolves".into();
            let hint = "ask the gateway: strait explain NAME --admin URL".into();
            return (Verdict::Undecided { because }, Some(hint));
        }
        let verdict = refused(Ending::NoHealthyEndpoint, Alert::InternalError);
        return (verdict, Some(no_endpoint_hint(route, standing).into()));
    };
    let hint = match (next.health(), &next.via) {
        (Health::Healthy, _) => None,
        (Health::Ejected | Health::Down, None) => Some(
            "connects to every endpoint fail; one is tried all the same: see whether the sidecars run, and whether a \
             network policy stands between"
                .into(),
        ),
        (Health::Ejected | Health::Down, Some(via)) => Some(format!(
            "links to every gateway fail; one of {} is tried all the same: see whether it runs, and whether a firewall stands \
             between",
            via.cluster
        )),
    };
    (Verdict::Routed, hint)
}

fn no_endpoint_hint(route: &Route, standing: Standing<'_>) -> &'static str {
    let mut offered = route.candidates.iter().filter(|candidate| route.offers(candidate, standing));
    if offered.next().is_some() {
        return "the active checks of all endpoints fail: see whether the app's pods and their sidecars run, and whether the port is \
                the sidecar's internal gRPC port";
    }
    let only = |absence| route.absent.iter().all(|(_, why)| *why == absence);
    if only(Absence::OwnListener) {
        "the endpoints are this gateway's own listeners: write the sidecar's address instead"
    } else if only(Absence::NoAddress) {
        "the endpoints' DNS names have no address: see whether the app's pods run and its Service is headless"
    } else {
        "none of the endpoints has an address: see whether their DNS names are right and the DNS server answers"
    }
}

impl From<Judged> for PolicyAnswer {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Admitted(Admission::Open, _) => Self::Open,
            Judged::Admitted(Admission::Rule(rule), _) => Self::Admitted { rule: rule.to_string() },
            Judged::Admitted(Admission::Document(app), _) => {
                Self::Admitted { rule: format!("the allowed apps of {app}") }
            }
            Judged::Refused(refusal, rules) => match refusal.why {
                Why::OnlyImported => Self::OnlyImported,
                Why::NotExported => Self::NotExported,
                Why::NoRoute
                | Why::NoAddress
                | Why::NoRule
                | Why::ClusterDenied(_)
                | Why::UnknownCaller
                | Why::Ambiguous(..)
                | Why::CallerDenied(_)
                | Why::NotAllowed { .. }
                | Why::OutOfBounds(_)
                | Why::NoCluster { .. } => Self::Denied { rules },
            },
            Judged::NoClient(rules) => Self::NotJudged { rules },
        }
    }
}

fn refused(ending: Ending, alert: Alert) -> Verdict {
    Verdict::Refused { ending: ending.label().into(), alert: alert.label().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::app::AppId;
    use crate::model::client::Linked;
    use crate::model::name::NamePattern;
    use crate::model::snapshot::{
        Addresses, Allow, AllowRule, Answer, CallerSpec, EndpointAt, EndpointSpec, GatewaySpec,
        ImportSpec, Kind, Origin, RouteSpec, Routes,
    };
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::Endpoints;
    use std::path::Path;

    fn route(name: &str, allow: Allow, endpoints: &[(&str, u8)]) -> RouteSpec {
        let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
        let endpoint = |&(at, priority): &(&str, u8)| EndpointSpec {
            at: EndpointAt::parse(at).unwrap(),
            weight: 2,
            priority,
            origin: origin.clone(),
        };
        RouteSpec {
            label: name.into(),
            kind: Kind::Plain,
            names: vec![(NamePattern::parse(name).unwrap(), origin.clone())],
            allow,
            import: None,
            endpoints: endpoints.iter().map(endpoint).collect(),
            check: None,
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
        }
    }

    fn table() -> Table {
        let rules = Allow::Rules(vec![
            AllowRule::Network("10.0.0.0/8".parse().unwrap()),
            AllowRule::NetworksOf("east".into(), vec!["203.0.113.0/24".parse().unwrap()]),
        ]);
        let routes = vec![
            route("a.wild.example", rules, &[("10.0.0.2:1", 1), ("10.0.0.1:1", 0)]),
            route("*.wild.example", Allow::Open, &[("app.svc:1", 0)]),
            route("*.example", Allow::Open, &[("10.0.0.1:1", 0)]),
        ];
        let routes = Routes { routes, ..Routes::default() };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        build(&inputs, &mut Endpoints::default()).unwrap()
    }

    fn ask(written: &str, from: Option<&str>, live: bool) -> Explanation {
        let asker = from.map_or(Asker::Unsaid, |from| Asker::At(from.parse().unwrap()));
        explain(&table(), written, &asker, live)
    }

    fn refusal(ending: &str, alert: &str) -> Verdict {
        Verdict::Refused { ending: ending.into(), alert: alert.into() }
    }

    #[test]
    fn a_routed_name_is_told_from_name_to_endpoints() {
        let told = ask("A.Wild.example.", Some("203.0.113.9"), true);
        assert_eq!(told.name.as_deref(), Some("a.wild.example"));
        let route = told.route.unwrap();
        assert_eq!(route.pattern, "a.wild.example");
        assert_eq!(route.also, ["*.wild.example", "*.example"]);
        assert_eq!(told.policy, Some(PolicyAnswer::Admitted { rule: "networksOf east".into() }));
        let priorities: Vec<_> = told.priorities.iter().map(|group| group.priority).collect();
        assert_eq!(priorities, [0, 1]);
        let first = &told.priorities[0].endpoints[0];
        assert_eq!((first.weight, first.open, &*first.health), (2, Some(0), "healthy"));
        assert_eq!((told.verdict, told.hint), (Verdict::Routed, None));
    }

    #[test]
    fn offline_nothing_is_known_of_health() {
        let told = ask("a.wild.example", Some("10.0.0.1"), false);
        let first = &told.priorities[0].endpoints[0];
        assert_eq!((first.open, &*first.health), (None, "unknown"));
        let told = ask("b.wild.example", None, false);
        assert_eq!(told.route.unwrap().because, "it is the longest wildcard that covers the name");
        assert_eq!(told.policy, Some(PolicyAnswer::Open));
        assert!(
            matches!(told.verdict, Verdict::Undecided { .. }),
            "a running gateway may have the address"
        );
        assert_eq!(told.absent[0].because, "its DNS name is not resolved offline");
        let told = ask("b.wild.example", None, true);
        assert_eq!(told.verdict, refusal("no_healthy_endpoint", "internal_error"));
    }

    #[test]
    fn a_denied_client_is_told_by_which_rules() {
        let rules = vec!["network 10.0.0.0/8".to_owned(), "networksOf east".to_owned()];
        let told = ask("a.wild.example", Some("192.0.2.1"), true);
        assert_eq!(told.policy, Some(PolicyAnswer::Denied { rules: rules.clone() }));
        assert_eq!(told.verdict, refusal("denied", "unrecognized_name"));
        let told = ask("a.wild.example", None, true);
        assert_eq!(told.policy, Some(PolicyAnswer::NotJudged { rules }));
        assert!(matches!(told.verdict, Verdict::Undecided { .. }));
    }

    #[test]
    fn what_leads_nowhere_says_why() {
        let told = ask("elsewhere.org", Some("10.0.0.1"), true);
        assert_eq!(told.verdict, refusal("unknown_name", "unrecognized_name"));
        assert!(told.hint.unwrap().contains("elsewhere.org"));
        let told = ask("10.0.0.1", None, true);
        assert_eq!(
            (told.name, told.verdict),
            (None, refusal("malformed_hello", "unrecognized_name"))
        );
        let told = ask("", None, true);
        assert_eq!(told.verdict, refusal("no_server_name", "decode_error"));
    }

    #[test]
    fn an_answer_survives_the_way_to_the_command_line() {
        for (name, from) in
            [("a.wild.example", Some("10.0.0.1")), ("b.wild.example", None), ("..", None)]
        {
            let told = ask(name, from, true);
            let sent = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Explanation>(&sent).unwrap(), told);
        }
    }

    #[test]
    fn a_route_whose_endpoints_are_down_is_refused_with_the_reason() {
        let table = table();
        let found = table.lookup("x.example").unwrap();
        found.route.candidates[0].endpoint.checked(false);
        let told = explain(&table, "x.example", &Asker::Unsaid, true);
        assert_eq!(told.priorities[0].endpoints[0].health, "down");
        assert_eq!(told.verdict, refusal("no_healthy_endpoint", "internal_error"));
        assert!(told.hint.unwrap().contains("active checks"));
    }

    /// An app that west exports to east and imports from itself and then from east; local are 10.0.0.0/8.
    fn both() -> Table {
        let rule = AllowRule::Cluster { cluster: "east".into(), apps: vec![] };
        let gateway = GatewaySpec {
            cluster: "east".into(),
            at: EndpointAt::parse("203.0.113.1:8443").unwrap(),
            priority: 1,
            offering: crate::model::snapshot::Offering::Unknown,
        };
        let import = ImportSpec {
            answer: Answer::Linked,
            quiet_close: true,
            egress: crate::model::egress::EgressSpec::default(),
            plaintext: false,
            failback: std::time::Duration::ZERO,
            allow: Allow::Rules(vec![AllowRule::Caller(AppId::parse("shop/frontend").unwrap())]),
            own: true,
            gateways: vec![gateway],
        };
        let orders = RouteSpec {
            label: "shop/orders".into(),
            kind: Kind::App,
            import: Some(import),
            ..route("orders.example", Allow::Rules(vec![rule]), &[("10.0.9.1:50002", 0)])
        };
        let routes = Routes {
            routes: vec![orders, route("plain.example", Allow::Open, &[("10.0.9.2:1", 0)])],
            local: vec!["10.0.0.0/8".parse().unwrap()],
            callers: vec![CallerSpec {
                app: AppId::parse("shop/frontend").unwrap(),
                networks: vec!["10.0.4.0/24".parse().unwrap()],
                hosts: vec![],
                users: vec![],
            }],
            ..Routes::default()
        };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        build(&inputs, &mut Endpoints::default()).unwrap()
    }

    fn linked(cluster: &str) -> Asker {
        Asker::Linked(Linked { cluster: cluster.into(), app: None })
    }

    /// Addresses and clusters of what may be dialled, by priority.
    fn ways(told: &Explanation) -> Vec<(u8, String, Option<String>)> {
        let ways = told.priorities.iter().flat_map(|group| {
            group.endpoints.iter().map(|at| {
                let cluster = at.via.as_ref().map(|via| via.cluster.clone());
                (group.priority, at.address.to_string(), cluster)
            })
        });
        ways.collect()
    }

    #[test]
    fn a_local_caller_is_told_of_the_import_and_its_gateways() {
        let told =
            explain(&both(), "orders.example", &Asker::At("10.0.4.7".parse().unwrap()), true);
        let side = told.side.clone().unwrap();
        assert_eq!((&*side.side, side.callers), ("local", vec!["shop/frontend".to_owned()]));
        assert_eq!(told.route.as_ref().unwrap().kind, "export and import");
        assert_eq!(told.policy, Some(PolicyAnswer::Admitted { rule: "shop/frontend".into() }));
        let expected = [
            (0, "10.0.9.1:50002".to_owned(), None),
            (1, "203.0.113.1:8443".to_owned(), Some("east".to_owned())),
        ];
        assert_eq!(ways(&told), expected);
        assert_eq!(told.verdict, Verdict::Routed);
        let told =
            explain(&both(), "orders.example", &Asker::At("10.0.5.7".parse().unwrap()), true);
        assert_eq!(told.verdict, refusal("unknown_caller", "access_denied"));
        assert!(told.hint.unwrap().contains("10.0.5.7 to the app under `apps`"));
    }

    #[test]
    fn a_linked_cluster_is_told_of_the_export_and_never_of_a_gateway() {
        let told = explain(&both(), "orders.example", &linked("east"), true);
        assert_eq!(told.side.as_ref().unwrap().because, "it comes over a link from cluster east");
        assert_eq!(told.policy, Some(PolicyAnswer::Admitted { rule: "cluster east".into() }));
        assert_eq!(ways(&told), [(0, "10.0.9.1:50002".to_owned(), None)]);
        let told = explain(&both(), "orders.example", &linked("south"), true);
        assert_eq!(told.verdict, refusal("denied", "access_denied"));
        assert!(told.hint.unwrap().contains("`cluster: south`"));
        let told = explain(&both(), "plain.example", &linked("east"), true);
        assert_eq!(told.policy, Some(PolicyAnswer::NotExported));
    }

    #[test]
    fn who_does_not_say_where_they_are_is_told_of_both_sides() {
        let told = explain(&both(), "orders.example", &Asker::Unsaid, true);
        let rules = vec!["local shop/frontend".to_owned(), "remote cluster east".to_owned()];
        assert_eq!(told.policy, Some(PolicyAnswer::NotJudged { rules }));
        assert_eq!(ways(&told).len(), 2);
        assert!(matches!(told.verdict, Verdict::Undecided { .. }));
    }
}
