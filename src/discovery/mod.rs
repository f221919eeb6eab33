//! Where apps are: sources that each know a part, and the one owner that merges what they say.
//!
//! Every source has the same face: settings in, a watching task, a pure `translate` from what its system says to the words of
//! [`model`](crate::model). It sends whole snapshots, never changes, so that a lost message cannot leave a lie behind.

pub mod aggregate;
pub mod dns;
pub mod exchange;
pub mod file;
pub mod memory;
mod pace;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::model::allowed::Documents;
use crate::model::name::Name;
use crate::model::offer::Offers;
use crate::model::snapshot::{Addresses, EndpointAt, Routes};

/// What one source says, sent to [`aggregate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The source's name, as metrics and status show it: `dns`.
    pub source: Arc<str>,
    /// What it says.
    pub said: Said,
}

/// What a source knows, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// What DNS names stand for.
    Addresses(Addresses),
    /// What another cluster exports to this one.
    Offers(Arc<Offers>),
    /// What apps of this cluster may call, by caller.
    Documents(Arc<Documents>),
}

impl From<Addresses> for Snapshot {
    fn from(addresses: Addresses) -> Self {
        Self::Addresses(addresses)
    }
}

impl Snapshot {
    fn is_empty(&self) -> bool {
        match self {
            Self::Addresses(addresses) => addresses.0.is_empty(),
            Self::Offers(offers) => offers.apps.is_empty(),
            Self::Documents(documents) => documents.is_empty(),
        }
    }
}

/// What a source can say. An outage is no empty snapshot: it takes nothing away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Everything that the source knows. Empty is a statement: there is nothing.
    Snapshot(Snapshot),
    /// Everything that was known at this time, before the restart, as far as nothing newer has been said. The source has not said
    /// so itself.
    Remembered(Snapshot, SystemTime),
    /// Asked again, and what was said last still holds: its age starts over.
    Unchanged,
    /// The source cannot tell, and why. What it said last stays in force, for good if need be.
    Failed(String),
    /// Nobody asks for it any more: all that it said is forgotten.
    Gone,
}

impl From<Addresses> for Said {
    fn from(addresses: Addresses) -> Self {
        Self::Snapshot(addresses.into())
    }
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The source's name.
    pub name: Arc<str>,
    /// Whether the last thing it said was no failure.
    pub up: bool,
    /// When it last said what it knows.
    pub last_ok: Option<Instant>,
    /// When its snapshot was last known to be true, if some of that is only remembered from before the restart.
    pub remembered: Option<SystemTime>,
    /// Its last good snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The failure that lasts, while it does.
    pub last_error: Option<String>,
    /// Whether it has said anything yet, and the table takes it into account.
    pub spoken: bool,
}

impl SourceStatus {
    fn silent(name: Arc<str>) -> Self {
        Self {
            name,
            up: false,
            last_ok: None,
            remembered: None,
            snapshot: None,
            last_error: None,
            spoken: false,
        }
    }

    /// Since when its snapshot is not known to be true; `None` while there is none.
    pub fn age(&self) -> Option<Duration> {
        // A clock that was set back makes nothing older.
        let remembered = self.remembered.map(|at| at.elapsed().unwrap_or_default());
        remembered.or_else(|| self.last_ok.map(|at| at.elapsed()))
    }

    fn hear(&mut self, said: &Said, now: Instant) {
        match said {
            Said::Snapshot(_) | Said::Unchanged => {
                self.up = true;
                self.last_ok = Some(now);
                self.remembered = None;
                self.last_error = None;
            }
            Said::Remembered(_, as_of) => self.remembered = Some(*as_of),
            Said::Failed(why) => {
                self.up = false;
                self.last_error = Some(why.clone());
            }
            Said::Gone => {}
        }
    }
}

/// The DNS names that routes lead to and callers are known by: what there is to resolve.
pub fn hosts(routes: &Routes) -> HashSet<Name> {
    let written = routes.routes.iter().flat_map(|route| &route.endpoints);
    let imports = routes.routes.iter().filter_map(|route| route.import.as_ref());
    let imports = imports.chain(routes.permissions.import.as_ref().map(|(import, _)| import));
    let gateways = imports.flat_map(|import| &import.gateways);
    let peers = routes.peers.iter().flat_map(|peer| &peer.gateways);
    let written = written.map(|endpoint| &endpoint.at);
    let written = written.chain(gateways.map(|gateway| &gateway.at)).chain(peers);
    let mut hosts: HashSet<Name> = written.filter_map(host).collect();
    hosts.extend(routes.callers.iter().flat_map(|caller| caller.hosts.iter().cloned()));
    hosts.extend(routes.files.iter().flat_map(|file| file.lists().flatten()).filter_map(host));
    hosts
}

fn host(at: &EndpointAt) -> Option<Name> {
    match at {
        EndpointAt::Host(name, _) => Some(name.clone()),
        EndpointAt::Address(_) => None,
    }
}

/// Whether an address means this machine, its link or its cloud's metadata service, or cannot be dialled at all. A source
/// that others can write to must not lead the gateway there: it would lend them its place in the network.
pub fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // 0.0.0.0/8 reaches the machine itself on Linux (RFC 1122 §3.2.1.3 calls it "this host on this network").
            v4.octets().first() == Some(&0)
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || METADATA.contains(&v6)
        }
    }
}

/// Metadata services outside the link-local ranges: EC2 over IPv6, Google Compute Engine over IPv6.
const METADATA: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routes_file::testing::file;
    use crate::model::snapshot::{
        Allow, Answer, EndpointSpec, GatewaySpec, ImportSpec, Kind, Origin, RouteSpec,
    };
    use std::path::Path;

    #[test]
    fn names_come_from_routes_and_from_routes_files() {
        let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
        let endpoint = |at: &str| EndpointSpec {
            at: EndpointAt::parse(at).unwrap(),
            weight: 1,
            priority: 0,
            origin: origin.clone(),
        };
        let gateway = GatewaySpec {
            cluster: "east".into(),
            at: EndpointAt::parse("gw.example:8443").unwrap(),
            priority: 0,
            offering: crate::model::snapshot::Offering::Unknown,
        };
        let route = RouteSpec {
            label: "shop/checkout".into(),
            kind: Kind::App,
            names: vec![],
            allow: Allow::Open,
            import: Some(ImportSpec {
                allow: Allow::Rules(vec![]),
                own: false,
                gateways: vec![gateway],
                answer: Answer::Linked,
                quiet_close: true,
                egress: crate::model::egress::EgressSpec::default(),
                plaintext: false,
                failback: std::time::Duration::ZERO,
            }),
            endpoints: vec![endpoint("a.example:1"), endpoint("10.0.0.1:1")],
            check: None,
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
        };
        let files = vec![file("x.example 10.0.0.2:1 B.example:2\ny.example a.example:3")];
        let routes = Routes { routes: vec![route], files, ..Routes::default() };
        let expected =
            ["a.example", "b.example", "gw.example"].map(|name| Name::parse(name).unwrap());
        assert_eq!(hosts(&routes), HashSet::from(expected));
    }

    #[test]
    fn addresses_of_this_machine_are_local_in_every_spelling() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "fd00::1", "2001:db8::1", "203.0.113.7"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_failure_neither_renews_the_age_nor_ends_it() {
        let mut status = SourceStatus::silent("dns".into());
        let start = Instant::now();
        status.hear(&Addresses::default().into(), start);
        status.hear(&Said::Failed("no answer".into()), Instant::now());
        assert_eq!((status.up, status.last_ok), (false, Some(start)));
        assert_eq!(status.last_error.as_deref(), Some("no answer"));
        let later = Instant::now();
        status.hear(&Said::Unchanged, later);
        assert_eq!((status.up, status.last_ok, status.last_error), (true, Some(later), None));
    }
}
