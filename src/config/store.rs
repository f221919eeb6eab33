//! Where the documents of allowed apps are kept, as the configuration says. No secret is in it: passwords stay in their files.

use std::fmt;
use std::path::PathBuf;

/// A configuration store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A folder with a file for each caller.
    File {
        /// The folder.
        directory: PathBuf,
    },
    /// Redis.
    Redis(RedisStore),
    /// `PostgreSQL`.
    Postgresql(PostgresqlStore),
}

/// A database of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// The server.
    pub server: StoreServer,
    /// The database's number.
    pub database: u32,
}

/// A table of a `PostgreSQL` server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresqlStore {
    /// The server. Its user is named.
    pub server: StoreServer,
    /// The database.
    pub database: String,
    /// The table: letters of lower case, digits and underscores, so that it needs no quotes; perhaps `schema.table`.
    pub table: String,
    /// The channel that its trigger notifies; the same letters.
    pub channel: String,
}

/// A server, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreServer {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Whom to be.
    pub user: Option<String>,
    /// A file with the password, read at each connect.
    pub password_file: Option<PathBuf>,
    /// A file with the authorities that may have issued the server's certificate; `None`: no TLS.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Display for StoreServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(out, "[{host}]:{port}")
        } else {
            write!(out, "{host}:{port}")
        }
    }
}
