//! What may stand under `allowed` and `allowedApps`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{List, Setting};
use super::store_file::Store;

/// Which apps of other clusters an app may call. The same document may be kept in `allowedApps.store`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AllowedApps {
    /// The caller, `namespace/app`. Without it this is what all apps of this cluster may call at most, whatever else admits them.
    pub(super) app: Setting<String>,
    /// What it may call; by default nothing.
    pub(super) allowed: List<RemoteApp>,
}

/// An app that may be called.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RemoteApp {
    /// `namespace/app`, or `app` in the caller's namespace.
    #[schemars(required)]
    pub(super) app: Setting<String>,
    /// Where, in order of preference; by default in any cluster that exports it, in the order of `clusters`.
    pub(super) clusters: List<String>,
}

/// Where documents are kept besides `allowed`, and what they decide.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AllowedAppsSettings")]
pub(super) struct Settings {
    /// Where documents are kept that change at run time; by default nowhere.
    pub(super) store: Setting<Store>,
    /// Whether nothing but a document admits to an app: the `allow` of imports is without effect then. By default not.
    pub(super) required: Setting<bool>,
    /// What becomes of live connections whose caller may not call any more.
    pub(super) on_revoke: Setting<OnRevoke>,
}

/// What becomes of live connections whose caller may not call any more.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum OnRevoke {
    /// They live on, so that no call is cut: the default.
    Keep,
    /// They are closed.
    Close,
}
