//! Egress: where its addresses come from, and what imports ask of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::config::file::{self, List, Setting};
use crate::config::problem::Wrong;
use crate::config::spot::Spot;
use crate::config::tree::NodeId;
use crate::config::{AdminAddress, Listeners};
use crate::model::egress::{EgressSpec, Holder, Place, Space};
use crate::model::snapshot::{EgressListeners, Origin};

use super::listeners::network;
use super::{Resolver, items};

/// The lock's name; `egress::lock` says what is in it.
const LOCK: &str = "egress.lock";
/// Most addresses of one app. A sidecar has one connection to each, and nobody needs so many.
const MOST_ADDRESSES: u16 = 256;

/// What an import asks for, besides the app.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wishes {
    pub(super) egress: EgressSpec,
    pub(super) plaintext: bool,
}

/// Places that are pinned, with who has pinned them.
pub(super) type Pins = HashMap<Place, (Holder, Origin)>;

impl Resolver<'_> {
    /// `listeners.egress`, with its lock in the state's folder or beside the file that asks for it.
    pub(super) fn egress(
        &mut self,
        written: Option<&Spot<file::Egress>>,
        state: Option<&Path>,
        listeners: &Listeners,
    ) -> Option<EgressListeners> {
        let spot = written?;
        let egress = spot.value.as_ref()?;
        let space = match (&egress.bind, &egress.pool) {
            (_, Some(pool)) => self.pool(egress, pool, spot.node),
            (Some(bind), None) => self.ports(egress, bind),
            (None, None) => {
                let fix = "add `bind: \"[::]\"` and `ports: 20000-29999` for a port an app, or `pool: CIDR` and `port: 50002` for an \
                           address an app";
                self.wrong(spot.node, Wrong::new("nothing says which addresses to give", fix));
                None
            }
        };
        let space = space?;
        self.check_overlap(spot.node, &space, listeners);
        let beside = self.beside(spot.node, Path::new(LOCK));
        let lock = state.map_or(beside, |folder| folder.join(LOCK));
        Some(EgressListeners { space, lock })
    }

    fn pool(&mut self, egress: &file::Egress, pool: &Spot<String>, node: NodeId) -> Option<Space> {
        for (key, other) in
            [("bind", &egress.bind), ("announce", &egress.announce), ("ports", &egress.ports)]
        {
            if let Some(other) = other {
                let message = format!(
                    "`{key}` does not go with `pool`, whose addresses are both listened at and told"
                );
                self.wrong(other.node, Wrong::new(message, "remove one of the two"));
            }
        }
        let network = self.parse_spot(pool, network);
        let fix = "add `port: 50002`, the port that callers dial: with Dapr's Kubernetes resolver their own internal port";
        let port = self.required(&egress.port, node, "port", fix);
        let port = port.and_then(|port| self.parse_spot(port, port_number));
        Some(Space::Pool { network: network?, port: port? })
    }

    fn ports(&mut self, egress: &file::Egress, bind: &Spot<String>) -> Option<Space> {
        if let Some(port) = &egress.port {
            let fix = "write `ports: 20000-29999`, or `pool: CIDR` to go with it";
            self.wrong(port.node, Wrong::new("`port` goes with `pool`", fix));
        }
        let range = self.parse(&egress.ports, ports);
        let node = bind.node;
        let bind = self.parse_spot(bind, address)?;
        let announce = match &egress.announce {
            Some(announce) => self.parse_spot(announce, told_address)?,
            None if bind.is_unspecified() => {
                let message = "nothing says which address callers dial, and `bind` is every one";
                let fix = "add `announce: IP`, an address of this machine that callers reach";
                self.wrong(node, Wrong::new(message, fix));
                return None;
            }
            None => bind,
        };
        Some(Space::Ports { bind, announce, range })
    }

    /// A port that another listener has would never be free.
    fn check_overlap(&mut self, node: NodeId, space: &Space, listeners: &Listeners) {
        if let Some(other) = overlap(space, listeners) {
            let message = format!("another listener has an address of this range: {other}");
            self.wrong(node, Wrong::new(message, "take a range of ports that nothing else uses"));
        }
    }

    /// The same of the ports that services have of their own at addresses of a pool.
    pub(super) fn check_ports(
        &mut self,
        services: &List<file::Service>,
        egress: Option<&EgressListeners>,
        listeners: &Listeners,
    ) {
        let Some(Space::Pool { network, .. }) = egress.map(|egress| &egress.space) else { return };
        let imported = values(services).filter(|service| service.import.is_some());
        for spot in imported.filter_map(|service| service.port.as_ref()) {
            let Some(port) = spot.value.as_deref().and_then(|port| port.parse().ok()) else {
                continue;
            };
            if let Some(other) = overlap(&Space::Pool { network: *network, port }, listeners) {
                let message =
                    format!("at each address of the pool another listener has this port: {other}");
                let fix = "give that listener an address of its own, or another port";
                self.wrong(spot.node, Wrong::new(message, fix));
            }
        }
    }

    /// What an import asks of egress. Where there is none its app has no address; it may have one as soon as there is.
    pub(super) fn wishes(
        &mut self,
        import: &file::Import,
        holder: &Holder,
        pins: &mut Pins,
    ) -> Wishes {
        let plaintext = import.plaintext.as_ref().and_then(|spot| spot.value).unwrap_or_default();
        let addresses = self.addresses(&import.addresses);
        let pin = self.pin(&import.egress, holder, pins);
        Wishes { egress: EgressSpec { pin, addresses, port: None }, plaintext }
    }

    /// How many addresses are asked for.
    pub(super) fn addresses(&mut self, written: &Setting<String>) -> u16 {
        self.parse(written, addresses).unwrap_or(1)
    }

    /// The place that is asked for, which nobody else may have.
    pub(super) fn pin(
        &mut self,
        written: &Setting<file::Pin>,
        holder: &Holder,
        pins: &mut Pins,
    ) -> Option<Place> {
        let spot = written.as_ref()?;
        let pin = self.pinned(spot)?;
        if let Some((other, place)) = pins.get(&pin) {
            let message = format!("{pin} is pinned by {other} too, at {place}");
            self.wrong(spot.node, Wrong::new(message, "give each an address of its own"));
            return None;
        }
        pins.insert(pin, (Arc::clone(holder), self.tree.origin(spot.node)));
        Some(pin)
    }

    fn pinned(&mut self, spot: &Spot<file::Pin>) -> Option<Place> {
        let pin = spot.value.as_ref()?;
        match (&pin.port, &pin.address) {
            (Some(port), None) => self.parse_spot(port, port_number).map(Place::Port),
            (None, Some(address)) => {
                self.parse_spot(address, told_address).map(|ip| Place::Address(ip.to_canonical()))
            }
            (Some(_), Some(_)) | (None, None) => {
                let fix = "write `egress: { port: 20001 }`, or `egress: { address: 10.9.0.7 }` where there is a pool";
                self.wrong(spot.node, Wrong::new("not one port or address to pin", fix));
                None
            }
        }
    }

    /// Pins that `listeners.egress` cannot give, once both are known.
    pub(super) fn check_pins(&mut self, file: &file::File, egress: Option<&EgressListeners>) {
        let apps = values(&file.imports).filter_map(|import| import.egress.as_ref());
        let services = values(&file.services).filter_map(|service| service.import.as_ref());
        let services = services.filter_map(|import| import.value.as_ref()?.egress.as_ref());
        for spot in apps.chain(services) {
            let Some(egress) = egress else {
                let message = "there is no `listeners.egress`, so no app has an address of its own";
                let fix =
                    "add `listeners: { egress: { bind: \"[::]\", announce: IP } }`, or remove this";
                self.doubtful(spot.node, Wrong::new(message, fix));
                continue;
            };
            let place = spot.value.as_ref().and_then(place_of);
            if let Some(place) = place.filter(|place| !egress.space.takes_pin(*place)) {
                let message = format!("{place} is not of `listeners.egress`");
                let fix = match egress.space {
                    Space::Ports { .. } => "write `egress: { port: NUMBER }`".to_owned(),
                    Space::Pool { network, .. } => {
                        format!("write `egress: {{ address: IP }}`, of {network}")
                    }
                };
                self.wrong(spot.node, Wrong::new(message, fix));
            }
        }
    }
}

/// What could be read of a list.
fn values<T>(list: &List<T>) -> impl Iterator<Item = &T> {
    items(list).iter().filter_map(|spot| spot.value.as_ref())
}

/// A pin as written, if it can be read: what is wrong with it has been noted.
fn place_of(pin: &file::Pin) -> Option<Place> {
    let text = |setting: &Setting<String>| setting.as_ref().and_then(|spot| spot.value.clone());
    text(&pin.port).or_else(|| text(&pin.address))?.parse().ok()
}

/// A listener that has an address of a space.
fn overlap(space: &Space, listeners: &Listeners) -> Option<SocketAddr> {
    let admin = match &listeners.admin {
        AdminAddress::Tcp(address) => Some(*address),
        AdminAddress::Unix(_) => None,
    };
    let ingress = listeners.ingress.iter().map(|ingress| ingress.address);
    ingress.chain(listeners.metrics).chain(admin).find(|other| meets(space, *other))
}

fn meets(space: &Space, other: SocketAddr) -> bool {
    let same =
        |one: IpAddr| one.is_unspecified() || other.ip().is_unspecified() || one == other.ip();
    match space {
        Space::Ports { bind, range, .. } => {
            range.as_ref().is_some_and(|range| range.contains(&other.port())) && same(*bind)
        }
        Space::Pool { network, port } => {
            *port == other.port() && (other.ip().is_unspecified() || network.contains(&other.ip()))
        }
    }
}

fn address(written: &str) -> Result<IpAddr, Wrong> {
    let inside = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(written).parse().map_err(|_| {
        Wrong::new(
            format!("{written:?} is no IP address"),
            "write one without a port: \"[::]\", 10.0.0.5",
        )
    })
}

/// An address that somebody can dial.
fn told_address(written: &str) -> Result<IpAddr, Wrong> {
    let address = address(written)?;
    if address.is_unspecified() {
        return Err(Wrong::new(
            format!("nobody can dial {address}"),
            "write an address that callers reach",
        ));
    }
    Ok(address)
}

pub(super) fn port_number(written: &str) -> Result<u16, Wrong> {
    let digits = written.bytes().all(|byte| byte.is_ascii_digit());
    written.parse().ok().filter(|&port| digits && port != 0).ok_or_else(|| {
        Wrong::new(format!("{written:?} is no port"), "write a number from 1 to 65535")
    })
}

fn ports(written: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let fix = "write the first and the last port: 20000-29999";
    let wrong = || Wrong::new(format!("{written:?} is no range of ports"), fix);
    let (first, last) = written.split_once('-').ok_or_else(wrong)?;
    let (first, last) = (port_number(first.trim())?, port_number(last.trim())?);
    if first > last {
        return Err(Wrong::new(format!("{first} is behind {last}"), fix));
    }
    Ok(first..=last)
}

fn addresses(written: &str) -> Result<u16, Wrong> {
    let number = port_number(written).ok().filter(|number| *number <= MOST_ADDRESSES);
    number.ok_or_else(|| {
        let fix = format!("write a number from 1 to {MOST_ADDRESSES}");
        Wrong::new(format!("{written:?} addresses cannot be given"), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    fn space(ports: bool) -> Space {
        if ports {
            let [bind, announce] = ["10.0.0.1", "10.0.0.5"].map(|ip| ip.parse().unwrap());
            Space::Ports { bind, announce, range: Some(20000..=20009) }
        } else {
            Space::Pool { network: "10.9.0.0/24".parse::<IpNet>().unwrap(), port: 50002 }
        }
    }

    #[test]
    fn a_range_meets_a_listener_at_one_of_its_ports() {
        for (ports, other, expected) in [
            (true, "[::]:20009", true),
            (true, "10.0.0.1:20000", true),
            (true, "10.0.0.2:20000", false),
            (true, "[::]:20010", false),
            (false, "[::]:50002", true),
            (false, "10.9.0.7:50002", true),
            (false, "10.9.1.7:50002", false),
            (false, "10.9.0.7:50003", false),
        ] {
            assert_eq!(meets(&space(ports), other.parse().unwrap()), expected, "{other}");
        }
    }

    #[test]
    fn ranges_addresses_and_numbers_are_read() {
        assert_eq!(ports("20000-29999").unwrap(), 20000..=29999);
        assert_eq!(ports("20000 - 20000").unwrap(), 20000..=20000);
        for wrong in ["20000", "2-1", "0-1", "1-65536", "-", "a-b"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        assert_eq!(address("[::]").unwrap(), address("::").unwrap());
        assert!(told_address("0.0.0.0").is_err() && told_address("10.0.0.5:1").is_err());
        assert_eq!(addresses("256").unwrap(), 256);
        assert!(addresses("0").is_err() && addresses("257").is_err());
    }
}
