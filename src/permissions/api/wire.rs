//! What the API takes and gives, as JSON. The `OpenAPI` document is made of these types, their comments included; the command line
//! reads them back. Fields are added, never renamed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model;

/// Which apps of other clusters an app may discover and call: the proto3 JSON of `strait.v1.AllowedApps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AllowedApps {
    /// The caller, namespace/app. May be left out where the path says it.
    #[serde(default)]
    pub app: String,
    /// What it may call. Empty: nothing.
    #[serde(default)]
    pub allowed: Vec<RemoteApp>,
}

/// An app that may be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoteApp {
    /// namespace/app, or app in the caller's namespace.
    pub app: String,
    /// Where, in order of preference. Empty: in any cluster that exports it, in the order of the configuration's `clusters`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
}

/// Documents in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Documents {
    /// In the order of the callers; of one caller first what the store has.
    pub documents: Vec<InForce>,
}

/// A document in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InForce {
    /// Where it stands.
    pub source: Source,
    /// Which one it is, of the store's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it says.
    pub document: AllowedApps,
}

/// Where a document stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// In the store, where the API can change it.
    Store,
    /// In the configuration, for its caller.
    Configuration,
    /// In the configuration, for all callers of the cluster: it bounds what every other document allows. Its `app` is empty.
    Cluster,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// The caller.
    pub app: String,
    /// Whether the store was changed. It was not where it has said so already.
    pub changed: bool,
    /// The version that the store has now; absent where it has no document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The document that the store has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<AllowedApps>,
    /// Whether that is in force at this gateway, where the request has asked to `wait` for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<bool>,
    /// How long after the request that was, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_after_ms: Option<u64>,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// A document that is in force, or has changed.
    Document(InForce),
    /// All that was in force when the watch began has been told.
    Complete,
    /// A document is gone.
    Gone {
        /// Where it stood.
        source: Source,
        /// The caller.
        app: String,
    },
    /// Nothing has changed for a while.
    Heartbeat,
}

impl From<&model::allowed::AllowedApps> for AllowedApps {
    fn from(says: &model::allowed::AllowedApps) -> Self {
        Self {
            app: says.app.to_string(),
            allowed: says.allowed.iter().map(RemoteApp::from).collect(),
        }
    }
}

impl From<&model::allowed::RemoteApp> for RemoteApp {
    fn from(remote: &model::allowed::RemoteApp) -> Self {
        let clusters = remote.clusters.iter().map(ToString::to_string).collect();
        Self { app: remote.app.to_string(), clusters }
    }
}
