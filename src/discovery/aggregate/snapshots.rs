//! What the sources said last, and what they say together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::model::name::Name;
use crate::model::snapshot::Addresses;

/// The last good snapshot of every source.
#[derive(Debug, Default)]
pub(super) struct Snapshots(BTreeMap<Arc<str>, Arc<Addresses>>);

impl Snapshots {
    pub(super) fn replace(&mut self, source: Arc<str>, addresses: Arc<Addresses>) {
        self.0.insert(source, addresses);
    }

    /// What all sources together say of these names: every address that one of them knows, in a fixed order. Other names are left
    /// out, so that a source which still resolves what no route needs any more changes no table.
    pub(super) fn merged(&self, hosts: &HashSet<Name>) -> Addresses {
        let known = hosts.iter().filter_map(|host| {
            let mut lists = self.0.values().filter_map(|source| source.0.get(host)).peekable();
            lists.peek()?;
            let addresses: BTreeSet<_> = lists.flatten().copied().collect();
            Some((host.clone(), addresses.into_iter().collect()))
        });
        Addresses(known.collect())
    }
}
