//! How long news is let gather before a table is made of it.

use std::time::Duration;

use tokio::time::Instant;

use super::super::pace::Pace;

/// A table is built after this long without a further update: a rolling restart says ten things in a moment.
pub(super) const QUIET: Duration = Duration::from_millis(50);
/// A table is built at the latest this long after the first update that it lacks, however many follow: the time that a change may
/// take to reach connections stays well below the second after which Dapr retries a call.
pub(super) const AT_MOST: Duration = Duration::from_millis(200);

/// When to build: after some quiet, but not for ever later, and never more often than [`Pace`] allows.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    waiting: Option<Waiting>,
    pace: Pace,
}

#[derive(Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
}

impl Debounce {
    pub(super) fn start(&mut self, now: Instant) {
        let first = self.waiting.as_ref().map_or(now, |waiting| waiting.first);
        self.waiting = Some(Waiting { first, last: now });
    }

    /// What was waited for is being built.
    pub(super) fn took(&mut self, now: Instant) {
        self.waiting = None;
        self.pace.took(now);
    }

    /// Returns when it is time; never while there is nothing to wait for.
    pub(super) async fn due(&self) {
        match &self.waiting {
            Some(Waiting { first, last }) => {
                let due = (*last + QUIET).min(*first + AT_MOST);
                tokio::time::sleep_until(self.pace.earliest(due)).await;
            }
            None => std::future::pending().await,
        }
    }
}
