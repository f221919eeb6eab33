//! Who may use a route: `allow` lists, compiled.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::client::Client;
use crate::model::snapshot::{Allow, AllowRule};

/// Compiled rules of one route.
#[derive(Debug)]
pub enum Policy {
    /// Whoever reaches the listener.
    Open,
    /// Whoever one of the rules admits.
    Rules(Box<[Rule]>),
}

/// One compiled rule with the text by which answers name it.
#[derive(Debug)]
pub struct Rule {
    text: Arc<str>,
    networks: Networks,
}

/// Why a client was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The route is open.
    Open,
    /// By this rule, as the operator would write it.
    Rule(Arc<str>),
}

impl fmt::Display for Admission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => out.write_str("the route is open: it has no allow list"),
            Self::Rule(text) => write!(out, "admitted by {text}"),
        }
    }
}

impl Policy {
    /// Compiles an `allow` list.
    pub fn compile(allow: &Allow) -> Self {
        match allow {
            Allow::Open => Self::Open,
            Allow::Rules(rules) => Self::Rules(rules.iter().map(Rule::compile).collect()),
        }
    }

    /// The first rule that admits the client, if any does.
    pub fn admit(&self, client: &Client) -> Option<Admission> {
        match self {
            Self::Open => Some(Admission::Open),
            Self::Rules(rules) => {
                let address = client.network_address();
                let rule = rules.iter().find(|rule| rule.networks.contain(address))?;
                Some(Admission::Rule(Arc::clone(&rule.text)))
            }
        }
    }

    /// The rules' texts; empty for an open route.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        let rules: &[Rule] = match self {
            Self::Open => &[],
            Self::Rules(rules) => rules,
        };
        rules.iter().map(|rule| &*rule.text)
    }
}

impl Rule {
    fn compile(rule: &AllowRule) -> Self {
        match rule {
            AllowRule::Any => Self { text: "any".into(), networks: Networks::every() },
            AllowRule::Network(network) => Self {
                text: format!("network {network}").into(),
                networks: Networks::of([*network]),
            },
            AllowRule::NetworksOf(cluster, networks) => Self {
                text: format!("networksOf {cluster}").into(),
                networks: Networks::of(networks.iter().copied()),
            },
        }
    }
}

/// A set of addresses: disjoint networks in order, so that a look-up is a binary search.
#[derive(Debug, Default)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
    /// The union of some networks. An IPv4-mapped network is the IPv4 one.
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let canonical = networks.into_iter().map(canonical).collect();
        let mut disjoint = IpNet::aggregate(&canonical);
        disjoint.sort_unstable_by_key(IpNet::network);
        Self(disjoint.into())
    }

    /// All addresses.
    pub fn every() -> Self {
        let everything = |address: IpAddr| IpNet::new(address, 0).ok();
        let both = [std::net::Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into()];
        Self::of(both.into_iter().filter_map(everything))
    }

    /// The addresses that the rules of any of these policies admit. Open routes do not count: whoever may use only those is a
    /// stranger, and a stranger is not told which names exist.
    pub fn admitted_by_rules<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let rules = policies.into_iter().flat_map(|policy| match policy {
            Policy::Open => &[][..],
            Policy::Rules(rules) => rules,
        });
        Self::of(rules.flat_map(|rule| rule.networks.0.iter().copied()))
    }

    /// Whether an address is in one of the networks.
    pub fn contain(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|network| network.network() <= address);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|network| network.contains(&address))
    }
}

fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).unwrap_or(network),
            None => network,
        },
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(address: &str) -> Client {
        Client::direct(format!("{address}:1000").parse().unwrap())
    }

    fn networks(written: &[&str]) -> Networks {
        Networks::of(written.iter().map(|network| network.parse().unwrap()))
    }

    #[test]
    fn the_first_admitting_rule_is_named() {
        let policy = Policy::compile(&Allow::Rules(vec![
            AllowRule::Network("10.0.0.0/8".parse().unwrap()),
            AllowRule::NetworksOf("east".into(), vec!["203.0.113.0/24".parse().unwrap()]),
        ]));
        assert_eq!(
            policy.admit(&client("203.0.113.9")),
            Some(Admission::Rule("networksOf east".into()))
        );
        assert_eq!(
            policy.admit(&client("10.1.2.3")),
            Some(Admission::Rule("network 10.0.0.0/8".into()))
        );
        assert_eq!(policy.admit(&client("192.0.2.1")), None);
    }

    #[test]
    fn an_empty_list_admits_nobody_and_any_everybody() {
        assert_eq!(Policy::compile(&Allow::Rules(vec![])).admit(&client("10.0.0.1")), None);
        let any = Policy::compile(&Allow::Rules(vec![AllowRule::Any]));
        assert!(any.admit(&client("10.0.0.1")).is_some());
        assert!(any.admit(&client("[2001:db8::1]")).is_some());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert!(networks(&["10.0.0.0/8"]).contain(client("[::ffff:10.0.0.1]").network_address()));
        assert!(networks(&["::ffff:10.0.0.0/104"]).contain(client("10.0.0.1").network_address()));
        assert!(!networks(&["::/0"]).contain(client("[::ffff:10.0.0.1]").network_address()));
    }

    #[test]
    fn open_routes_make_nobody_known() {
        let rules =
            Policy::compile(&Allow::Rules(vec![AllowRule::Network("10.0.0.0/8".parse().unwrap())]));
        let known = Networks::admitted_by_rules([&Policy::Open, &rules]);
        assert!(known.contain("10.0.0.1".parse().unwrap()));
        assert!(!known.contain("11.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            written in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            asked in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let all: Vec<IpNet> = written.iter().map(|&(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length).unwrap()).collect();
            let set = Networks::of(all.iter().copied());
            let mut addresses = vec![IpAddr::V4(asked.into())];
            if !all.is_empty() {
                let network = near.get(&all);
                addresses.extend([network.network(), network.broadcast()]);
            }
            for address in addresses {
                prop_assert_eq!(set.contain(address), all.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
