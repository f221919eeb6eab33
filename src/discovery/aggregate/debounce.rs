//! How long news is let gather before a table is made of it.

use std::time::Duration;

use tokio::time::Instant;

/// A table is built after this long without a further update: a rolling restart says ten things in a moment.
pub(super) const QUIET: Duration = Duration::from_millis(50);
/// A table is built at the latest this long after the first update that it lacks, however many follow: the time that a change may
/// take to reach connections stays well below the second after which Dapr retries a call.
pub(super) const AT_MOST: Duration = Duration::from_millis(200);
/// When to build: after some quiet, but not for ever later.
#[derive(Debug, Default)]
pub(super) struct Debounce(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
}

impl Debounce {
    pub(super) fn start(&mut self, now: Instant) {
        let first = self.0.as_ref().map_or(now, |waiting| waiting.first);
        self.0 = Some(Waiting { first, last: now });
    }

    /// Returns when it is time; never while there is nothing to wait for.
    pub(super) async fn due(&self) {
        match &self.0 {
            Some(Waiting { first, last }) => {
                tokio::time::sleep_until((*last + QUIET).min(*first + AT_MOST)).await;
            }
            None => std::future::pending().await,
        }
    }
}
