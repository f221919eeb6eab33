//! What `/status` tells: plain data that `app` fills and `strait status` reads back.
//!
//! Fields are added, never renamed or given another meaning: scripts read them. Counts are exact; lists stop at the limits here.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most routes that are listed. More are counted only: a million of them would be 200 MB of JSON.
pub const MOST_ROUTES: usize = 1_000;
/// Most names that are listed for one route.
pub const MOST_NAMES: usize = 5;
/// Most source networks that are listed.
pub const MOST_SOURCES: usize = 5;
/// Most endpoints that are listed for one route, and most that are absent.
pub const MOST_ENDPOINTS: usize = 50;

/// The state of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This cluster's name.
    pub cluster: String,
    /// Version of the binary.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When the process started: RFC 3339, UTC.
    pub started: String,
    /// Whether the gateway wants new connections.
    pub ready: bool,
    /// Why it does not.
    pub not_ready_because: Option<String>,
    /// Whether it is stopping.
    pub draining: bool,
    /// The table in force; 0 before the first.
    pub generation: u64,
    /// When it came into force: RFC 3339, UTC.
    pub changed: String,
    /// The configuration.
    pub config: ConfigStatus,
    /// Listeners, admin and metrics among them.
    pub listeners: Vec<ListenerStatus>,
    /// Egress addresses, each with its app; the first [`MOST_ROUTES`] of them.
    #[serde(default)]
    pub egress: Vec<EgressStatus>,
    /// Which apps lack an egress address, and what else is wrong with egress.
    #[serde(default)]
    pub egress_problems: Vec<String>,
    /// Names in the table, wildcards included.
    pub names: usize,
    /// Routes in the table.
    pub routes_total: usize,
    /// The first [`MOST_ROUTES`] of them.
    pub routes: Vec<RouteStatus>,
    /// What is discovered, and from where.
    pub sources: Vec<SourceStatus>,
    /// Connections of this gateway.
    pub connections: Connections,
    /// How far limits of connections are used.
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
    /// Links with other clusters; empty where there are none.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
    /// What links are opened and accepted with, and until when.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// The last refusals, newest first.
    pub refusals: Vec<RefusalStatus>,
}

/// The configuration in force, and the last attempt to change it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// File or directory.
    pub path: String,
    /// When the configuration in force was read: RFC 3339, UTC.
    pub changed: String,
    /// What is wrong with the last change, which then has no effect. Empty when it was good.
    pub errors: Vec<String>,
    /// What `strait check` would warn of.
    pub warnings: Vec<String>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// `ingress`, `metrics`, `admin`.
    pub kind: String,
    /// The address as written.
    pub address: String,
    /// The address as bound, with the real port; absent for a socket file.
    pub bound: Option<String>,
}

/// An address of its own for an imported app or service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EgressStatus {
    /// What callers dial.
    pub address: String,
    /// Where the gateway listens.
    pub bound: String,
    /// `namespace/app`, or the name of a service
    pub app: String,
    /// Why it does not listen there; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// `namespace/app`, or the name of a service or a plain route.
    pub label: String,
    /// `app`, `service`, or `route`.
    #[serde(default)]
    pub kind: String,
    /// Names that lead to it.
    pub names_total: usize,
    /// The first [`MOST_NAMES`] of them.
    pub names: Vec<String>,
    /// The first [`MOST_ENDPOINTS`] endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Configured endpoints that cannot be dialled.
    pub absent: Vec<AbsentStatus>,
}

/// One endpoint of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Where it is dialled.
    pub address: String,
    /// Lower goes first.
    pub priority: u8,
    /// Share of the load within its priority.
    pub weight: u16,
    /// Connections that are open now.
    pub open: u32,
    /// `healthy`, `ejected`, `down`.
    pub health: String,
    /// The cluster whose gateway it is; absent for the app's own endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A configured endpoint that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbsentStatus {
    /// As written.
    pub address: String,
    /// Why.
    pub reason: String,
}

/// A value in the store of allowed apps that is no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedDocument {
    /// Its key.
    pub key: String,
    /// Its version, as the store tells it.
    pub version: String,
    /// What is wrong, and where.
    pub why: String,
    /// Whether the document that was there before is in force in its place.
    pub is_replaced: bool,
}

/// A source of what the gateway knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `file`, `dns`.
    pub name: String,
    /// Whether its last attempt succeeded.
    pub up: bool,
    /// Since what it knows was last known to be true; absent until it has said anything.
    pub age_seconds: Option<f64>,
    /// Whether some of that is only remembered from before the restart.
    #[serde(default)]
    pub stale: bool,
    /// Of the store of allowed apps: how many callers have a document there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<usize>,
    /// What else is there under callers' keys, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedDocument>,
    /// Of another cluster: how many apps and services it exports that are imported here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<usize>,
    /// And how many more it has named, which count for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<usize>,
    /// What went wrong in the last attempt.
    pub last_error: Option<String>,
}

/// Connections of this gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Open now. Those that are being refused are not counted.
    pub open: u64,
    /// Accepted since the start.
    pub total: u64,
}

/// Links with another cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The cluster.
    pub cluster: String,
    /// Open links that this gateway has opened.
    pub opened: u64,
    /// Open links that it has accepted.
    pub accepted: u64,
}

/// What a gateway proves with who it is, or refuses by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// `certificate`, or `crl` for the revocation lists.
    pub role: String,
    /// When the first of its parts expires: RFC 3339, UTC.
    pub expires: String,
}

/// How far a limit is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// As its setting is called: `connections`, `perSource`.
    pub limit: String,
    /// The listener or the source network that it is the use of; absent for what is counted in all. Of sources the
    /// [`MOST_SOURCES`] with most connections are listed.
    pub of: Option<String>,
    /// Connections that are counted now.
    pub used: u64,
    /// The limit in force; 0 is none.
    pub most: u64,
    /// What is configured, where that is more than the file descriptors allow.
    pub lowered_from: Option<u64>,
}

/// A refused connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusalStatus {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// Where it came from.
    pub client: String,
    /// The name it asked for, escaped and capped; absent when none was found.
    pub name: Option<String>,
    /// Label of the ending.
    pub ending: String,
    /// What an operator can do.
    pub hint: Option<String>,
}

/// A moment as the fields here have it: RFC 3339, UTC, whole milliseconds.
pub fn timestamp(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    let moment = moment.replace_millisecond(moment.millisecond()).unwrap_or(moment);
    // Fails only for years that RFC 3339 cannot write.
    moment.format(&Rfc3339).unwrap_or_default()
}

/// The moment that a field here tells.
pub fn moment(timestamp: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(timestamp, &Rfc3339).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_timestamp_is_rfc_3339_and_comes_back() {
        let then = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(timestamp(then), "2023-11-14T22:13:20.123Z");
        let whole = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(moment(&timestamp(then)), Some(whole));
        assert_eq!(moment("yesterday"), None);
    }
}
