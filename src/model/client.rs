//! Who connects, as far as a gateway that never sees inside TLS can know: addresses.

use std::net::{IpAddr, SocketAddr};

/// The far end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address that the TCP connection comes from: a load balancer's where one stands in front.
    pub peer: SocketAddr,
    /// The address that policy judges: what a trusted PROXY header names, else `peer`.
    pub source: SocketAddr,
}

impl Client {
    /// A client without a PROXY header.
    pub fn direct(peer: SocketAddr) -> Self {
        Self { peer, source: peer }
    }

    /// The address that networks are compared with: an IPv4 client of a dual-stack listener is an IPv4 client.
    pub fn network_address(&self) -> IpAddr {
        self.source.ip().to_canonical()
    }
}
