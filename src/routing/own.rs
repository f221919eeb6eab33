//! The gateway's own listeners among endpoints: a connection to one of them would come back for ever.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Tells own listeners from endpoints. Lives as long as one build: addresses of a host come and go.
pub(super) struct OwnAddresses<'a> {
    bound: &'a [SocketAddr],
    is_local: fn(IpAddr) -> bool,
    asked: HashMap<IpAddr, bool>,
}

impl<'a> OwnAddresses<'a> {
    pub(super) fn new(bound: &'a [SocketAddr], is_local: fn(IpAddr) -> bool) -> Self {
        Self { bound, is_local, asked: HashMap::new() }
    }

    /// Whether dialling an address would reach a listener of this gateway.
    pub(super) fn contain(&mut self, address: SocketAddr) -> bool {
        let dialled = dialled(address.ip());
        let mut same_port = self.bound.iter().filter(|bound| bound.port() == address.port());
        let (mut exactly, mut anywhere) = (false, false);
        for bound in &mut same_port {
            exactly |= bound.ip().to_canonical() == dialled;
            anywhere |= listens_for(bound.ip(), dialled);
        }
        exactly || (anywhere && self.is_local(dialled))
    }

    fn is_local(&mut self, address: IpAddr) -> bool {
        *self.asked.entry(address).or_insert_with(|| (self.is_local)(address))
    }
}

/// Linux takes a connect to the unspecified address as one to loopback.
fn dialled(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    }
}

/// Whether a listener takes connections for every local address of a kind. `[::]` is taken to be dual-stack.
fn listens_for(bound: IpAddr, dialled: IpAddr) -> bool {
    match bound {
        IpAddr::V4(bound) => bound.is_unspecified() && dialled.is_ipv4(),
        IpAddr::V6(bound) => bound.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(bound: &[&str], address: &str) -> bool {
        let bound: Vec<SocketAddr> = bound.iter().map(|bound| bound.parse().unwrap()).collect();
        let local =
            |address: IpAddr| address.is_loopback() || address == IpAddr::from([10, 0, 0, 5]);
        OwnAddresses::new(&bound, local).contain(address.parse().unwrap())
    }

    #[test]
    fn a_bound_address_is_own_on_its_port_only() {
        assert!(own(&["10.0.0.9:8443"], "10.0.0.9:8443"));
        assert!(own(&["10.0.0.9:8443"], "[::ffff:10.0.0.9]:8443"));
        assert!(own(&["[::ffff:10.0.0.9]:8443"], "10.0.0.9:8443"));
        assert!(!own(&["10.0.0.9:8443"], "10.0.0.9:8444"));
        assert!(!own(&["10.0.0.9:8443"], "10.0.0.5:8443"));
    }

    #[test]
    fn a_listener_on_every_address_owns_each_local_one() {
        assert!(own(&["[::]:8443"], "10.0.0.5:8443"));
        assert!(own(&["0.0.0.0:8443"], "10.0.0.5:8443"));
        assert!(own(&["[::]:8443"], "[::1]:8443"));
        assert!(!own(&["0.0.0.0:8443"], "[::1]:8443"));
        assert!(!own(&["[::]:8443"], "10.0.0.6:8443"));
        assert!(!own(&["[::]:8443"], "10.0.0.5:50002"));
    }

    #[test]
    fn the_unspecified_address_is_loopback_when_dialled() {
        assert!(own(&["127.0.0.1:9901"], "0.0.0.0:9901"));
        assert!(own(&["[::]:9901"], "0.0.0.0:9901"));
        assert!(!own(&["10.0.0.5:9901"], "0.0.0.0:9901"));
    }
}
