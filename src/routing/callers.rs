//! Which app of this cluster a local client is, as far as its address tells: a network, not an identity.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::app::AppId;
use crate::policy::canonical;

/// The apps that are known by where they call from.
#[derive(Debug, Default)]
pub(super) struct Callers {
    by_network: HashMap<IpNet, AppId>,
    /// The prefix lengths among these networks, longest first: few in practice, and each costs a look-up one probe.
    lengths: Box<[u8]>,
}

/// What an address tells of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// It is in no app's networks.
    Unknown,
    /// It is in the networks of this app alone.
    App(AppId),
    /// It is in the networks of both. Neither is taken: a guess would lend one app the rights of the other.
    Ambiguous(AppId, AppId),
}

impl Callers {
    /// No network may stand for two apps; the configuration sees to that.
    pub(super) fn new(apps: &[(AppId, Vec<IpNet>)]) -> Self {
        let networks = apps.iter().flat_map(|(app, networks)| {
            networks.iter().map(move |&network| (canonical(network), app.clone()))
        });
        let by_network: HashMap<_, _> = networks.collect();
        let lengths: BTreeSet<u8> = by_network.keys().map(IpNet::prefix_len).collect();
        Self { by_network, lengths: lengths.into_iter().rev().collect() }
    }

    /// Who a client at a canonical address is.
    pub(super) fn at(&self, address: IpAddr) -> Caller {
        let network =
            |&length: &u8| IpNet::new(address, length).ok().map(|network| network.trunc());
        let mut found =
            self.lengths.iter().filter_map(network).filter_map(|it| self.by_network.get(&it));
        let Some(app) = found.next() else { return Caller::Unknown };
        match found.find(|&other| other != app) {
            Some(other) => Caller::Ambiguous(app.clone(), other.clone()),
            None => Caller::App(app.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app(number: u8) -> AppId {
        AppId::parse(&format!("shop/app{number}")).unwrap()
    }

    fn callers(written: &[(u8, &str)]) -> Callers {
        let of = |&(number, network): &(u8, &str)| (app(number), vec![network.parse().unwrap()]);
        Callers::new(&written.iter().map(of).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_of_two_apps_is_nobodys() {
        let callers = callers(&[
            (1, "10.0.0.0/8"),
            (1, "10.1.0.0/16"),
            (2, "10.2.0.0/16"),
            (3, "2001:db8::/32"),
        ]);
        let at = |address: &str| callers.at(address.parse().unwrap());
        assert_eq!(at("10.1.2.3"), Caller::App(app(1)), "two networks, one app");
        assert_eq!(at("10.2.2.3"), Caller::Ambiguous(app(2), app(1)));
        assert_eq!(at("2001:db8::1"), Caller::App(app(3)));
        assert_eq!(at("192.0.2.1"), Caller::Unknown);
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            written in prop::collection::hash_map((0_u8..4, 0_u8..=32), 0_u8..3, 0..12),
            asked in 0_u32..8,
        ) {
            // Few bits that differ, so that networks nest and addresses hit them.
            let address = |bits: u32| IpAddr::V4((bits << 30 | bits).into());
            let network = |(bits, length): (u8, u8)| IpNet::new(address(bits.into()), length).unwrap().trunc();
            let by_network: HashMap<IpNet, u8> = written.into_iter().map(|(at, number)| (network(at), number)).collect();
            let apps: Vec<_> = by_network.iter().map(|(&network, &number)| (app(number), vec![network])).collect();
            let address = address(asked);
            let matching: BTreeSet<AppId> = apps.iter().filter(|(_, of)| of[0].contains(&address)).map(|(app, _)| app.clone()).collect();
            match Callers::new(&apps).at(address) {
                Caller::Unknown => prop_assert!(matching.is_empty()),
                Caller::App(app) => prop_assert_eq!(matching, BTreeSet::from([app])),
                Caller::Ambiguous(one, other) => {
                    prop_assert_ne!(&one, &other);
                    prop_assert!(matching.contains(&one) && matching.contains(&other));
                }
            }
        }
    }
}
