//! What other clusters offer to this one, and whether it can be reached at this moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::app::AppId;
use super::name::Name;

/// What one cluster may call in another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    /// An app.
    App(AppId),
    /// A service, by the name that it has everywhere.
    Service(Name),
}

impl Callee {
    /// Reads the label of a route, `namespace/app` or a service's name. No name holds a slash.
    pub fn parse(label: &str) -> Option<Self> {
        match AppId::parse(label) {
            Ok(app) => Some(Self::App(app)),
            Err(_) => Name::parse(label).ok().map(Self::Service),
        }
    }

    /// The app, if it is one.
    pub fn app(&self) -> Option<&AppId> {
        match self {
            Self::App(app) => Some(app),
            Self::Service(_) => None,
        }
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) => app.fmt(out),
            Self::Service(name) => name.fmt(out),
        }
    }
}

/// What one cluster exports to this one, as it said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Whose apps these are.
    pub cluster: Arc<str>,
    /// Every app and service that is imported from there.
    pub apps: BTreeMap<Callee, Offer>,
    /// How many more it named, which are not imported from there, or not well-formed.
    pub ignored: usize,
}

/// One app or service in another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The names under which that cluster's gateways take links for it, at least one.
    pub names: Vec<Name>,
    /// Whether it can be reached.
    pub reach: Arc<Reach>,
}

/// An app as another cluster tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The names under which that cluster's gateways take links for it, at least one.
    pub names: Vec<Name>,
    /// How many of its endpoints can be dialled there.
    pub healthy: u32,
}

/// What every cluster offers that has said so. One that is absent has not said anything: it may offer everything.
pub type Offered = BTreeMap<Arc<str>, Arc<Offers>>;

/// Whether an app in another cluster can be reached: written by who hears of it, read by who picks a way, without order between
/// them, as marks of endpoints are.
#[derive(Debug)]
pub struct Reach {
    healthy: AtomicU32,
    cluster: Arc<Presence>,
}

/// Whether a cluster is heard of; shared by all of its apps.
#[derive(Debug, Default)]
pub struct Presence(AtomicBool);

/// The apps and services of one other cluster that are imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By name.
    pub apps: BTreeSet<AppId>,
    /// All of these namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Services by name.
    pub services: BTreeSet<Name>,
}

impl Reach {
    /// An app of a cluster with so many healthy endpoints.
    pub fn new(cluster: &Arc<Presence>, healthy: u32) -> Self {
        Self { healthy: AtomicU32::new(healthy), cluster: Arc::clone(cluster) }
    }

    /// How many endpoints the cluster last said can be dialled there.
    pub fn healthy(&self) -> u32 {
        self.healthy.load(Relaxed)
    }

    /// The cluster says another number.
    pub fn set_healthy(&self, endpoints: u32) {
        self.healthy.store(endpoints, Relaxed);
    }

    /// Whether there is any sense in trying.
    pub fn is_there(&self) -> bool {
        self.healthy() > 0 && !self.cluster.is_lost()
    }
}

/// The same mark, not an equal one: what is written to one has to be seen at the other.
impl PartialEq for Reach {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Reach {}

impl Presence {
    /// Whether all its gateways are silent.
    pub fn is_lost(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// None of its gateways is heard any more, or one is again. Whether that is news.
    pub fn lose(&self, lost: bool) -> bool {
        self.0.swap(lost, Relaxed) != lost
    }
}

impl Wanted {
    /// Whether it is imported.
    pub fn has(&self, callee: &Callee) -> bool {
        match callee {
            Callee::App(app) => {
                self.namespaces.contains(app.namespace()) || self.apps.contains(app)
            }
            Callee::Service(name) => self.services.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_there_while_its_cluster_is_and_has_a_healthy_endpoint() {
        let cluster = Arc::default();
        let (one, other) = (Reach::new(&cluster, 1), Reach::new(&cluster, 0));
        assert!(one.is_there() && !other.is_there());
        assert!(cluster.lose(true) && !cluster.lose(true));
        assert!(!one.is_there());
        assert!(cluster.lose(false));
        one.set_healthy(0);
        other.set_healthy(2);
        assert!(!one.is_there() && other.is_there());
    }

    #[test]
    fn an_app_is_wanted_by_name_or_with_its_namespace() {
        let wanted = Wanted {
            apps: BTreeSet::from([AppId::parse("shop/orders").unwrap()]),
            namespaces: BTreeSet::from(["lab".into()]),
            services: BTreeSet::from([Name::parse("zipkin.example").unwrap()]),
        };
        for (written, has) in [
            ("shop/orders", true),
            ("lab/any", true),
            ("Zipkin.example.", true),
            ("shop/other", false),
            ("la/b", false),
            ("lab", false),
        ] {
            assert_eq!(wanted.has(&Callee::parse(written).unwrap()), has, "{written}");
        }
        assert_eq!(Callee::parse("no name"), None);
    }
}
