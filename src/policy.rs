//! Who may use a route: `allow` lists, compiled.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::app::AppId;
use crate::model::client::{Client, Linked};
use crate::model::snapshot::{Allow, AllowRule};

/// Compiled rules of one route.
#[derive(Debug)]
pub enum Policy {
    /// Whoever reaches the listener.
    Open,
    /// Whoever one of the rules admits.
    Rules(Box<[Rule]>),
    /// Nobody, and nobody is told that the route is there.
    Hidden,
}

/// One compiled rule with the text by which answers name it.
#[derive(Debug)]
pub struct Rule {
    text: Arc<str>,
    admits: Admits,
}

/// Whom a rule admits.
#[derive(Debug)]
enum Admits {
    Everybody,
    /// Clients that come by themselves.
    Networks(Networks),
    /// Clients behind a link of this cluster; of these apps, if there are any.
    Cluster(Arc<str>, Box<[AppId]>),
    /// A local client that is known to be this app.
    Caller(AppId),
}

/// Why a client was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The route is open.
    Open,
    /// By this rule, as the operator would write it.
    Rule(Arc<str>),
    /// By the allowed apps of this caller.
    Document(AppId),
}

impl fmt::Display for Admission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => out.write_str("the route is open: it has no allow list"),
            Self::Rule(text) => write!(out, "admitted by {text}"),
            Self::Document(app) => write!(out, "admitted by the allowed apps of {app}"),
        }
    }
}

impl Policy {
    /// Compiles an `allow` list.
    pub fn compile(allow: &Allow) -> Self {
        match allow {
            Allow::Open => Self::Open,
            Allow::Rules(rules) => Self::Rules(rules.iter().map(Rule::compile).collect()),
            Allow::Hidden => Self::Hidden,
        }
    }

    /// The first rule that admits the client, if any does. `caller` is the app of this cluster that it is known to be.
    pub fn admit(&self, client: &Client, caller: Option<&AppId>) -> Option<Admission> {
        match self {
            Self::Open => Some(Admission::Open),
            Self::Hidden => None,
            Self::Rules(rules) => {
                let rule = rules.iter().find(|rule| rule.admits(client, caller))?;
                Some(Admission::Rule(Arc::clone(&rule.text)))
            }
        }
    }

    /// The apps of this cluster that it admits by name.
    pub fn callers(&self) -> impl Iterator<Item = &AppId> {
        let rules: &[Rule] = match self {
            Self::Open | Self::Hidden => &[],
            Self::Rules(rules) => rules,
        };
        rules.iter().filter_map(|rule| match &rule.admits {
            Admits::Caller(app) => Some(app),
            Admits::Everybody | Admits::Networks(_) | Admits::Cluster(..) => None,
        })
    }

    /// Whether a link of this cluster can be admitted, at least for one of its apps.
    pub fn admits_cluster(&self, cluster: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Hidden => false,
            Self::Rules(rules) => rules.iter().any(|rule| match &rule.admits {
                Admits::Everybody => true,
                Admits::Cluster(admitted, _) => **admitted == *cluster,
                Admits::Networks(_) | Admits::Caller(_) => false,
            }),
        }
    }

    /// The rules' texts; empty for an open route.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        let rules: &[Rule] = match self {
            Self::Open | Self::Hidden => &[],
            Self::Rules(rules) => rules,
        };
        rules.iter().map(|rule| &*rule.text)
    }
}

impl Rule {
    fn compile(rule: &AllowRule) -> Self {
        let (text, admits) = match rule {
            AllowRule::Any => ("any".to_owned(), Admits::Everybody),
            AllowRule::Network(network) => {
                (format!("network {network}"), Admits::Networks(Networks::of([*network])))
            }
            AllowRule::NetworksOf(cluster, networks) => {
                let networks = Networks::of(networks.iter().copied());
                (format!("networksOf {cluster}"), Admits::Networks(networks))
            }
            AllowRule::Cluster { cluster, apps } => (
                cluster_text(cluster, apps),
                Admits::Cluster(Arc::clone(cluster), apps.as_slice().into()),
            ),
            AllowRule::Caller(app) => (app.to_string(), Admits::Caller(app.clone())),
        };
        Self { text: text.into(), admits }
    }

    fn admits(&self, client: &Client, caller: Option<&AppId>) -> bool {
        match &self.admits {
            Admits::Everybody => true,
            Admits::Networks(networks) => {
                client.network_address().is_some_and(|address| networks.contain(address))
            }
            Admits::Cluster(cluster, apps) => {
                client.link.as_deref().is_some_and(|linked| is_of(linked, cluster, apps))
            }
            Admits::Caller(app) => caller == Some(app),
        }
    }
}

fn is_of(linked: &Linked, cluster: &str, apps: &[AppId]) -> bool {
    let app = || linked.app.as_ref().is_some_and(|app| apps.contains(app));
    *linked.cluster == *cluster && (apps.is_empty() || app())
}

fn cluster_text(cluster: &str, apps: &[AppId]) -> String {
    let apps: Vec<_> = apps.iter().map(ToString::to_string).collect();
    match &*apps {
        [] => format!("cluster {cluster}"),
        apps => format!("cluster {cluster} for {}", apps.join(" and ")),
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

    /// The addresses that the rules of any of these policies admit. Open routes do not count: whoever may use only those is a
    /// stranger, and a stranger is not told which names exist.
    pub fn admitted_by_rules<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let rules = policies.into_iter().flat_map(|policy| match policy {
            Policy::Open | Policy::Hidden => &[][..],
            Policy::Rules(rules) => rules,
        });
        Self::of(rules.flat_map(|rule| match &rule.admits {
            Admits::Everybody => everywhere().to_vec(),
            Admits::Networks(networks) => networks.0.to_vec(),
            // A cluster's own client proves itself, and a caller is a client of this cluster: neither needs to be known here.
            Admits::Cluster(..) | Admits::Caller(_) => Vec::new(),
        }))
    }

    /// Whether no address is in them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

fn everywhere() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// One spelling of a network: an IPv4-mapped one is the IPv4 one, and no bits stand behind the prefix.
pub fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).unwrap_or(network),
            None => network.trunc(),
        },
        IpNet::V4(_) | IpNet::V6(_) => network.trunc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(address: &str) -> Client {
        Client::direct(format!("{address}:1000").parse().unwrap())
    }

    fn address(written: &str) -> IpAddr {
        client(written).network_address().unwrap()
    }

    fn linked(cluster: &str, app: Option<&str>) -> Client {
        let linked = Linked { cluster: cluster.into(), app: app.map(app_id) };
        Client { link: Some(Arc::new(linked)), ..client("10.0.0.1") }
    }

    fn app_id(written: &str) -> AppId {
        AppId::parse(written).unwrap()
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
            policy.admit(&client("203.0.113.9"), None),
            Some(Admission::Rule("networksOf east".into()))
        );
        assert_eq!(
            policy.admit(&client("10.1.2.3"), None),
            Some(Admission::Rule("network 10.0.0.0/8".into()))
        );
        assert_eq!(policy.admit(&client("192.0.2.1"), None), None);
    }

    #[test]
    fn an_empty_list_admits_nobody_and_any_everybody() {
        assert_eq!(Policy::compile(&Allow::Rules(vec![])).admit(&client("10.0.0.1"), None), None);
        let any = Policy::compile(&Allow::Rules(vec![AllowRule::Any]));
        assert!(any.admit(&client("10.0.0.1"), None).is_some());
        assert!(any.admit(&client("[2001:db8::1]"), None).is_some());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert!(networks(&["10.0.0.0/8"]).contain(address("[::ffff:10.0.0.1]")));
        assert!(networks(&["::ffff:10.0.0.0/104"]).contain(address("10.0.0.1")));
        assert!(!networks(&["::/0"]).contain(address("[::ffff:10.0.0.1]")));
    }

    /// The rule that admits, by its text.
    fn admitting(policy: &Policy, client: &Client, caller: Option<&str>) -> Option<String> {
        match policy.admit(client, caller.map(app_id).as_ref())? {
            Admission::Open => Some("open".into()),
            Admission::Rule(text) => Some(text.to_string()),
            Admission::Document(_) => None,
        }
    }

    #[test]
    fn neither_kind_of_rule_implies_the_other() {
        let policy = Policy::compile(&Allow::Rules(vec![
            AllowRule::Network("10.0.0.0/8".parse().unwrap()),
            AllowRule::Cluster { cluster: "east".into(), apps: vec![app_id("shop/frontend")] },
            AllowRule::Cluster { cluster: "south".into(), apps: vec![] },
        ]));
        let direct = client("10.0.0.1");
        assert_eq!(admitting(&policy, &direct, None).unwrap(), "network 10.0.0.0/8");
        let frontend = linked("east", Some("shop/frontend"));
        let text = "cluster east for shop/frontend";
        assert_eq!(admitting(&policy, &frontend, None).unwrap(), text);
        assert_eq!(admitting(&policy, &linked("south", None), None).unwrap(), "cluster south");
        for other in
            [linked("east", None), linked("east", Some("shop/batch")), linked("north", None)]
        {
            assert_eq!(admitting(&policy, &other, None), None, "{other:?}");
        }
        let any = Policy::compile(&Allow::Rules(vec![AllowRule::Any]));
        assert_eq!(admitting(&any, &linked("north", None), None).unwrap(), "any");
    }

    #[test]
    fn a_caller_is_admitted_by_its_app_and_nothing_else() {
        let policy =
            Policy::compile(&Allow::Rules(vec![AllowRule::Caller(app_id("shop/frontend"))]));
        let client = client("10.0.0.1");
        assert_eq!(admitting(&policy, &client, Some("shop/frontend")).unwrap(), "shop/frontend");
        assert_eq!(admitting(&policy, &client, Some("shop/Frontend")), None);
        assert_eq!(admitting(&policy, &client, None), None);
        assert_eq!(admitting(&policy, &linked("east", Some("shop/frontend")), None), None);
        assert_eq!(admitting(&Policy::Hidden, &client, Some("shop/frontend")), None);
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
