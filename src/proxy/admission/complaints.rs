//! Log lines about limits: one now and then for each, however many connections are refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limit::Limit;

/// A line a second tells who comes and since when; what is refused in between is counted, in the metrics and in the next line.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the last line about each limit was written.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Complaints([Mutex<Complaint>; Limit::ALL.len()]);

#[derive(Debug, Default)]
struct Complaint {
    told: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Whether a refusal is to be told, and then how many were not since the last that was.
    pub(in crate::proxy) fn due(&self, limit: Limit) -> Option<u64> {
        // There is a place for each limit, which a test of `limit` holds up.
        let complaint = self.0.get(limit as usize)?;
        complaint.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now())
    }
}

impl Complaint {
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < INTERVAL) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_limit_is_told_once_a_second_with_what_was_not() {
        let complaints = Complaints::default();
        assert_eq!(complaints.due(Limit::PerSource), Some(0));
        assert_eq!(complaints.due(Limit::PerSource), None);
        assert_eq!(complaints.due(Limit::PerSource), None);
        assert_eq!(complaints.due(Limit::Pending), Some(0), "another limit has its own turn");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(complaints.due(Limit::PerSource), Some(2));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(complaints.due(Limit::PerSource), Some(0));
    }
}
