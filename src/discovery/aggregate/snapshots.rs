//! What the sources said last, and what they say together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::discovery::Snapshot;
use crate::model::allowed::Documents;
use crate::model::name::Name;
use crate::model::offer::Offered;
use crate::model::snapshot::Addresses;

/// The last good snapshot of every source.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    by_source: BTreeMap<Arc<str>, Arc<Snapshot>>,
    /// Stands for the documents that nobody has told of, always the same.
    none: Arc<Documents>,
}

impl Snapshots {
    pub(super) fn replace(&mut self, source: Arc<str>, snapshot: Arc<Snapshot>) {
        self.by_source.insert(source, snapshot);
    }

    pub(super) fn forget(&mut self, source: &str) {
        self.by_source.remove(source);
    }

    /// What other clusters offer.
    pub(super) fn offered(&self) -> Offered {
        let offers = self.by_source.values().filter_map(|snapshot| match &**snapshot {
            Snapshot::Offers(offers) => Some((Arc::clone(&offers.cluster), Arc::clone(offers))),
            Snapshot::Addresses(_) | Snapshot::Documents(_) => None,
        });
        offers.collect()
    }

    /// The documents of allowed apps. There is one store of them at most.
    pub(super) fn documents(&self) -> Arc<Documents> {
        let mut documents = self.by_source.values().filter_map(|snapshot| match &**snapshot {
            Snapshot::Documents(documents) => Some(Arc::clone(documents)),
            Snapshot::Addresses(_) | Snapshot::Offers(_) => None,
        });
        documents.next().unwrap_or_else(|| Arc::clone(&self.none))
    }

    /// What all sources together say of these names: every address that one of them knows, in a fixed order. Other names are left
    /// out, so that a source which still resolves what no route needs any more changes no table.
    pub(super) fn merged(&self, hosts: &HashSet<Name>) -> Addresses {
        let known = hosts.iter().filter_map(|host| {
            let mut lists = self.addresses().filter_map(|source| source.0.get(host)).peekable();
            lists.peek()?;
            let addresses: BTreeSet<_> = lists.flatten().copied().collect();
            Some((host.clone(), addresses.into_iter().collect()))
        });
        Addresses(known.collect())
    }

    fn addresses(&self) -> impl Iterator<Item = &Addresses> {
        self.by_source.values().filter_map(|snapshot| match &**snapshot {
            Snapshot::Addresses(addresses) => Some(addresses),
            Snapshot::Offers(_) | Snapshot::Documents(_) => None,
        })
    }
}
