//! Who connects, as far as a gateway that never sees inside a sidecar's TLS can know: addresses, and the cluster that opened a link.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::app::AppId;

/// The far end of an accepted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The address that the TCP connection comes from: a load balancer's where one stands in front.
    pub peer: SocketAddr,
    /// The address that policy judges: what a trusted PROXY header names, else `peer`. Behind a link it is the far cluster's word.
    pub source: SocketAddr,
    /// The cluster that speaks for it; `None` for a client that came by itself.
    pub link: Option<Arc<Linked>>,
    /// The user whom its process runs as, where that is of this machine and known.
    pub user: Option<u32>,
}

/// What is known of a client behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The other cluster, proven by its gateway's certificate.
    pub cluster: Arc<str>,
    /// The caller app, claimed by that cluster.
    pub app: Option<AppId>,
}

/// Where a client stands: what is imported is there for local ones alone, and only they are ever put on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Of this cluster: it comes from `local.networks`.
    Local,
    /// From anywhere else, or by a link.
    Remote,
}

/// Somebody who asks what would become of a connection, as far as they say who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Asker {
    /// They do not say.
    #[default]
    Unsaid,
    /// A client at this address.
    At(IpAddr),
    /// A client behind a link.
    Linked(Linked),
}

impl Client {
    /// A client without a PROXY header and without a link.
    pub fn direct(peer: SocketAddr) -> Self {
        Self { peer, source: peer, link: None, user: None }
    }

    /// The address that networks are compared with: an IPv4 client of a dual-stack listener is an IPv4 client. `None` behind a
    /// link: there the address is what another cluster says, and no rule about networks may believe it.
    pub fn network_address(&self) -> Option<IpAddr> {
        match self.link {
            Some(_) => None,
            None => Some(self.source.ip().to_canonical()),
        }
    }
}

impl Side {
    /// `local` or `remote`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

impl Asker {
    /// The client that this would be. No rule sees a port, nor an address behind a link.
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Unsaid => None,
            Self::At(address) => Some(Client::direct((*address, 0).into())),
            Self::Linked(linked) => Some(Client {
                link: Some(Arc::new(linked.clone())),
                ..Client::direct((Ipv4Addr::UNSPECIFIED, 0).into())
            }),
        }
    }
}

impl fmt::Display for Linked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.app {
            Some(app) => write!(out, "{app} of cluster {}", self.cluster),
            None => write!(out, "cluster {}", self.cluster),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => out.write_str("the client"),
            Self::At(address) => write!(out, "{}", address.to_canonical()),
            Self::Linked(linked) => write!(out, "{linked}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_behind_a_link_is_no_network_address() {
        let mapped = Client::direct("[::ffff:10.0.0.1]:1".parse().unwrap());
        assert_eq!(mapped.network_address(), Some(IpAddr::from([10, 0, 0, 1])));
        let linked = Linked { cluster: "east".into(), app: None };
        let linked = Client { link: Some(Arc::new(linked)), ..mapped };
        assert_eq!(linked.network_address(), None);
    }

    #[test]
    fn who_asks_is_named_as_an_operator_would() {
        let app = AppId::parse("shop/frontend").unwrap();
        let linked = Linked { cluster: "east".into(), app: Some(app) };
        assert_eq!(linked.to_string(), "shop/frontend of cluster east");
        assert_eq!(Linked { app: None, ..linked }.to_string(), "cluster east");
        assert_eq!(Asker::At("::ffff:10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1");
    }
}
