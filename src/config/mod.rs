//! Configuration: from YAML to values that can run as they are.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::name::Name;
use crate::model::snapshot::Routes;

mod allowed_file;
mod decode;
mod disk;
mod file;
mod links;
mod load;
mod merge;
mod names;
pub mod problem;
mod resolve;
mod routes_file;
mod spot;
mod stamps;
mod store;
mod store_file;
mod suggest;
mod tree;
mod units;
mod yaml;

pub(crate) use disk::directories;
pub use links::{Links, Peer};
pub use load::{Loaded, Reading, load, parse_routes_text, parse_text, read};
pub use problem::Problem;
pub(crate) use stamps::Stamp;
pub use stamps::Stamps;
pub use store::{PostgresqlStore, RedisStore, Store, StoreServer};

/// The JSON Schema of a configuration file, for editors: `config/strait.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(file::File)
}

/// A whole configuration that is valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// This cluster's name.
    pub cluster: Arc<str>,
    /// Where connections come in.
    pub listeners: Listeners,
    /// What applies to connections.
    pub settings: Arc<Settings>,
    /// How DNS names of endpoints are resolved.
    pub resolver: Resolver,
    /// How links prove who is who; `None` where there are none.
    pub links: Option<Links>,
    /// Where documents of allowed apps are kept that change at run time.
    pub store: Option<Store>,
    /// What the gateway routes.
    pub routes: Arc<Routes>,
    /// Where the last good snapshot of every source outlives the process; without it nothing does.
    pub state_dir: Option<PathBuf>,
}

/// How DNS names of endpoints are resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// The servers to ask, in this order; empty for the system's (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
    /// Whether names may stand for loopback, link-local, metadata and unspecified addresses.
    pub allow_local_addresses: bool,
}

/// Where connections come in.
#[derive(Debug, Clone)]
pub struct Listeners {
    /// Where a hello's name decides.
    pub ingress: Vec<Ingress>,
    /// `/metrics`, `/healthz` and `/readyz` for scrapes and probes from outside.
    pub metrics: Option<SocketAddr>,
    /// The admin API.
    pub admin: AdminAddress,
    /// Who may ask it.
    pub admin_access: AdminAccess,
    /// The name server, UDP and TCP.
    pub dns: Option<SocketAddr>,
}

/// One ingress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// Where it listens.
    pub address: SocketAddr,
    /// Networks that send, and then must send, a PROXY header. Empty: nobody may.
    pub proxy_from: Vec<IpNet>,
}

/// Where the admin API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// `127.0.0.1:9901`
    Tcp(SocketAddr),
    /// `unix:/run/strait/admin.sock`
    Unix(PathBuf),
}

/// What the admin API asks of those who come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// A file of bearer tokens.
    pub token_file: Option<PathBuf>,
    /// What it speaks TLS with; without it, it does not.
    pub tls: Option<AdminTls>,
}

/// TLS of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// The folder with `tls.crt` and `tls.key`.
    pub directory: PathBuf,
    /// A file with the authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a key that others on this machine may read is taken all the same.
    pub allow_readable_key: bool,
}

/// What applies to every connection; replaced as a whole, never edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Limits of connections.
    pub limits: Limits,
    /// Which connections are logged.
    pub log: ConnectionLog,
    /// Most values of the metric label `route`; what comes after is `other`.
    pub metrics_routes: usize,
    /// What the name server has authority over.
    pub dns: Option<Arc<Zone>>,
    /// What becomes of connections whose caller may not call any more.
    pub on_revoke: OnRevoke,
}

/// What becomes of connections whose caller may not call any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRevoke {
    /// They live on until somebody closes them: calls that are under way are not cut.
    #[default]
    Keep,
    /// They are closed at once.
    Close,
}

/// What the name server answers besides the names of apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its zone.
    pub name: Name,
    /// Where callers reach this gateway.
    pub gateway: Box<[IpAddr]>,
    /// Whether an egress address is an IP address of the app's own, and not only a port.
    pub has_pool: bool,
}

/// Limits of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the hello's last byte.
    pub hello_timeout: Duration,
    /// Raw bytes of a hello, record headers included.
    pub hello_bytes: usize,
    /// One connect to one endpoint.
    pub connect_timeout: Duration,
    /// All connects of one connection.
    pub connect_total: Duration,
    /// From the last byte of a hello at an endpoint to the first byte of its answer; 0 is no limit.
    pub first_byte_timeout: Duration,
    /// No byte in either direction.
    pub idle_timeout: Duration,
    /// From the stop signal, unready, to the end of accepting.
    pub drain_delay: Duration,
    /// From the end of accepting to the end of every connection.
    pub drain_timeout: Duration,
    /// A connection that is older is closed between two calls; 0 is no limit.
    pub max_age: Duration,
    /// Connections in all; 0 is no limit, here and in all that follow.
    pub connections: usize,
    /// Connections of one listener.
    pub per_listener: usize,
    /// Connections of one source network.
    pub per_source: usize,
    /// Connections whose hello is not whole yet.
    pub pending: usize,
    /// The same of one source network.
    pub pending_per_source: usize,
    /// Hellos of one source network in a second.
    pub hello_rate: usize,
    /// Hellos that may come at once before the rate counts; 0 is what comes in a second.
    pub hello_burst: usize,
    /// Bits of an IPv4 address that make a source network.
    pub source_ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a source network.
    pub source_ipv6_prefix: u8,
}

/// Which connections are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLog {
    /// Every connection.
    All,
    /// Refused ones.
    Refusals,
    /// None.
    None,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            hello_bytes: 64 * 1024,
            connect_timeout: Duration::from_secs(1),
            connect_total: Duration::from_secs(3),
            first_byte_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_hours(1),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
            max_age: Duration::ZERO,
            connections: 100_000,
            per_listener: 0,
            per_source: 0,
            pending: 10_000,
            pending_per_source: 0,
            hello_rate: 0,
            hello_burst: 0,
            source_ipv4_prefix: 32,
            source_ipv6_prefix: 64,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            log: ConnectionLog::All,
            metrics_routes: 1000,
            dns: None,
            on_revoke: OnRevoke::default(),
        }
    }
}
