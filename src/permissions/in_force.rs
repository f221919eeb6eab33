//! The documents by which the table in force judges callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::allowed::{AllowedApps, Document, Documents, RemoteApp, Version};
use crate::model::app::AppId;

use super::api::wire::{self, Source};

/// All documents in force, shared with the table.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    /// Those of the store.
    pub stored: Arc<Documents>,
    /// Those of the configuration.
    pub configured: Arc<BTreeMap<AppId, AllowedApps>>,
    /// What bounds them all, if anything does.
    pub bound: Option<Arc<[RemoteApp]>>,
}

/// Whose document it is, and where it stands. What is nobody's bounds the whole cluster.
pub(super) type Key = (Option<AppId>, Source);

/// One document in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Stored(Arc<Document>),
    Configured(AllowedApps),
    Bound(Arc<[RemoteApp]>),
}

impl InForce {
    /// The stored version of a caller's document.
    pub fn version(&self, caller: &AppId) -> Option<&Version> {
        self.stored.get(caller).map(|document| &document.version)
    }

    /// Whether it is the very same as another, and nothing has to be looked at.
    pub fn is_same(&self, other: &Self) -> bool {
        let bounds = (&self.bound, &other.bound);
        Arc::ptr_eq(&self.stored, &other.stored)
            && Arc::ptr_eq(&self.configured, &other.configured)
            && match bounds {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
    }

    /// All of them, in order.
    pub(super) fn entries(&self) -> BTreeMap<Key, Entry> {
        let key = |app: &AppId, source| (Some(app.clone()), source);
        let stored = self
            .stored
            .iter()
            .map(|(app, document)| (key(app, Source::Store), Entry::Stored(Arc::clone(document))));
        let configured = self
            .configured
            .iter()
            .map(|(app, says)| (key(app, Source::Configuration), Entry::Configured(says.clone())));
        let bound = self
            .bound
            .iter()
            .map(|bound| ((None, Source::Cluster), Entry::Bound(Arc::clone(bound))));
        bound.chain(stored).chain(configured).collect()
    }
}

impl Entry {
    pub(super) fn version(&self) -> Option<&Version> {
        match self {
            Self::Stored(document) => Some(&document.version),
            Self::Configured(_) | Self::Bound(_) => None,
        }
    }

    pub(super) fn says(&self) -> wire::AllowedApps {
        match self {
            Self::Stored(document) => (&document.says).into(),
            Self::Configured(says) => says.into(),
            Self::Bound(bound) => wire::AllowedApps {
                app: String::new(),
                allowed: bound.iter().map(wire::RemoteApp::from).collect(),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Documents of a store that allow nothing, by caller and version.
    pub(crate) fn in_force(stored: &[(&str, &str)]) -> InForce {
        let stored = stored.iter().map(|(app, version)| {
            let app = AppId::parse(app).unwrap();
            let says = AllowedApps { app: app.clone(), allowed: Vec::new() };
            (app, Arc::new(Document { says, version: Version::from(*version) }))
        });
        InForce { stored: Arc::new(stored.collect()), ..InForce::default() }
    }
}
