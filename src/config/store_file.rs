//! What may stand under `allowedApps.store`, as it is written.
#![expect(
    clippy::doc_markdown,
    reason = "editors show these comments, with names as people write them"
)]

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::Setting;

/// Where the documents of allowed apps are kept: exactly one key. Whoever can write there can grant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AllowedAppsStore")]
pub(super) struct Store {
    /// A folder.
    pub(super) file: Setting<FileStore>,
    /// Redis 6 or later, no Redis Cluster.
    pub(super) redis: Setting<RedisStore>,
    /// PostgreSQL 11 or later.
    pub(super) postgresql: Setting<PostgresqlStore>,
}

/// A folder with a file for each caller.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileStore {
    /// The folder. It holds `<namespace>.<app id>.json` for each caller, so that a ConfigMap may be mounted there.
    #[schemars(required)]
    pub(super) directory: Setting<String>,
}

/// A database of a Redis server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RedisStore {
    /// `redis://USER@HOST:6379/DATABASE`, or `rediss://` for TLS. User, port and database (0) may be left out; a password has no place
    /// here.
    #[schemars(required)]
    pub(super) url: Setting<String>,
    /// A file with the password, read again at each connect.
    pub(super) password_file: Setting<String>,
    /// A file with the certificates of the authorities that may have issued the server's. Must be there with `rediss://`.
    pub(super) ca_file: Setting<String>,
}

/// A table of a PostgreSQL server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PostgresqlStore {
    /// `postgresql://USER@HOST:5432/DATABASE?sslmode=verify-full`, or `sslmode=disable` for none of TLS. The port may be left out; a
    /// password has no place here.
    #[schemars(required)]
    pub(super) url: Setting<String>,
    /// The table, perhaps with its schema: `strait_apps` by default.
    pub(super) table: Setting<String>,
    /// The channel that the table's trigger notifies: `strait_apps` by default.
    pub(super) channel: Setting<String>,
    /// A file with the password, read again at each connect.
    pub(super) password_file: Setting<String>,
    /// A file with the certificates of the authorities that may have issued the server's. Must be there with `verify-full`.
    pub(super) ca_file: Setting<String>,
}
