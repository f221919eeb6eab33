//! Egress addresses: a local address for each imported app, for callers that send no server name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// What tells one egress address from another: its port where all share an address, its address where all share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// This port, at the address that all share.
    Port(u16),
    /// This address of the pool, at the port that all share.
    Address(IpAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(out, "{port}"),
            Self::Address(address) => write!(out, "{address}"),
        }
    }
}

/// A text that is neither a port nor an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a port from 1 to 65535 nor an IP address")]
pub struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;

    /// Reads what `Display` writes. No sign, which `u16` would take.
    fn from_str(written: &str) -> Result<Self, PlaceError> {
        if written.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = written.parse().map_err(|_| PlaceError)?;
            return if port == 0 { Err(PlaceError) } else { Ok(Self::Port(port)) };
        }
        let address: IpAddr = written.parse().map_err(|_| PlaceError)?;
        Ok(Self::Address(address.to_canonical()))
    }
}

/// `listeners.egress`: where egress addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Space {
    /// A port for each app.
    Ports {
        /// Where Strait listens.
        bind: IpAddr,
        /// What callers are told to dial.
        announce: IpAddr,
        /// The ports to give; `None` gives only what is pinned.
        range: Option<RangeInclusive<u16>>,
    },
    /// An address for each app.
    Pool {
        /// The addresses to give; of an IPv4 network not the first and the last, which are no host's.
        network: IpNet,
        /// The port at each of them.
        port: u16,
    },
}

impl Space {
    /// The places to give, the lowest first. A pool of IPv6 addresses has no end worth the name: take only what is needed.
    pub fn places(&self) -> Box<dyn Iterator<Item = Place> + '_> {
        match self {
            Self::Ports { range, .. } => {
                Box::new(range.clone().into_iter().flatten().map(Place::Port))
            }
            Self::Pool { network, .. } => Box::new(network.hosts().map(Place::Address)),
        }
    }

    /// Whether a place may be given to whoever has not pinned it.
    pub fn gives(&self, place: Place) -> bool {
        match (self, place) {
            (Self::Ports { range, .. }, Place::Port(port)) => {
                range.as_ref().is_some_and(|range| range.contains(&port))
            }
            (Self::Pool { .. }, Place::Address(_)) => self.takes_pin(place),
            (Self::Ports { .. }, Place::Address(_)) | (Self::Pool { .. }, Place::Port(_)) => false,
        }
    }

    /// Whether a place may be pinned: any port, or an address of the pool.
    pub fn takes_pin(&self, place: Place) -> bool {
        match (self, place) {
            (Self::Ports { .. }, Place::Port(_)) => true,
            (Self::Pool { network, .. }, Place::Address(address)) => {
                let ends = [network.network(), network.broadcast()];
                let whole = address.is_ipv6() || network.prefix_len() > 30;
                network.contains(&address) && (whole || !ends.contains(&address))
            }
            (Self::Ports { .. }, Place::Address(_)) | (Self::Pool { .. }, Place::Port(_)) => false,
        }
    }

    /// Where Strait listens for a place of one who may have a port of its own; `None` for a place of another kind.
    pub fn bind(&self, place: Place, own: Option<u16>) -> Option<SocketAddr> {
        match (self, place) {
            (Self::Ports { bind, .. }, Place::Port(port)) => Some((*bind, port).into()),
            (Self::Pool { port, .. }, Place::Address(address)) => {
                Some((address, own.unwrap_or(*port)).into())
            }
            (Self::Ports { .. }, Place::Address(_)) | (Self::Pool { .. }, Place::Port(_)) => None,
        }
    }

    /// What callers dial to reach a place; `None` for a place of another kind.
    pub fn announce(&self, place: Place, own: Option<u16>) -> Option<SocketAddr> {
        match (self, place) {
            (Self::Ports { announce, .. }, Place::Port(port)) => Some((*announce, port).into()),
            (Self::Pool { .. }, Place::Address(_)) => self.bind(place, own),
            (Self::Ports { .. }, Place::Address(_)) | (Self::Pool { .. }, Place::Port(_)) => None,
        }
    }
}

/// What an import asks of egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressSpec {
    /// The place that it must have, if one is written.
    pub pin: Option<Place>,
    /// How many addresses it has, the pinned one included; at least 1.
    pub addresses: u16,
    /// The port of a service: its own at an address of a pool, where apps have the pool's.
    pub port: Option<u16>,
}

impl Default for EgressSpec {
    /// One address, any.
    fn default() -> Self {
        Self { pin: None, addresses: 1, port: None }
    }
}

/// What has an egress address: the label of its route, `namespace/app` for an app.
pub type Holder = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(network: &str) -> Space {
        Space::Pool { network: network.parse().unwrap(), port: 50002 }
    }

    fn places(space: &Space) -> Vec<String> {
        space.places().take(3).map(|place| place.to_string()).collect()
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for written in ["20001", "10.9.0.7", "fd00::7"] {
            assert_eq!(written.parse::<Place>().unwrap().to_string(), written);
        }
        assert_eq!("::ffff:10.9.0.7".parse::<Place>().unwrap().to_string(), "10.9.0.7");
        for wrong in ["", "0", "65536", "+1", "-1", "10.9.0", "shop/orders", "10.9.0.7:1"] {
            assert_eq!(wrong.parse::<Place>(), Err(PlaceError), "{wrong}");
        }
    }

    #[test]
    fn a_range_binds_and_announces_its_ports() {
        let [bind, announce] = ["::", "10.0.0.5"].map(|ip| ip.parse().unwrap());
        let space = Space::Ports { bind, announce, range: Some(20000..=20001) };
        assert_eq!(places(&space), ["20000", "20001"]);
        let place = Place::Port(20001);
        assert_eq!(space.bind(place, None).unwrap().to_string(), "[::]:20001");
        assert_eq!(space.announce(place, Some(6379)).unwrap().to_string(), "10.0.0.5:20001");
        assert!(space.gives(place) && !space.gives(Place::Port(30000)));
        assert!(space.takes_pin(Place::Port(30000)), "a pin need not be in the range");
        let pinned = Space::Ports { bind, announce, range: None };
        assert!(places(&pinned).is_empty() && pinned.takes_pin(place) && !pinned.gives(place));
        assert_eq!(space.bind(Place::Address(announce), None), None);
    }

    #[test]
    fn a_pool_gives_what_a_network_gives_its_hosts() {
        assert_eq!(places(&pool("10.9.0.0/30")), ["10.9.0.1", "10.9.0.2"]);
        assert_eq!(places(&pool("10.9.0.8/32")), ["10.9.0.8"]);
        assert_eq!(places(&pool("fd00::/64")).len(), 3);
        let space = pool("10.9.0.0/24");
        let at = |address: &str| Place::Address(address.parse().unwrap());
        for (own, expected) in [(None, "10.9.0.7:50002"), (Some(6379), "10.9.0.7:6379")] {
            let [bind, announce] =
                [Space::bind, Space::announce].map(|to| to(&space, at("10.9.0.7"), own));
            assert_eq!((bind.unwrap().to_string(), bind), (expected.to_owned(), announce));
        }
        for other in ["10.9.0.0", "10.9.0.255", "10.9.1.1"] {
            assert!(!space.gives(at(other)) && !space.takes_pin(at(other)), "{other}");
        }
        for network in ["10.9.0.0/30", "10.9.0.8/31", "10.9.0.8/32", "fd00::/126", "fd00::/127"] {
            let space = pool(network);
            assert!(space.places().all(|place| space.gives(place)), "{network}");
        }
    }
}
