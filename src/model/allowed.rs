//! Which apps of other clusters an app may call, as its document says (`strait.v1.AllowedApps`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::app::{AppId, AppIdError};
use super::snapshot::{ImportSpec, Origin};

/// What one app may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedApps {
    /// The caller.
    pub app: AppId,
    /// What it may call, in the order of the document; no app twice.
    pub allowed: Vec<RemoteApp>,
}

/// An app that may be called, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteApp {
    /// The app.
    pub app: AppId,
    /// The clusters, in order of preference. Empty: any that exports it.
    pub clusters: Vec<Arc<str>>,
}

/// What the configuration says of allowed apps.
#[derive(Debug, Clone, Default)]
pub struct Permissions {
    /// The documents that stand in it, by caller.
    pub documents: Arc<BTreeMap<AppId, AllowedApps>>,
    /// What the apps of this cluster may call at most; `None` where nothing bounds them.
    pub bound: Option<Arc<[RemoteApp]>>,
    /// Whether there is a store with more documents.
    pub is_stored: bool,
    /// Whether nothing but a document admits to an app.
    pub required: bool,
    /// How an app is called that stands in a document and is not imported: in every cluster that has gateways, in order. `None`
    /// where no document may stand.
    pub import: Option<(ImportSpec, Origin)>,
}

/// Why a text is no app that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoteAppError {
    /// A wildcard.
    #[error("`*` is no app: it would also admit to every app that is exported later")]
    Every,
    /// Two pipes, at which Dapr's Redis store splits a value from its version.
    #[error("no app can hold `||`, at which the Redis store cuts a value off")]
    Pipes,
    /// No app.
    #[error(transparent)]
    App(#[from] AppIdError),
}

/// A document as a store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub says: AllowedApps,
    /// Which one it is, for who wants to replace exactly this one.
    pub version: Version,
}

/// A store's name for one state of a document. It is compared and never ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

/// The documents of all callers that have one.
pub type Documents = BTreeMap<AppId, Arc<Document>>;

impl AllowedApps {
    /// What it says of one app, `namespace/app`.
    pub fn find(&self, app: &str) -> Option<&RemoteApp> {
        self.allowed.iter().find(|remote| remote.app.as_str() == app)
    }
}

impl Permissions {
    /// Whether the configuration speaks of allowed apps at all.
    pub fn are_used(&self) -> bool {
        self.is_stored || self.required || self.bound.is_some() || !self.documents.is_empty()
    }

    /// The clusters that bound an app, empty where nothing does. `None`: nobody may call it.
    pub fn bound(&self, app: &str) -> Option<&[Arc<str>]> {
        let Some(bound) = &self.bound else { return Some(&[]) };
        let found = bound.iter().find(|remote| remote.app.as_str() == app);
        found.map(|remote| &*remote.clusters)
    }
}

impl RemoteApp {
    /// Reads `namespace/app`, or `app` in the caller's namespace.
    pub fn parse(caller: Option<&AppId>, written: &str) -> Result<AppId, RemoteAppError> {
        if written.contains("||") {
            return Err(RemoteAppError::Pipes);
        }
        if written == "*" || written.ends_with("/*") {
            return Err(RemoteAppError::Every);
        }
        Ok(match caller.filter(|_| !written.contains('/')) {
            Some(caller) => AppId::parse(&format!("{}/{written}", caller.namespace()))?,
            None => AppId::parse(written)?,
        })
    }
}

impl RemoteAppError {
    /// How to mend it.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Every => "name each app that may be called",
            Self::Pipes | Self::App(_) => {
                "write namespace/app, or the app alone if it is in the caller's namespace"
            }
        }
    }
}

impl From<&str> for Version {
    fn from(written: &str) -> Self {
        Self(written.into())
    }
}

impl Version {
    /// As the store writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
