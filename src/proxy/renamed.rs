//! A name that changes its app: connections that came by it for the one are closed before it leads to the other.
//!
//! Engine and relays are told that something is revoked, and ask each connection's record whether it is meant.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::ending::Ending;
use crate::routing::holds::Hold;
use crate::routing::table::Table;

use super::Shared;
use super::core::Proxy;
use super::refuse::Refused;

/// How often a connection whose turn has not come looks again.
const LOOK: Duration = Duration::from_millis(20);
/// Cores are told at once which of their connections are revoked, but one that is busy may be late.
const PATIENCE: Duration = Duration::from_secs(5);

impl Proxy {
    /// Has connections closed that came by a name which leads to another app or service in this table.
    pub fn follow_names(&self, table: &Table) {
        let holds = table.routes().flat_map(|route| &route.holds);
        for hold in holds.filter(|hold| hold.has_others()) {
            // Nobody waits here for those who do not come.
            let _ = is_clear(&self.shared, hold);
        }
    }
}

/// Waits until nobody is left who came by the name for another app: to be asked only where there may be some.
pub(super) async fn wait(shared: &Shared, hold: &Hold) -> Result<(), Refused> {
    let until = Instant::now() + PATIENCE;
    while !is_clear(shared, hold) {
        if Instant::now() >= until {
            let reason = "connections to the app that had the name before have not ended yet";
            return Err(Refused::new(Ending::NoHealthyEndpoint, reason));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

fn is_clear(shared: &Shared, hold: &Hold) -> bool {
    hold.is_clear(|other| {
        tracing::warn!(name = %hold.name, from = &*other.label, to = &*hold.label, "a name changes its app: connections that came by it are closed first");
        shared.revoke();
    })
}
