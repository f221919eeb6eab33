//! What [`explain`](super::explain::explain) answers: plain values that serialise both ways, because they are made on the gateway
//! or offline and rendered by the command line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::table::{Route, Table};

/// What a gateway does with a connection that asks for a name, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name as it was asked for.
    pub written: String,
    /// The name as it is compared; `None` if it is none.
    pub name: Option<String>,
    /// Where the client stands; `None` while nobody says where it is, and where no network is local.
    pub side: Option<SideAnswer>,
    /// The route that the name leads to.
    pub route: Option<MatchedRoute>,
    /// Whether the client may use it; `None` without a route.
    pub policy: Option<PolicyAnswer>,
    /// The egress addresses of what is imported; nothing where nobody has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressAnswer>,
    /// What may be dialled for this client, or for any while nobody says where it is: one group for each priority, the lowest number first. A lower group goes before a higher one;
    /// within a group load and chance decide.
    pub priorities: Vec<PriorityGroup>,
    /// What stands in the configuration but cannot be dialled.
    pub absent: Vec<AbsentEndpoint>,
    /// What comes of it.
    pub verdict: Verdict,
    /// What the operator may do about it.
    pub hint: Option<String>,
}

/// Where a client stands, and who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideAnswer {
    /// `local` or `remote`.
    pub side: String,
    /// Why.
    pub because: String,
    /// The apps of this cluster whose `from` has the client's address: one names it, more are ambiguous.
    pub callers: Vec<String>,
}

/// A route, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRoute {
    /// The route's label.
    pub label: String,
    /// `route`, `export`, `import`, or `export and import`; of a service `exported service`, `imported service`, or `exported and
    /// imported service`.
    pub kind: String,
    /// The name or wildcard that matched.
    pub pattern: String,
    /// Why this one.
    pub because: String,
    /// Wildcards that cover the name too and count less, the longest first.
    pub also: Vec<String>,
}

/// What the `allow` list says that judges the client: the import's for a local client of an imported app, else the export's or
/// the route's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum PolicyAnswer {
    /// There is no list: whoever reaches the listener may use the route.
    Open,
    /// One of the rules admits the client.
    Admitted {
        /// The rule as the operator wrote it.
        rule: String,
    },
    /// It is imported and not exported: for remote clients it is not there.
    OnlyImported,
    /// No export: a link leads to nothing else.
    NotExported,
    /// None does.
    Denied {
        /// The rules.
        rules: Vec<String>,
    },
    /// Nobody said where the client is.
    NotJudged {
        /// The rules.
        rules: Vec<String>,
    },
}

/// Where callers without a server name dial it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressAnswer {
    /// What they dial.
    pub addresses: Vec<SocketAddr>,
    /// Why it has none, or fewer than it is to have.
    pub lacks: Option<String>,
}

impl EgressAnswer {
    pub(super) fn of(table: &Table, route: &Route) -> Option<Self> {
        route.import.as_ref()?;
        let own = table.egress().filter(|at| at.route.label == route.label);
        let addresses: Vec<_> = own.map(|at| at.announce).collect();
        let of_it =
            |told: &String| told.strip_prefix(&*route.label)?.strip_prefix(": ").map(str::to_owned);
        let lacks = table.egress_problems().iter().find_map(of_it);
        (!addresses.is_empty() || lacks.is_some()).then_some(Self { addresses, lacks })
    }
}

/// Endpoints of one priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityGroup {
    /// Lower goes first.
    pub priority: u8,
    /// In no order that means anything.
    pub endpoints: Vec<CandidateEndpoint>,
}

/// An endpoint that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateEndpoint {
    /// Where.
    pub address: SocketAddr,
    /// Share of the load within its priority.
    pub weight: u16,
    /// Connections open now; `None` offline.
    pub open: Option<u32>,
    /// `healthy`, `ejected`, `down`; `unknown` offline.
    pub health: String,
    /// The link to take there; absent for the app's own endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<ViaAnswer>,
}

/// A link to another cluster's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViaAnswer {
    /// The cluster that the gateway must prove to be.
    pub cluster: String,
    /// The server name that it is asked for.
    pub name: String,
}

/// An endpoint that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentEndpoint {
    /// As it was written.
    pub endpoint: String,
    /// Why not.
    pub because: String,
}

/// What comes of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verdict {
    /// It goes to an endpoint of the first priority that has a usable one.
    Routed,
    /// It is closed.
    Refused {
        /// The ending's label, as in the log and in metrics.
        ending: String,
        /// The TLS alert that the client gets.
        alert: String,
    },
    /// Something is missing that decides.
    Undecided {
        /// What is missing.
        because: String,
    },
}
