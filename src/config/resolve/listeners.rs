//! Where connections come in, and whom to ask for addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::disk::folder;
use crate::config::file::{self, List, Setting};
use crate::config::problem::Wrong;
use crate::config::routes_file::wrong_name;
use crate::config::spot::Spot;
use crate::config::tree::NodeId;
use crate::config::{self, AdminAccess, AdminAddress, AdminTls, Ingress, Listeners, Zone};
use crate::model::cluster::{OWN_DOMAIN, is_own_name};
use crate::model::name::Name;

use super::{Resolver, items};

/// The default ingress: both address families, a port that needs no privilege.
const INGRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8443);
/// The default of `listeners.admin`: nobody but this machine.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;

/// Addresses that listeners have taken.
type Taken = HashMap<SocketAddr, NodeId>;

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, written: Option<&Spot<file::Listeners>>) -> Listeners {
        let nothing = file::Listeners::default();
        let written = written.and_then(|spot| spot.value.as_ref()).unwrap_or(&nothing);
        let mut taken = Taken::new();
        Listeners {
            ingress: self.ingress(&written.ingress, &mut taken),
            metrics: self.metrics(&written.metrics, &mut taken),
            admin: self.admin(&written.admin, &mut taken),
            admin_access: self.admin_access(&written.admin),
            dns: self.dns(&written.dns, &mut taken),
        }
    }

    fn dns(
        &mut self,
        written: &Setting<file::DnsListener>,
        taken: &mut Taken,
    ) -> Option<SocketAddr> {
        let spot = written.as_ref()?;
        let address = &spot.value.as_ref()?.address;
        let address =
            self.required(address, spot.node, "address", "add `address: \"[::]:1053\"`")?;
        self.bind(address, taken)
    }

    /// What the name server has authority over.
    pub(super) fn zone(&mut self, written: Option<&Spot<file::Listeners>>) -> Option<Arc<Zone>> {
        let listeners = written?.value.as_ref()?;
        let egress = listeners.egress.as_ref().and_then(|spot| spot.value.as_ref());
        let has_pool = egress.is_some_and(|egress| egress.pool.is_some());
        let spot = listeners.dns.as_ref()?;
        let dns = spot.value.as_ref()?;
        let fix = "add `zone: mesh.example`, a domain that is nobody else's";
        let name = self.required(&dns.zone, spot.node, "zone", fix);
        let name = name.and_then(|spot| self.parse_spot(spot, zone_name));
        let fix = "add `announce: [10.0.0.5]`, the addresses where callers reach this gateway";
        let announce = self.required(&dns.announce, spot.node, "announce", fix)?;
        if announce.value.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(announce.node, Wrong::new("no name would stand for an address", fix));
        }
        let gateway = items(&dns.announce).iter();
        let gateway = gateway.filter_map(|spot| self.parse_spot(spot, announced)).collect();
        Some(Arc::new(Zone { name: name?, gateway, has_pool }))
    }

    fn ingress(&mut self, written: &List<file::Ingress>, taken: &mut Taken) -> Vec<Ingress> {
        let Some(list) = written else {
            return vec![Ingress { address: INGRESS, proxy_from: vec![] }];
        };
        if list.value.as_ref().is_some_and(Vec::is_empty) {
            let fix = "name at least one listener, or leave `ingress` out for one at [::]:8443";
            self.wrong(list.node, Wrong::new("without a listener no connection can come in", fix));
        }
        items(written).iter().filter_map(|spot| self.one_ingress(spot, taken)).collect()
    }

    fn one_ingress(&mut self, spot: &Spot<file::Ingress>, taken: &mut Taken) -> Option<Ingress> {
        let written = spot.value.as_ref()?;
        let address =
            self.required(&written.address, spot.node, "address", "add `address: \"[::]:8443\"`");
        let address = address.and_then(|address| self.bind(address, taken));
        let proxy_from = match &written.proxy_protocol {
            Some(proxy) => self.proxy_from(proxy)?,
            None => vec![],
        };
        Some(Ingress { address: address?, proxy_from })
    }

    fn proxy_from(&mut self, spot: &Spot<file::ProxyProtocol>) -> Option<Vec<IpNet>> {
        let fix = "add the load balancers' networks: `proxyProtocol: { from: [10.0.9.0/24] }`";
        let from = self.required(&spot.value.as_ref()?.from, spot.node, "from", fix)?;
        if from.value.as_ref()?.is_empty() {
            self.wrong(from.node, Wrong::new("nobody may send a PROXY header", fix));
        }
        Some(self.networks(from.value.as_deref()?))
    }

    pub(super) fn networks(&mut self, written: &[Spot<String>]) -> Vec<IpNet> {
        written.iter().filter_map(|spot| self.parse_spot(spot, network)).collect()
    }

    fn metrics(
        &mut self,
        written: &Setting<file::MetricsListener>,
        taken: &mut Taken,
    ) -> Option<SocketAddr> {
        let spot = written.as_ref()?;
        let address = &spot.value.as_ref()?.address;
        let address =
            self.required(address, spot.node, "address", "add `address: \"[::]:9902\"`")?;
        self.bind(address, taken)
    }

    fn admin(&mut self, written: &Setting<file::AdminListener>, taken: &mut Taken) -> AdminAddress {
        self.written_admin(written, taken).unwrap_or(AdminAddress::Tcp(ADMIN))
    }

    fn written_admin(
        &mut self,
        written: &Setting<file::AdminListener>,
        taken: &mut Taken,
    ) -> Option<AdminAddress> {
        let spot = written.as_ref()?;
        let address = &spot.value.as_ref()?.address;
        let address =
            self.required(address, spot.node, "address", "add `address: \"127.0.0.1:9901\"`")?;
        let Some(path) = address.value.as_ref()?.strip_prefix("unix:") else {
            return self.bind(address, taken).map(AdminAddress::Tcp);
        };
        if path.is_empty() {
            self.wrong(
                address.node,
                Wrong::new("the path is empty", "write unix:/run/strait/admin.sock"),
            );
        }
        let folder = self.tree.file_of(address.node).map(|file| folder(file)).unwrap_or_default();
        Some(AdminAddress::Unix(folder.join(path)))
    }

    fn admin_access(&mut self, written: &Setting<file::AdminListener>) -> AdminAccess {
        let Some(spot) = written else { return AdminAccess::default() };
        let Some(admin) = &spot.value else { return AdminAccess::default() };
        let token_file = admin.token_file.as_ref().and_then(|spot| self.path(spot));
        let tls = admin.tls.as_ref().and_then(|spot| self.admin_tls(spot));
        if admin.token_file.is_none() && tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            self.check_closed(&admin.address);
        }
        AdminAccess { token_file, tls }
    }

    fn admin_tls(&mut self, spot: &Spot<file::AdminTls>) -> Option<AdminTls> {
        let nothing = file::AdminTls::default();
        let written = spot.value.as_ref().unwrap_or(&nothing);
        let fix = "add `directory: tls/admin`, the folder with tls.crt and tls.key";
        let directory = self.required(&written.directory, spot.node, "directory", fix);
        let directory = directory.and_then(|directory| self.path(directory));
        let client_ca = written.client_ca.as_ref().and_then(|spot| self.path(spot));
        let readable = written.allow_readable_key.as_ref().and_then(|spot| spot.value);
        Some(AdminTls {
            directory: directory?,
            client_ca,
            allow_readable_key: readable.unwrap_or_default(),
        })
    }

    /// Tells of an address that others reach and at which nobody may ask.
    fn check_closed(&mut self, written: &Setting<String>) {
        let address = written.as_ref().and_then(|spot| Some((spot.node, spot.value.as_ref()?)));
        let Some((node, address)) = address else { return };
        let address = address.parse().map(|address: SocketAddr| address.ip().to_canonical());
        if address.is_ok_and(|address| !address.is_loopback()) {
            let message = "nothing says who may ask here: only /healthz and /readyz are answered";
            let fix = "add `tokenFile` or `tls.clientCa`, or let it listen at 127.0.0.1 or unix:PATH; for scrapes there is `listeners.metrics`";
            self.doubtful(node, Wrong::new(message, fix));
        }
    }

    /// An address to listen at, which no other listener may have. Port 0 is any free port, so it is never taken.
    fn bind(&mut self, spot: &Spot<String>, taken: &mut Taken) -> Option<SocketAddr> {
        let address = self.parse_spot(spot, listen_address)?;
        if address.port() == 0 {
            return Some(address);
        }
        if let Some(other) = taken.insert(address, spot.node) {
            let message =
                format!("another listener has this address, at {}", self.tree.origin(other));
            self.wrong(spot.node, Wrong::new(message, "give each listener a port of its own"));
        }
        Some(address)
    }

    pub(super) fn resolver(&mut self, written: &Setting<file::Resolver>) -> config::Resolver {
        let Some(written) = written.as_ref().and_then(|spot| spot.value.as_ref()) else {
            return config::Resolver::default();
        };
        let servers = items(&written.servers).iter();
        let allowed = written.allow_local_addresses.as_ref().and_then(|spot| spot.value);
        config::Resolver {
            servers: servers.filter_map(|spot| self.parse_spot(spot, dns_server)).collect(),
            allow_local_addresses: allowed.unwrap_or_default(),
        }
    }
}

fn listen_address(written: &str) -> Result<SocketAddr, Wrong> {
    written.parse().map_err(|_| {
        let fix = "write an IP address and a port: \"[::]:8443\" for every interface, \"127.0.0.1:8443\" for this machine";
        Wrong::new(format!("{written:?} is no address to listen at"), fix)
    })
}

fn zone_name(written: &str) -> Result<Name, Wrong> {
    let name = Name::parse(written).map_err(wrong_name)?;
    if is_own_name(name.as_str()) {
        let fix = "take a domain of yours: mesh.example";
        return Err(Wrong::new(format!("{OWN_DOMAIN} is what gateways call each other by"), fix));
    }
    Ok(name)
}

fn announced(written: &str) -> Result<IpAddr, Wrong> {
    let fix = "write an IP address where callers reach this gateway: 10.0.0.5 or fd00::5";
    let address: IpAddr =
        written.parse().map_err(|_| Wrong::new(format!("{written:?} is no IP address"), fix))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(Wrong::new(format!("nobody can connect to {address}"), fix));
    }
    Ok(address.to_canonical())
}

fn dns_server(written: &str) -> Result<SocketAddr, Wrong> {
    let plain = written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    plain.or_else(|_| written.parse()).ok().filter(|server| server.port() != 0).ok_or_else(|| {
        let fix = "write an IP address, with a port if it is not 53: 10.96.0.10 or 127.0.0.1:5353";
        Wrong::new(format!("{written:?} is no DNS server"), fix)
    })
}

/// Reads a CIDR. Host bits and a bare address are errors: the reader and the gateway might mean different networks.
pub(super) fn network(written: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = written.parse::<IpAddr>() {
        let fix = format!("write {} for this one address", IpNet::from(address));
        return Err(Wrong::new("a network needs a prefix length", fix));
    }
    let network: IpNet = written.parse().map_err(|_| {
        Wrong::new(
            format!("{written:?} is no network"),
            "write a CIDR: 203.0.113.0/24 or 2001:db8::/32",
        )
    })?;
    if network.addr() != network.network() {
        let fix = format!(
            "write {} for the network, or {} for the address",
            network.trunc(),
            IpNet::from(network.addr())
        );
        return Err(Wrong::new("the address has bits behind its prefix length", fix));
    }
    Ok(network)
}
