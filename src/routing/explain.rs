//! The decision that the data path would take for a name, told step by step.
//!
//! Made on the gateway or offline, rendered by the command line: hence plain values that serialise both ways.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::client::Client;
use crate::model::ending::{Alert, Ending};
use crate::model::name::{CanonicalName, NameError};
use crate::policy::{Admission, Policy};

use super::balance::Attempts;
use super::endpoint::{Endpoint, Health};
use super::table::{Absence, Match, Refusal, Route, Table};

/// What a gateway does with a connection that asks for a name, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name as it was asked for.
    pub written: String,
    /// The name as it is compared; `None` if it is none.
    pub name: Option<String>,
    /// The route that the name leads to.
    pub route: Option<MatchedRoute>,
    /// Whether the client may use it; `None` without a route.
    pub policy: Option<PolicyAnswer>,
    /// What may be dialled: one group for each priority, the lowest number first. A lower group goes before a higher one;
    /// within a group load and chance decide.
    pub priorities: Vec<PriorityGroup>,
    /// What stands in the configuration but cannot be dialled.
    pub absent: Vec<AbsentEndpoint>,
    /// What comes of it.
    pub verdict: Verdict,
    /// What the operator may do about it.
    pub hint: Option<String>,
}

/// A route, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRoute {
    /// The route's label.
    pub label: String,
    /// The name or wildcard that matched.
    pub pattern: String,
    /// Why this one.
    pub because: String,
    /// Wildcards that cover the name too and count less, the longest first.
    pub also: Vec<String>,
}

/// What the route's `allow` list says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum PolicyAnswer {
    /// There is no list: whoever reaches the listener may use the route.
    Open,
    /// One of the rules admits the client.
    Admitted {
        /// The rule as the operator wrote it.
        rule: String,
    },
    /// None does.
    Denied {
        /// The rules.
        rules: Vec<String>,
    },
    /// Nobody said where the client is.
    NotJudged {
        /// The rules.
        rules: Vec<String>,
    },
}

/// Endpoints of one priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityGroup {
    /// Lower goes first.
    pub priority: u8,
    /// In no order that means anything.
    pub endpoints: Vec<CandidateEndpoint>,
}

/// An endpoint that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateEndpoint {
    /// Where.
    pub address: SocketAddr,
    /// Share of the load within its priority.
    pub weight: u16,
    /// Connections open now; `None` offline.
    pub open: Option<u32>,
    /// `healthy`, `ejected`, `down`; `unknown` offline.
    pub health: String,
}

/// An endpoint that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentEndpoint {
    /// As it was written.
    pub endpoint: String,
    /// Why not.
    pub because: String,
}

/// What comes of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verdict {
    /// It goes to an endpoint of the first priority that has a usable one.
    Routed,
    /// It is closed.
    Refused {
        /// The ending's label, as in the log and in metrics.
        ending: String,
        /// The TLS alert that the client gets.
        alert: String,
    },
    /// Something is missing that decides.
    Undecided {
        /// What is missing.
        because: String,
    },
}

/// Explains a name, for a client at an address if there is one. `live` says that health and load are those of a gateway at work.
pub fn explain(table: &Table, written: &str, from: Option<IpAddr>, live: bool) -> Explanation {
    let name = match CanonicalName::parse(written.as_bytes()) {
        Ok(name) => name,
        Err(error) => {
            let hint =
                format!("a hello with this name is refused before any route is looked at: {error}");
            return Explanation::blank(written, no_name(error), Some(hint));
        }
    };
    let name = name.as_str();
    let known = |explanation| Explanation { name: Some(name.into()), ..explanation };
    let Some(found) = table.lookup(name) else {
        return known(unknown_name(table, written, name, from));
    };
    let judged = judge(table, &found, name, from);
    let (verdict, hint) = judged.verdict(found.route, from, live);
    known(Explanation {
        route: Some(matched(table, &found, name)),
        policy: Some(judged.into()),
        priorities: priorities(found.route, live),
        absent: found.route.absent.iter().map(|(at, why)| absent(at, *why, live)).collect(),
        ..Explanation::blank(written, verdict, hint)
    })
}

impl Explanation {
    fn blank(written: &str, verdict: Verdict, hint: Option<String>) -> Self {
        Self {
            written: written.into(),
            name: None,
            route: None,
            policy: None,
            priorities: vec![],
            absent: vec![],
            verdict,
            hint,
        }
    }
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

fn unknown_name(table: &Table, written: &str, name: &str, from: Option<IpAddr>) -> Explanation {
    let refusal = from.and_then(|from| table.decide(name, &client(from)).err());
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
    MatchedRoute { label: found.route.label.to_string(), pattern, because: because.into(), also }
}

/// What the policy says of a client, if there is one.
enum Judged {
    Admitted(Admission),
    Refused(Refusal, Vec<String>),
    NoClient(Vec<String>),
}

fn judge(table: &Table, found: &Match<'_>, name: &str, from: Option<IpAddr>) -> Judged {
    let policy = &found.route.policy;
    let rules = || policy.rules().map(String::from).collect();
    match (from, &**policy) {
        (None, Policy::Open) => Judged::Admitted(Admission::Open),
        (None, Policy::Rules(_)) => Judged::NoClient(rules()),
        (Some(from), Policy::Open | Policy::Rules(_)) => match table.decide(name, &client(from)) {
            Ok(decision) => Judged::Admitted(decision.admission),
            Err(refusal) => Judged::Refused(refusal, rules()),
        },
    }
}

impl Judged {
    fn verdict(
        &self,
        route: &Route,
        from: Option<IpAddr>,
        live: bool,
    ) -> (Verdict, Option<String>) {
        match self {
            Self::Admitted(_) => endpoint_verdict(route, live),
            Self::NoClient(_) => {
                let because = "the route's allow list asks where the client is".into();
                let hint = "say where the client connects from (--from ADDRESS) to have it judged";
                (Verdict::Undecided { because }, Some(hint.into()))
            }
            Self::Refused(refusal, _) => {
                (refused(refusal.ending, refusal.alert()), Some(denied_hint(refusal, from)))
            }
        }
    }
}

fn denied_hint(refusal: &Refusal, from: Option<IpAddr>) -> String {
    let from = from.map_or_else(String::new, |from| format!(" {}", from.to_canonical()));
    let concealed = if refusal.known_source {
        ""
    } else {
        "; no rule of any route admits it, so it is told that the name is unknown"
    };
    format!(
        "add the network of{from} to `allow` if this client may call{concealed}. Behind a load balancer or NAT the client's \
         address is theirs, unless they send a PROXY header"
    )
}

/// What becomes of a client that the policy admits. Asks the very choice that a connection makes.
fn endpoint_verdict(route: &Route, live: bool) -> (Verdict, Option<String>) {
    let unresolved = route.absent.iter().any(|(_, absence)| *absence == Absence::Unresolved);
    let Some(next) = Attempts::new(route).next() else {
        if unresolved && !live {
            let because =
                "its endpoints are DNS names, which only a running gateway resolves".into();
            let hint = "ask the gateway: strait explain NAME --admin URL".into();
            return (Verdict::Undecided { because }, Some(hint));
        }
        let verdict = refused(Ending::NoHealthyEndpoint, Alert::InternalError);
        return (verdict, Some(no_endpoint_hint(route).into()));
    };
    let hint = match next.endpoint.health() {
        Health::Healthy => None,
        Health::Ejected | Health::Down => Some(
            "connects to every endpoint fail; one is tried all the same: see whether the sidecars run, and whether a \
             network policy stands between"
                .into(),
        ),
    };
    (Verdict::Routed, hint)
}

fn no_endpoint_hint(route: &Route) -> &'static str {
    if !route.candidates.is_empty() {
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

fn priorities(route: &Route, live: bool) -> Vec<PriorityGroup> {
    let tiers = route.candidates.chunk_by(|one, other| one.priority == other.priority);
    let group = |tier: &[super::table::Candidate]| {
        let endpoints = tier.iter().map(|candidate| CandidateEndpoint {
            address: candidate.endpoint.address,
            weight: candidate.weight,
            open: live.then(|| candidate.endpoint.open()),
            health: health(&candidate.endpoint, live).into(),
        });
        let priority = tier.first()?.priority;
        Some(PriorityGroup { priority, endpoints: endpoints.collect() })
    };
    tiers.filter_map(group).collect()
}

fn health(endpoint: &Arc<Endpoint>, live: bool) -> &'static str {
    if live { endpoint.health().label() } else { "unknown" }
}

fn absent(endpoint: &str, absence: Absence, live: bool) -> AbsentEndpoint {
    let offline = absence == Absence::Unresolved && !live;
    let because = if offline {
        "its DNS name is not resolved offline".to_owned()
    } else {
        absence.to_string()
    };
    AbsentEndpoint { endpoint: endpoint.into(), because }
}

impl From<Judged> for PolicyAnswer {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Admitted(Admission::Open) => Self::Open,
            Judged::Admitted(Admission::Rule(rule)) => Self::Admitted { rule: rule.to_string() },
            Judged::Refused(_, rules) => Self::Denied { rules },
            Judged::NoClient(rules) => Self::NotJudged { rules },
        }
    }
}

/// No route sees a client's port.
fn client(from: IpAddr) -> Client {
    Client::direct((from, 0).into())
}

fn refused(ending: Ending, alert: Alert) -> Verdict {
    Verdict::Refused { ending: ending.label().into(), alert: alert_name(alert).into() }
}

/// As RFC 8446 §6 writes it.
fn alert_name(alert: Alert) -> &'static str {
    match alert {
        Alert::UnexpectedMessage => "unexpected_message",
        Alert::RecordOverflow => "record_overflow",
        Alert::IllegalParameter => "illegal_parameter",
        Alert::DecodeError => "decode_error",
        Alert::AccessDenied => "access_denied",
        Alert::ProtocolVersion => "protocol_version",
        Alert::InternalError => "internal_error",
        Alert::MissingExtension => "missing_extension",
        Alert::UnrecognizedName => "unrecognized_name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::NamePattern;
    use crate::model::snapshot::{
        Addresses, Allow, AllowRule, EndpointAt, EndpointSpec, Origin, RouteSpec, Routes,
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
            is_app: false,
            names: vec![(NamePattern::parse(name).unwrap(), origin.clone())],
            allow,
            endpoints: endpoints.iter().map(endpoint).collect(),
            check: None,
            send_proxy: false,
            quiet_close: true,
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
        explain(&table(), written, from.map(|from| from.parse().unwrap()), live)
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
        let told = explain(&table, "x.example", None, true);
        assert_eq!(told.priorities[0].endpoints[0].health, "down");
        assert_eq!(told.verdict, refusal("no_healthy_endpoint", "internal_error"));
        assert!(told.hint.unwrap().contains("active checks"));
    }
}
