//! What the admin API is told: taken from the parts at each question, nothing is kept.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::admin::Answers;
use crate::admin::status::{
    AbsentStatus, CertificateStatus, ConfigStatus, Connections, EgressStatus, EndpointStatus,
    LimitStatus, LinkStatus, ListenerStatus, MOST_ENDPOINTS, MOST_NAMES, MOST_ROUTES, MOST_SOURCES,
    RefusalStatus, RejectedDocument, RouteStatus, SourceStatus, Status, timestamp,
};
use crate::config;
use crate::discovery;
use crate::model::client::Asker;
use crate::model::snapshot::Kind;
use crate::permissions::follow::{Rejected, SOURCE};
use crate::proxy::Usage;
use crate::routing::endpoint::Health;
use crate::routing::explain::explain;
use crate::routing::table::{Candidate, EgressAddress, Route, Table};
use crate::telemetry::links::Direction;
use crate::telemetry::observed::{EndpointState, Observed};
use crate::telemetry::refusals::Refusal;

use super::Parts;

/// The closures that the admin API calls.
pub(super) fn answers(parts: &Arc<Parts>, api: axum::Router) -> Arc<Answers> {
    let [ready, status, explaining, metrics] = std::array::from_fn(|_| Arc::clone(parts));
    Arc::new(Answers {
        ready: Box::new(move || ready.readiness.check()),
        status: Box::new(move || status.status()),
        explain: Box::new(move |name, asker| explaining.explain(name, asker)),
        metrics: Box::new(move || metrics.metrics.text()),
        api,
    })
}

impl Parts {
    /// The state of sources and endpoints, at a scrape.
    pub(super) fn observe(&self, observed: &mut Observed) {
        for source in self.sources.sources() {
            observed.source(&source.name, source.up, source.age());
        }
        observed.expiries = self.expiries.all();
        observed.documents_rejected = self.rejections.borrow().len();
        for route in self.live.load().table.routes() {
            for candidate in &route.candidates {
                observed.endpoint(&route.label, state(candidate.health()));
            }
            for _ in &route.absent {
                observed.endpoint(&route.label, EndpointState::Absent);
            }
        }
    }

    fn explain(&self, name: &str, asker: &Asker) -> serde_json::Value {
        let explanation = explain(&self.live.load().table, name, asker, true);
        // Fails only for maps with keys that are no text, which an explanation does not have.
        serde_json::to_value(explanation).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let generation = self.live.load();
        let table = &generation.table;
        let ready = self.readiness.check();
        let rejected = Arc::clone(&self.rejections.borrow());
        Status {
            cluster: self.cluster(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: timestamp(self.started),
            ready: ready.is_ok(),
            not_ready_because: ready.err(),
            draining: self.readiness.is_draining(),
            generation: generation.number,
            changed: timestamp(generation.since),
            config: self.config_status(),
            listeners: self.listeners(),
            egress: self.egress(table),
            egress_problems: self.egress_problems(table),
            names: table.len(),
            routes_total: table.routes().count(),
            routes: routes(table),
            sources: self.sources.sources().iter().map(|it| source_status(it, &rejected)).collect(),
            connections: self.connections(),
            limits: self.limits(),
            links: self.links(),
            certificates: self.certificates(),
            refusals: self.refusals.newest_first().into_iter().map(refusal_status).collect(),
        }
    }

    fn cluster(&self) -> String {
        let known = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        known.in_force.as_ref().map_or_else(String::new, |config| config.cluster.to_string())
    }

    fn config_status(&self) -> ConfigStatus {
        let known = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        ConfigStatus {
            path: self.options.config.display().to_string(),
            changed: known.changed.map_or_else(String::new, timestamp),
            errors: known.rejected.iter().map(ToString::to_string).collect(),
            warnings: known.warnings.iter().map(ToString::to_string).collect(),
        }
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let ingress = self.proxy.bound().into_iter().map(|(written, bound)| ListenerStatus {
            kind: "ingress".to_owned(),
            address: written.address.to_string(),
            bound: Some(bound.to_string()),
        });
        let around = self.around.lock().unwrap_or_else(PoisonError::into_inner);
        ingress.chain(around.iter().cloned()).collect()
    }

    fn egress(&self, table: &Table) -> Vec<EgressStatus> {
        let status = |at: &EgressAddress| EgressStatus {
            address: at.announce.to_string(),
            bound: at.bind.to_string(),
            app: at.route.label.to_string(),
            trouble: self.proxy.egress_trouble(at.bind),
        };
        table.egress().take(MOST_ROUTES).map(status).collect()
    }

    fn egress_problems(&self, table: &Table) -> Vec<String> {
        table.egress_problems().iter().cloned().chain(self.proxy.rewriting()).collect()
    }

    fn connections(&self) -> Connections {
        Connections { open: number(self.proxy.admitted()), total: self.proxy.accepted() }
    }

    fn links(&self) -> Vec<LinkStatus> {
        let known = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        let links = known.in_force.as_ref().and_then(|config| config.links.as_ref());
        let peers = links.map(|links| &*links.peers).unwrap_or_default();
        let open = |cluster: &str, direction| self.metrics.links.count(cluster, direction);
        let status = |peer: &config::Peer| LinkStatus {
            cluster: peer.cluster.to_string(),
            opened: open(&peer.cluster, Direction::Out),
            accepted: open(&peer.cluster, Direction::In),
        };
        peers.iter().map(status).collect()
    }

    fn certificates(&self) -> Vec<CertificateStatus> {
        let status = |(role, at): (&str, _)| CertificateStatus {
            role: role.to_owned(),
            expires: timestamp(at),
        };
        self.expiries.all().into_iter().map(status).collect()
    }

    fn limits(&self) -> Vec<LimitStatus> {
        let limits = self.live.load().settings.limits;
        let lowered = self.proxy.lowered(&limits).map(|_| number(limits.connections));
        let status = |usage: Usage| LimitStatus {
            lowered_from: lowered.filter(|_| usage.limit == "connections"),
            limit: usage.limit.to_owned(),
            of: usage.of,
            used: number(usage.used),
            most: number(usage.most),
        };
        self.proxy.usage(MOST_SOURCES).into_iter().map(status).collect()
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Routes in the order in which they were built, each with some of its names.
fn routes(table: &Table) -> Vec<RouteStatus> {
    let mut listed: Vec<_> =
        table.routes().take(MOST_ROUTES).map(|route| route_status(route)).collect();
    let places: HashMap<*const Route, usize> = table
        .routes()
        .take(MOST_ROUTES)
        .enumerate()
        .map(|(at, route)| (Arc::as_ptr(route), at))
        .collect();
    for (name, route) in table.names() {
        let place = places.get(&Arc::as_ptr(route)).and_then(|&at| listed.get_mut(at));
        if let Some(status) = place {
            status.names_total += 1;
            if status.names.len() < MOST_NAMES {
                status.names.push(name.written());
            }
        }
    }
    listed
}

fn route_status(route: &Route) -> RouteStatus {
    RouteStatus {
        label: route.label.to_string(),
        kind: kind(route.kind).to_owned(),
        names_total: 0,
        names: Vec::new(),
        endpoints: route.candidates.iter().take(MOST_ENDPOINTS).map(endpoint_status).collect(),
        absent: route
            .absent
            .iter()
            .take(MOST_ENDPOINTS)
            .map(|(address, absence)| AbsentStatus {
                address: address.to_string(),
                reason: absence.to_string(),
            })
            .collect(),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "app",
        Kind::Service => "service",
        Kind::Plain => "route",
    }
}

fn endpoint_status(candidate: &Candidate) -> EndpointStatus {
    let Candidate { endpoint, weight, priority, via } = candidate;
    EndpointStatus {
        address: endpoint.address.to_string(),
        priority: *priority,
        weight: *weight,
        open: endpoint.open(),
        health: candidate.health().label().to_owned(),
        cluster: via.as_ref().map(|via| via.cluster.to_string()),
    }
}

fn source_status(source: &discovery::SourceStatus, rejected: &[Rejected]) -> SourceStatus {
    let rejected = rejected.iter().take(MOST_SOURCES).filter(|_| *source.name == *SOURCE);
    let rejected = rejected.map(|rejected| RejectedDocument {
        key: rejected.key.clone(),
        version: rejected.version.to_string(),
        why: rejected.why.clone(),
        is_replaced: rejected.is_replaced,
    });
    let offers = match source.snapshot.as_deref() {
        Some(discovery::Snapshot::Offers(offers)) => Some(offers),
        Some(discovery::Snapshot::Addresses(_) | discovery::Snapshot::Documents(_)) | None => None,
    };
    let documents = match source.snapshot.as_deref() {
        Some(discovery::Snapshot::Documents(documents)) => Some(documents.len()),
        Some(discovery::Snapshot::Addresses(_) | discovery::Snapshot::Offers(_)) | None => None,
    };
    SourceStatus {
        name: source.name.to_string(),
        up: source.up,
        age_seconds: source.age().map(|age| age.as_secs_f64()),
        stale: source.remembered.is_some(),
        apps: offers.map(|offers| offers.apps.len()),
        ignored: offers.map(|offers| offers.ignored),
        documents,
        rejected: rejected.collect(),
        last_error: source.last_error.clone(),
    }
}

fn refusal_status(refusal: Refusal) -> RefusalStatus {
    RefusalStatus {
        time: timestamp(refusal.at),
        client: refusal.client.to_string(),
        name: refusal.name.map(String::from),
        ending: refusal.ending.label().to_owned(),
        hint: refusal.hint.map(str::to_owned),
    }
}

fn state(health: Health) -> EndpointState {
    match health {
        Health::Healthy => EndpointState::Healthy,
        Health::Ejected => EndpointState::Ejected,
        Health::Down => EndpointState::Down,
    }
}
