//! What a route has to choose from, as an explanation tells it.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::explanation::{AbsentEndpoint, CandidateEndpoint, PriorityGroup, ViaAnswer};
use super::order::Standing;
use super::table::{Absence, Candidate, Route};

/// What may be dialled for a client that stands there, or for any. Where it has an order of its own, the numbers are of that.
pub(super) fn priorities(
    route: &Route,
    standing: Option<Standing<'_>>,
    live: bool,
) -> Vec<PriorityGroup> {
    let ranks = standing.map_or(1, |standing| standing.ranks());
    let tiers = |rank: usize| {
        let tiers = route.candidates.chunk_by(|one, other| one.priority == other.priority);
        tiers.filter_map(move |tier| {
            let is_offered = |candidate: &&Candidate| {
                standing.is_none_or(|standing| route.rank(candidate, standing) == Some(rank))
            };
            let endpoints: Vec<_> = tier
                .iter()
                .filter(is_offered)
                .map(|candidate| candidate_endpoint(candidate, live))
                .collect();
            let priority = tier.first().filter(|_| !endpoints.is_empty())?.priority;
            Some(PriorityGroup { priority, endpoints })
        })
    };
    let groups = (0..ranks).flat_map(tiers);
    if standing.is_none_or(|standing| standing.order.is_none()) {
        return groups.collect();
    }
    (0..).zip(groups).map(|(priority, group)| PriorityGroup { priority, ..group }).collect()
}

fn candidate_endpoint(candidate: &Candidate, live: bool) -> CandidateEndpoint {
    let Candidate { endpoint, weight, via, .. } = candidate;
    let via = via
        .as_ref()
        .map(|via| ViaAnswer { cluster: via.cluster.to_string(), name: via.name.to_string() });
    CandidateEndpoint {
        address: endpoint.address,
        weight: *weight,
        open: live.then(|| endpoint.open()),
        health: health(endpoint, live).into(),
        via,
    }
}

fn health(endpoint: &Arc<Endpoint>, live: bool) -> &'static str {
    if live { endpoint.health().label() } else { "unknown" }
}

/// What of a route cannot be dialled, and why.
pub(super) fn absent(route: &Route, live: bool) -> Vec<AbsentEndpoint> {
    let told = route.absent.iter().map(|(endpoint, absence)| {
        let offline = *absence == Absence::Unresolved && !live;
        let because = if offline {
            "its DNS name is not resolved offline".to_owned()
        } else {
            absence.to_string()
        };
        AbsentEndpoint { endpoint: endpoint.to_string(), because }
    });
    told.collect()
}
