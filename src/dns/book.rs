//! What the names of imported apps stand for now: made anew for each table, health asked at each question.

use std::collections::{HashMap, HashSet};
use std::iter::successors;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Settings, Zone};
use crate::model::client::Side;
use crate::model::snapshot::Answer;
use crate::routing::endpoint::Health;
use crate::routing::live::Generation;
use crate::routing::table::{Candidate, Route};

use super::answer::{Book, Found, Reach};

/// The names of one table's imports. Holds their routes, not the table.
#[derive(Debug)]
pub(super) struct Names {
    generation: u64,
    zone: Arc<Zone>,
    apps: HashMap<Box<str>, Arc<Route>>,
    /// What callers dial of each app, by its label.
    egress: HashMap<Arc<str>, Vec<SocketAddr>>,
    /// What stands in the zone above the name of an app.
    above: HashSet<Box<str>>,
    announced: HashSet<IpAddr>,
}

impl Names {
    /// `None` while no zone is configured.
    pub(super) fn of(generation: &Generation<Settings>) -> Option<Self> {
        let zone = Arc::clone(generation.settings.dns.as_ref()?);
        let mut names = Self {
            generation: generation.number,
            apps: HashMap::new(),
            egress: HashMap::new(),
            above: HashSet::new(),
            announced: zone.gateway.iter().copied().collect(),
            zone,
        };
        for route in generation.table.imports() {
            names.add(route);
        }
        for address in generation.table.egress() {
            names.announced.insert(address.announce.ip());
            let of = names.egress.entry(Arc::clone(&address.route.label)).or_default();
            of.push(address.announce);
        }
        Some(names)
    }

    fn add(&mut self, route: &Arc<Route>) {
        let Some(import) = &route.import else { return };
        for name in &import.names {
            let above = successors(parent(name.as_str()), |name| parent(name));
            let within = above.take_while(|name| *name != self.zone.name.as_str());
            self.above.extend(within.map(Box::from));
            self.apps.insert(name.as_str().into(), Arc::clone(route));
        }
        if import.answer == Answer::Direct {
            let gateways = route.candidates.iter().filter(|candidate| candidate.via.is_some());
            self.announced.extend(gateways.map(|gateway| gateway.endpoint.address.ip()));
        }
    }

    /// Whether this is the table that they are of.
    pub(super) fn are_of(&self, generation: &Generation<Settings>) -> bool {
        self.generation == generation.number
    }

    fn reach(&self, route: &Route) -> Reach {
        let answer = route.import.as_ref().map(|import| import.answer);
        match (answer, preferred(route)) {
            (Some(Answer::Direct), Some(candidate)) if candidate.via.is_some() => {
                gateways(route, candidate)
            }
            (Some(Answer::Direct), None) => Reach::default(),
            (Some(Answer::Linked | Answer::Direct) | None, _) => self.linked(route),
        }
    }

    /// The egress addresses of its own. Where they are ports of one address, whoever brings the port has to send the name too: to an
    /// ingress listener. But for a service whose own port is one of them: then it is there that callers mean.
    fn linked(&self, route: &Route) -> Reach {
        let own = self.egress.get(&route.label).map(Vec::as_slice).unwrap_or_default();
        let ports = own.iter().map(|at| (at.ip(), at.port())).collect();
        let port = route.import.as_ref().and_then(|import| import.port);
        let meant = own.iter().filter(|at| self.zone.has_pool || Some(at.port()) == port);
        let mut addresses: Vec<_> = meant.map(SocketAddr::ip).collect();
        if addresses.is_empty() {
            addresses = self.zone.gateway.to_vec();
        }
        Reach { addresses, ports }
    }
}

fn parent(name: &str) -> Option<&str> {
    Some(name.split_once('.')?.1)
}

/// The first that a connection would be led to: of the first cluster that has one, in the order of preference. Where none is
/// healthy, the first of all: an answer that may fail is better than none, which callers keep.
fn preferred(route: &Route) -> Option<&Candidate> {
    let mut offered =
        route.candidates.iter().filter(|candidate| route.offers(candidate, Side::Local));
    let first = offered.clone().next();
    offered.find(|candidate| is_healthy(candidate)).or(first)
}

fn is_healthy(candidate: &Candidate) -> bool {
    candidate.endpoint.health() == Health::Healthy
}

/// The healthy gateways of the same cluster, or all if there are none.
fn gateways(route: &Route, preferred: &Candidate) -> Reach {
    let beside = route.candidates.iter().filter(|candidate| {
        candidate.via == preferred.via && is_healthy(candidate) == is_healthy(preferred)
    });
    let mut reach = Reach::default();
    for candidate in beside {
        let at = candidate.endpoint.address;
        let address = at.ip().to_canonical();
        if !reach.addresses.contains(&address) {
            reach.addresses.push(address);
        }
        reach.ports.push((address, at.port()));
    }
    reach
}

impl Book for Names {
    fn zone(&self) -> &str {
        self.zone.name.as_str()
    }

    fn gateway(&self) -> &[IpAddr] {
        &self.zone.gateway
    }

    fn find(&self, name: &str) -> Found {
        match self.apps.get(name) {
            Some(route) => Found::App(self.reach(route)),
            None if self.above.contains(name) => Found::Above,
            None => Found::Nothing,
        }
    }

    fn is_announced(&self, address: IpAddr) -> bool {
        self.announced.contains(&address)
    }

    /// Wraps, as it may.
    #[expect(clippy::cast_possible_truncation, reason = "serial numbers wrap (RFC 1982)")]
    fn serial(&self) -> u32 {
        self.generation as u32
    }
}
