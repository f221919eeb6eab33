//! Links, counted by the cluster that is proven or dialled: a name from the configuration.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::metrics::{About, add, valid};

const OPEN: About = About(
    "strait_links_open",
    "Links that are open now, those on which gateways ask each other included: out are those that this gateway has opened.",
);
const REFUSED: About = About(
    "strait_links_refused_total",
    "Links that did not come to be because one side did not accept the other, by reason.",
);

const WRONG: About = About(
    "strait_exchange_refused_total",
    "Words of another cluster's gateways on what it exports that were not believed: too many apps, another cluster's, noise.",
);

/// What is counted of links.
pub struct Links {
    open: IntGaugeVec,
    refused: IntCounterVec,
    wrong: IntCounterVec,
}

/// Which gateway has opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The other cluster's.
    In,
    /// This one.
    Out,
}

/// A link that is open until this is dropped.
#[derive(Debug)]
pub struct OpenLink(IntGauge);

impl Direction {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl Links {
    pub(super) fn new(registry: &Registry) -> Self {
        let open = valid(IntGaugeVec::new(OPEN.opts(), &["cluster", "direction"]));
        let refused = valid(IntCounterVec::new(REFUSED.opts(), &["direction", "reason"]));
        let wrong = add(registry, valid(IntCounterVec::new(WRONG.opts(), &["cluster"])));
        Self { open: add(registry, open), refused: add(registry, refused), wrong }
    }

    /// Counts a link with a cluster.
    pub fn open(&self, cluster: &str, direction: Direction) -> OpenLink {
        let gauge = self.open.with_label_values(&[cluster, direction.label()]);
        gauge.inc();
        OpenLink(gauge)
    }

    /// How many are open.
    pub fn count(&self, cluster: &str, direction: Direction) -> u64 {
        let open = self.open.with_label_values(&[cluster, direction.label()]).get();
        u64::try_from(open).unwrap_or_default()
    }

    /// What a cluster said of its exports was not believed.
    pub fn wrong(&self, cluster: &str) {
        self.wrong.with_label_values(&[cluster]).inc();
    }

    /// A link did not come to be, for a reason of a closed list.
    pub fn refused(&self, direction: Direction, reason: &'static str) {
        self.refused.with_label_values(&[direction.label(), reason]).inc();
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.0.dec();
    }
}
