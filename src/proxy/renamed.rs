//! A name that changes its app: connections that came by it for the one are closed before it leads to the other.
//!
//! What is carried by the engine it finds itself at its next tick. A relay has a task that waits; where it may have to end for its
//! name, it waits for a token of its own, which the core cancels at the same tick.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::model::ending::Ending;
use crate::routing::holds::Hold;
use crate::routing::table::Table;

use super::Shared;
use super::core::Proxy;
use super::refuse::Refused;

/// How often a connection whose turn has not come looks again.
const LOOK: Duration = Duration::from_millis(20);
/// A core looks every second which of its connections are revoked, and one that is busy may be late.
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
        shared.revocations.fetch_add(1, Ordering::AcqRel);
    })
}

thread_local! {
    static RELAYS: RefCell<Relays> = RefCell::default();
}

/// Relays of this core that came by a name.
#[derive(Default)]
struct Relays {
    of: HashMap<u64, (Arc<Hold>, CancellationToken)>,
    next: u64,
    /// Revocations that have been seen to.
    revocations: u64,
}

/// A relay that ends when its name is revoked.
pub(super) struct Revocable {
    number: u64,
    stop: CancellationToken,
}

impl Revocable {
    /// Ends with `cut` in any case.
    pub(super) fn new(hold: Arc<Hold>, cut: &CancellationToken) -> Self {
        let stop = cut.child_token();
        let number = RELAYS.with_borrow_mut(|relays| {
            relays.next += 1;
            relays.of.insert(relays.next, (hold, stop.clone()));
            relays.next
        });
        Self { number, stop }
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Revocable {
    fn drop(&mut self) {
        // Fails only where the thread ends, and its relays with it.
        let _ = RELAYS.try_with(|relays| {
            if let Ok(mut relays) = relays.try_borrow_mut() {
                relays.of.remove(&self.number);
            }
        });
    }
}

/// Ends the relays of this core whose names are revoked; looked for only when there may be some.
pub(super) fn revoke(revocations: u64) {
    let revoked: Vec<_> = RELAYS.with_borrow_mut(|relays| {
        if std::mem::replace(&mut relays.revocations, revocations) == revocations {
            return Vec::new();
        }
        let revoked = relays.of.values().filter(|(hold, _)| hold.is_revoked());
        revoked.map(|(_, stop)| stop.clone()).collect()
    });
    // Wakes tasks, which must not find the list borrowed.
    revoked.iter().for_each(CancellationToken::cancel);
}
