//! From endpoints as written to what may be dialled.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::name::Name;
use crate::model::offer::Offer;
use crate::model::snapshot::{Addresses, Check, EndpointAt, GatewaySpec, Offering, PeerSpec};

use super::endpoint::Endpoints;
use super::own::OwnAddresses;
use super::table::{Absence, Candidate, Peer, Via};

/// What endpoints are resolved with, during one build.
pub(super) struct Resolver<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) endpoints: &'a mut Endpoints,
    pub(super) own: OwnAddresses<'a>,
}

/// What may be dialled, and what may not.
type Resolved = (Vec<Candidate>, Vec<(Box<str>, Absence)>);

impl Resolver<'_> {
    /// Resolves the endpoints of one route, each with its weight and priority. Every address of a name has the name's.
    pub(super) fn resolve<'w>(
        &mut self,
        check: Option<Check>,
        written: impl Iterator<Item = (&'w EndpointAt, u16, u8)>,
    ) -> Resolved {
        let (mut candidates, mut absent) = (Vec::new(), Vec::new());
        for (at, weight, priority) in written {
            let addresses = self.socket_addresses(at).unwrap_or_else(|absence| {
                absent.push((at.to_string().into(), absence));
                Vec::new()
            });
            for address in addresses {
                if self.own.contain(address) {
                    absent.push((own_listener(at, address).into(), Absence::OwnListener));
                } else {
                    let endpoint = self.endpoints.intern(address, check);
                    candidates.push(Candidate { endpoint, weight, priority, via: None });
                }
            }
        }
        (candidates, absent)
    }

    /// Resolves other clusters' gateways as ways to one app, which is asked for there by `name`.
    pub(super) fn gateways(&mut self, written: &[GatewaySpec], name: &Name) -> Resolved {
        let (mut candidates, mut absent) = (Vec::new(), Vec::new());
        for cluster in written.chunk_by(|one, other| one.cluster == other.cluster) {
            let Some(GatewaySpec { cluster: of, offering, .. }) = cluster.first() else { continue };
            let Some(via) = via(of, offering, name) else {
                let written = cluster.iter().map(|gateway| format!("{} of {of}", gateway.at));
                absent.extend(written.map(|gateway| (gateway.into(), Absence::NotOffered)));
                continue;
            };
            for gateway in cluster {
                let addresses = self.socket_addresses(&gateway.at).unwrap_or_else(|absence| {
                    absent.push((format!("{} of {of}", gateway.at).into(), absence));
                    Vec::new()
                });
                for address in addresses {
                    if self.own.contain(address) {
                        let written = own_listener(&gateway.at, address);
                        absent.push((format!("{written} of {of}").into(), Absence::OwnListener));
                        continue;
                    }
                    let endpoint = self.endpoints.intern_gateway(address, of);
                    let via = Some(Arc::clone(&via));
                    candidates.push(Candidate {
                        endpoint,
                        weight: 1,
                        priority: gateway.priority,
                        via,
                    });
                }
            }
        }
        (candidates, absent)
    }

    /// Another cluster's gateways, to ask what it exports.
    pub(super) fn peer(&mut self, written: &PeerSpec) -> Peer {
        let PeerSpec { cluster, gateways, wanted } = written;
        let found = gateways.iter().filter_map(|at| self.socket_addresses(at).ok()).flatten();
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        found.retain(|&address| !self.own.contain(address));
        let endpoints = found.into_iter();
        let gateways =
            endpoints.map(|address| self.endpoints.intern_gateway(address, cluster)).collect();
        Peer { cluster: Arc::clone(cluster), gateways, wanted: Arc::clone(wanted) }
    }

    /// The addresses of an endpoint. Those of a name are sorted: servers rotate their answers, which must change nothing.
    fn socket_addresses(&self, at: &EndpointAt) -> Result<Vec<SocketAddr>, Absence> {
        let (name, port) = match at {
            EndpointAt::Address(address) => return Ok(vec![canonical(*address)]),
            EndpointAt::Host(name, port) => (name, *port),
        };
        let answer = self.addresses.0.get(name).ok_or(Absence::Unresolved)?;
        let mut found: Vec<SocketAddr> =
            answer.iter().map(|address| (address.to_canonical(), port).into()).collect();
        found.sort_unstable();
        if found.is_empty() { Err(Absence::NoAddress) } else { Ok(found) }
    }
}

/// An IPv4-mapped address is the IPv4 address; an IPv6 address keeps its scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

fn own_listener(at: &EndpointAt, address: SocketAddr) -> String {
    match at {
        EndpointAt::Address(_) => address.to_string(),
        EndpointAt::Host(..) => format!("{at} ({address})"),
    }
}

/// Orders candidates by priority. What two of them stand for is tried once, with the lower of its priorities; an address is
/// something else as a gateway than as an endpoint.
pub(super) fn ordered(mut candidates: Vec<Candidate>) -> Box<[Candidate]> {
    candidates.sort_by_key(|candidate| candidate.priority);
    if candidates.len() > 1 {
        let mut seen = HashSet::with_capacity(candidates.len());
        candidates.retain(|candidate| seen.insert(Arc::as_ptr(&candidate.endpoint)));
    }
    candidates.into()
}
/// How an app is reached through a cluster's gateways; `None` where that does not export it. It is asked for by our name for
/// it if it is known there under that one, else by the first of its own.
fn via(cluster: &Arc<str>, offering: &Offering, ours: &Name) -> Option<Arc<Via>> {
    let (name, reach) = match offering {
        Offering::Unknown => (ours, None),
        Offering::Offered(Offer { names, reach }) => {
            let known = names.iter().find(|name| *name == ours).or(names.first());
            (known.unwrap_or(ours), Some(Arc::clone(reach)))
        }
        Offering::Missing => return None,
    };
    Some(Arc::new(Via { cluster: Arc::clone(cluster), name: name.clone(), reach }))
}
