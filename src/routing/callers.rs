//! Which app of this cluster a local client is, as far as its address or its user tells: a place, not an identity.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::app::AppId;
use crate::model::name::Name;
use crate::model::snapshot::{Addresses, CallerSpec};
use crate::policy::canonical;

/// The apps that are known by where they call from.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// More than one app where names of two stand for one address.
    by_network: HashMap<IpNet, Vec<AppId>>,
    /// The prefix lengths among these networks, longest first: few in practice, and each costs a look-up one probe.
    lengths: Box<[u8]>,
    /// By the user whom their processes on this machine run as.
    by_user: HashMap<u32, AppId>,
    /// The names that stand for their addresses.
    hosts: HashMap<AppId, Vec<Name>>,
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
    /// No network and no user may stand for two apps; the configuration sees to that.
    pub(super) fn new(apps: &[CallerSpec], addresses: &Addresses) -> Self {
        let mut callers = Self::default();
        for CallerSpec { app, networks, hosts, users } in apps {
            let resolved = hosts.iter().filter_map(|host| addresses.0.get(host)).flatten();
            let resolved = resolved.map(|address| IpNet::from(address.to_canonical()));
            for network in networks.iter().copied().map(canonical).chain(resolved) {
                let known = callers.by_network.entry(network).or_default();
                if !known.contains(app) {
                    known.push(app.clone());
                }
            }
            callers.by_user.extend(users.iter().map(|&user| (user, app.clone())));
            if !hosts.is_empty() {
                callers.hosts.insert(app.clone(), hosts.clone());
            }
        }
        let lengths: BTreeSet<u8> = callers.by_network.keys().map(IpNet::prefix_len).collect();
        Self { lengths: lengths.into_iter().rev().collect(), ..callers }
    }

    /// Whether any is known by its user.
    pub(super) fn know_users(&self) -> bool {
        !self.by_user.is_empty()
    }

    /// Whether anything tells where an app calls from.
    pub(super) fn know(&self, app: &AppId) -> bool {
        let by_network = || self.by_network.values().any(|apps| apps.contains(app));
        self.hosts.contains_key(app) || self.by_user.values().any(|it| it == app) || by_network()
    }

    /// The names that stand for an app's addresses.
    pub(super) fn hosts(&self, app: &AppId) -> &[Name] {
        self.hosts.get(app).map_or(&[], Vec::as_slice)
    }

    /// The apps that are known by names, with these.
    pub(super) fn named(&self) -> impl Iterator<Item = (&AppId, &[Name])> {
        self.hosts.iter().map(|(app, hosts)| (app, hosts.as_slice()))
    }

    /// Who a client at a canonical address is, whose process runs as a user of this machine or elsewhere.
    pub(super) fn at(&self, address: IpAddr, user: Option<u32>) -> Caller {
        let network =
            |&length: &u8| IpNet::new(address, length).ok().map(|network| network.trunc());
        let networks = self.lengths.iter().filter_map(network);
        let by_network = networks.filter_map(|it| self.by_network.get(&it)).flatten();
        let by_user = user.and_then(|user| self.by_user.get(&user));
        let mut found = by_user.into_iter().chain(by_network);
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

    fn spec(number: u8, networks: &[&str]) -> CallerSpec {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        CallerSpec { app: app(number), networks, hosts: vec![], users: vec![] }
    }

    fn callers(written: &[(u8, &str)]) -> Callers {
        let of = |&(number, network): &(u8, &str)| spec(number, &[network]);
        Callers::new(&written.iter().map(of).collect::<Vec<_>>(), &Addresses::default())
    }

    #[test]
    fn names_stand_for_addresses_and_two_for_one_are_ambiguous() {
        let name = |written: &str| Name::parse(written).unwrap();
        let of = |number, host| CallerSpec { hosts: vec![name(host)], ..spec(number, &[]) };
        let apps = [of(1, "one.example"), of(2, "two.example"), spec(3, &["10.0.0.3/32"])];
        let ip = |address: &str| address.parse().unwrap();
        let known = [
            (name("one.example"), vec![ip("10.0.0.1"), ip("::ffff:10.0.0.9")]),
            (name("two.example"), vec![ip("10.0.0.2"), ip("10.0.0.9"), ip("10.0.0.3")]),
        ];
        let callers = Callers::new(&apps, &Addresses(known.into()));
        let at = |address: &str| callers.at(ip(address), None);
        assert_eq!(at("10.0.0.1"), Caller::App(app(1)));
        assert_eq!(at("10.0.0.9"), Caller::Ambiguous(app(1), app(2)));
        assert_eq!(at("10.0.0.3"), Caller::Ambiguous(app(2), app(3)));
        assert_eq!(callers.hosts(&app(1)), [name("one.example")]);
        assert!(callers.hosts(&app(3)).is_empty() && !callers.know_users());
    }

    #[test]
    fn a_user_tells_callers_of_one_address_apart() {
        let of = |number, user| CallerSpec { users: vec![user], ..spec(number, &[]) };
        let apps = [of(1, 1001), of(2, 1002), spec(3, &["127.0.0.2/32"])];
        let callers = Callers::new(&apps, &Addresses::default());
        let at = |address: &str, user| callers.at(address.parse().unwrap(), user);
        assert_eq!(at("127.0.0.1", Some(1001)), Caller::App(app(1)));
        assert_eq!(at("127.0.0.1", Some(1002)), Caller::App(app(2)));
        assert_eq!(at("127.0.0.1", Some(1003)), Caller::Unknown);
        assert_eq!(at("127.0.0.1", None), Caller::Unknown);
        assert_eq!(at("127.0.0.2", Some(1001)), Caller::Ambiguous(app(1), app(3)));
    }

    #[test]
    fn an_address_of_two_apps_is_nobodys() {
        let callers = callers(&[
            (1, "10.0.0.0/8"),
            (1, "10.1.0.0/16"),
            (2, "10.2.0.0/16"),
            (3, "2001:db8::/32"),
        ]);
        let at = |address: &str| callers.at(address.parse().unwrap(), None);
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
            let spec = |(&network, &number): (&IpNet, &u8)| CallerSpec { networks: vec![network], ..spec(number, &[]) };
            let apps: Vec<_> = by_network.iter().map(spec).collect();
            let address = address(asked);
            let matching: BTreeSet<AppId> = apps.iter().filter(|spec| spec.networks[0].contains(&address)).map(|spec| spec.app.clone()).collect();
            match Callers::new(&apps, &Addresses::default()).at(address, None) {
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
