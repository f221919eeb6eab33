//! Endpoints, checks, `allow` lists and plain routes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::file::{self, CheckKind, List, Rule, RuleKeys, SendProxy, Setting};
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::spot::{Spot, TextOr};
use crate::config::tree::{NodeId, Value};
use crate::config::units;
use crate::model::name::NamePattern;
use crate::model::snapshot::{Allow, AllowRule, Check, EndpointAt, EndpointSpec, Kind, RouteSpec};

use super::clusters::Clusters;
use super::listeners::network;
use super::settings::positive_duration;
use super::{Resolver, items};

/// As `HAProxy` checks by default: every 2 s, two successes up, three failures down.
const CHECK: Check =
    Check { interval: Duration::from_secs(2), timeout: Duration::from_secs(1), rise: 2, fall: 3 };
/// A shorter interval is load, not a check.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl Resolver<'_> {
    pub(super) fn routes(
        &mut self,
        written: &List<file::Route>,
        clusters: &Clusters,
    ) -> Vec<RouteSpec> {
        items(written).iter().filter_map(|spot| self.route(spot, clusters)).collect()
    }

    /// A plain route. Every part is looked at before the first missing one ends it, so that all mistakes are noted.
    fn route(&mut self, spot: &Spot<file::Route>, clusters: &Clusters) -> Option<RouteSpec> {
        let route = spot.value.as_ref()?;
        let fix = "add `name: placement.west.example`, or `name: \"*.suffix\"`";
        let name = self.required(&route.name, spot.node, "name", fix);
        let pattern = name.and_then(|name| self.parse_spot(name, route_name).zip(Some(name.node)));
        let endpoints = self.endpoints(&route.endpoints, None, spot.node);
        let check = self.check(&route.check);
        let allow = match &route.allow {
            Some(allow) => self.allow(allow, Of::Route, clusters),
            None => self.open(spot.node, name.map_or(spot.node, |name| name.node)),
        };
        let (pattern, node) = pattern?;
        Some(RouteSpec {
            label: pattern.to_string().into(),
            kind: Kind::Plain,
            names: vec![(pattern, self.tree.origin(node))],
            allow: allow?,
            import: None,
            endpoints: endpoints.into_iter().map(|(endpoint, _)| endpoint).collect(),
            check,
            send_proxy: route.send_proxy.as_ref().is_some_and(sends_proxy),
            quiet_close: quiet_close(&route.quiet_close),
            plaintext: false,
        })
    }

    /// A route without `allow`: open, which the operator should know. An empty `allow:` is no decision either.
    fn open(&mut self, route: NodeId, name: NodeId) -> Option<Allow> {
        let tree = self.tree;
        let written = match tree.value(route) {
            Value::Map(entries) => entries.iter().any(|entry| &*entry.key == "allow"),
            Value::Null | Value::Scalar(_) | Value::List(_) => false,
        };
        if written {
            self.wrong(
                route,
                Wrong::new(
                    "`allow` is empty",
                    "write `allow: any`, a list of rules, or remove the key",
                ),
            );
            return None;
        }
        let fix = "add `allow`: a list of `network: CIDR` and `networksOf: CLUSTER`, or `any` if that is meant";
        let wrong =
            Wrong::new("the route is open to whoever reaches a listener: it has no `allow`", fix);
        self.problems.warning(|| tree.problem(name, wrong));
        Some(Allow::Open)
    }

    /// Endpoints; of one that names no port it is `port`, if there is one to assume.
    pub(super) fn endpoints(
        &mut self,
        written: &List<TextOr<file::Endpoint>>,
        port: Option<u16>,
        owner: NodeId,
    ) -> Vec<(EndpointSpec, NodeId)> {
        let fix = "add `endpoints: [\"host:port\"]`";
        let Some(list) = self.required(written, owner, "endpoints", fix) else { return vec![] };
        if list.value.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(list.node, Wrong::new("no endpoint, so nothing can be reached", fix));
        }
        let mut seen = HashSet::new();
        let mut endpoints = Vec::new();
        for spot in items(written) {
            let Some((endpoint, node)) = self.endpoint(spot, port) else { continue };
            if seen.insert(endpoint.at.clone()) {
                endpoints.push((endpoint, node));
            } else {
                let fix = "remove one of the two; `weight` gives an endpoint a bigger share";
                self.wrong(
                    node,
                    Wrong::new(format!("{} stands in this list twice", endpoint.at), fix),
                );
            }
        }
        endpoints
    }

    fn endpoint(
        &mut self,
        spot: &Spot<TextOr<file::Endpoint>>,
        port: Option<u16>,
    ) -> Option<(EndpointSpec, NodeId)> {
        let endpoint_at = |text: &str| endpoint_or_host(text, port);
        let nothing = file::Endpoint::default();
        let (at, node, long) = match spot.value.as_ref()? {
            TextOr::Text(text) => match endpoint_at(text) {
                Ok(at) => (Some(at), spot.node, &nothing),
                Err(wrong) => {
                    self.wrong(spot.node, wrong);
                    (None, spot.node, &nothing)
                }
            },
            TextOr::Other(long) => {
                let address = self.required(
                    &long.address,
                    spot.node,
                    "address",
                    "add `address: \"host:port\"`",
                );
                let at = address.and_then(|address| self.parse_spot(address, endpoint_at));
                (at, address.map_or(spot.node, |address| address.node), long)
            }
        };
        let weight = self.parse(&long.weight, |written| from_one(written, "weight")).unwrap_or(1);
        let priority = self.parse(&long.priority, priority).unwrap_or(0);
        Some((EndpointSpec { at: at?, weight, priority, origin: self.tree.origin(node) }, node))
    }

    pub(super) fn check(&mut self, written: &Setting<file::Check>) -> Option<Check> {
        let check = written.as_ref()?.value.as_ref()?;
        // Takes every kind while TCP is the only one: another will not compile unnoticed.
        let (Some(CheckKind::Tcp) | None) = check.kind.as_ref().and_then(|kind| kind.value);
        let interval = self.parse(&check.interval, interval).unwrap_or(CHECK.interval);
        let timeout = self.parse(&check.timeout, positive_duration);
        Some(Check {
            interval,
            timeout: timeout.unwrap_or(CHECK.timeout.min(interval)),
            rise: self
                .parse(&check.rise, |written| from_one(written, "rise"))
                .unwrap_or(CHECK.rise),
            fall: self
                .parse(&check.fall, |written| from_one(written, "fall"))
                .unwrap_or(CHECK.fall),
        })
    }

    pub(super) fn allow(
        &mut self,
        spot: &Spot<file::Allow>,
        of: Of,
        clusters: &Clusters,
    ) -> Option<Allow> {
        match spot.value.as_ref()? {
            TextOr::Text(any) if any == "any" => Some(Allow::Rules(vec![AllowRule::Any])),
            TextOr::Text(_) => {
                let fix = "write `any`, or a list: [{ network: 203.0.113.0/24 }, { networksOf: CLUSTER }]";
                self.wrong(
                    spot.node,
                    Wrong::new("`allow` is neither `any` nor a list of rules", fix),
                );
                None
            }
            TextOr::Other(rules) => {
                if rules.is_empty() {
                    let tree = self.tree;
                    let wrong = Wrong::new(
                        "the list is empty: it admits nobody",
                        "add a rule, or remove the route",
                    );
                    self.problems.warning(|| tree.problem(spot.node, wrong));
                }
                let rules = rules.iter().filter_map(|rule| self.rule(rule, of, clusters));
                Some(Allow::Rules(rules.collect()))
            }
        }
    }

    fn rule(&mut self, spot: &Spot<Rule>, of: Of, clusters: &Clusters) -> Option<AllowRule> {
        match spot.value.as_ref()? {
            TextOr::Text(any) if any == "any" => Some(AllowRule::Any),
            TextOr::Text(_) => {
                self.wrong(spot.node, Wrong::new("this is no rule", of.rules()));
                None
            }
            TextOr::Other(keys) => self.rule_keys(spot.node, keys, of, clusters),
        }
    }

    fn rule_keys(
        &mut self,
        node: NodeId,
        keys: &RuleKeys,
        of: Of,
        clusters: &Clusters,
    ) -> Option<AllowRule> {
        let RuleKeys { network: written, networks_of: of_cluster, cluster, apps } = keys;
        match (written, of_cluster, cluster, apps) {
            (Some(spot), None, None, None) => {
                self.parse_spot(spot, network).map(AllowRule::Network)
            }
            (None, Some(spot), None, None) => {
                self.parse_spot(spot, |name| networks_of(name, clusters))
            }
            (None, None, Some(spot), apps) => match of {
                Of::Export => self.cluster_rule(node, spot, apps, clusters),
                Of::Route => {
                    let message = "a link leads to apps and services that are exported, and to no plain route";
                    let fix =
                        "use `networksOf`: it judges the network that a connection comes from";
                    self.wrong(spot.node, Wrong::new(message, fix));
                    None
                }
            },
            (None, None, None, None) => {
                // A key that is not known has been noted already.
                if matches!(self.tree.value(node), Value::Map(entries) if entries.iter().all(known_rule))
                {
                    self.wrong(node, Wrong::new("the rule is empty", of.rules()));
                }
                None
            }
            (None, None, None, Some(apps)) => {
                let fix = "write `{ cluster: NAME, apps: [NAMESPACE/APP] }`: a cluster vouches for its apps, a network does not";
                self.wrong(apps.node, Wrong::new("`apps` without a `cluster`", fix));
                None
            }
            (Some(_), _, _, _) | (_, Some(_), _, _) => {
                self.wrong(node, Wrong::new("two rules in one: either would do", of.rules()));
                None
            }
        }
    }
}

/// What an `allow` list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Export,
    Route,
}

impl Of {
    /// What may stand in the list.
    fn rules(self) -> &'static str {
        match self {
            Self::Export => {
                "write one of `any`, `{ network: CIDR }`, `{ networksOf: CLUSTER }` and `{ cluster: CLUSTER }`; several rules are \
                 several items"
            }
            Self::Route => {
                "write one of `any`, `{ network: CIDR }` and `{ networksOf: CLUSTER }`; several rules are several items"
            }
        }
    }
}

fn known_rule(entry: &crate::config::tree::Entry) -> bool {
    matches!(&*entry.key, "network" | "networksOf" | "cluster" | "apps")
}

fn sends_proxy(written: &Spot<SendProxy>) -> bool {
    match written.value {
        Some(SendProxy::V2) => true,
        None => false,
    }
}

/// On unless it is switched off: silent calls are rarer than sidecars that never end a connection.
pub(super) fn quiet_close(written: &Setting<bool>) -> bool {
    written.as_ref().and_then(|spot| spot.value).unwrap_or(true)
}

fn route_name(written: &str) -> Result<NamePattern, Wrong> {
    NamePattern::parse(written).map_err(wrong_name)
}

pub(super) fn endpoint_at(written: &str) -> Result<EndpointAt, Wrong> {
    EndpointAt::parse(written).map_err(|error| {
        let fix = "write \"host:port\" or \"ip:port\", for example \"checkout-dapr.shop.svc.cluster.local:50002\"";
        Wrong::new(error.to_string(), fix)
    })
}

/// The same of who may leave out the port, because it is known.
fn endpoint_or_host(written: &str, port: Option<u16>) -> Result<EndpointAt, Wrong> {
    let is_host = !written.contains(':') || written.ends_with(']');
    match port {
        Some(port) if is_host => endpoint_at(&format!("{written}:{port}")),
        Some(_) | None => endpoint_at(written),
    }
}

fn networks_of(name: &str, clusters: &Clusters) -> Result<AllowRule, Wrong> {
    let networks = &clusters.find(name)?.networks;
    if networks.is_empty() {
        let fix = format!("add `networks` to `clusters.{name}`");
        let message = format!("the cluster `{name}` has no networks, so this admits nobody");
        return Err(Wrong::new(message, fix));
    }
    Ok(AllowRule::NetworksOf(Arc::from(name), networks.clone()))
}

fn interval(written: &str) -> Result<Duration, Wrong> {
    let interval = units::duration(written)?;
    if interval < MIN_INTERVAL {
        return Err(Wrong::new("shorter than 100ms", "write 100ms or more; the default is 2s"));
    }
    Ok(interval)
}

fn from_one(written: &str, key: &str) -> Result<u16, Wrong> {
    u16::try_from(units::number(written)?).ok().filter(|&number| number > 0).ok_or_else(|| {
        Wrong::new(
            format!("{written} is out of range"),
            format!("`{key}` is a number from 1 to 65535"),
        )
    })
}

fn priority(written: &str) -> Result<u8, Wrong> {
    u8::try_from(units::number(written)?).map_err(|_| {
        Wrong::new(
            format!("{written} is out of range"),
            "`priority` is a number from 0 to 255; lower goes first",
        )
    })
}
