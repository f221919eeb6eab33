//! The last refusals, so that an operator who asks why a call failed need not have the logs at hand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::model::ending::Ending;

/// Enough to see a pattern, few enough to read.
pub const MOST_REFUSALS: usize = 50;

/// One refused connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When it ended.
    pub at: SystemTime,
    /// Where it came from.
    pub client: SocketAddr,
    /// The canonical name that it asked for, if it got that far.
    pub name: Option<Box<str>>,
    /// Why it was refused.
    pub ending: Ending,
    /// What an operator can do.
    pub hint: Option<&'static str>,
}

/// The last [`MOST_REFUSALS`] of them. One lock: a refusal has cost far more before it gets here.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    /// Keeps a refusal, and forgets the oldest.
    pub fn note(&self, refusal: Refusal) {
        let mut kept = self.lock();
        if kept.len() >= MOST_REFUSALS {
            kept.pop_back();
        }
        kept.push_front(refusal);
    }

    /// All that are kept.
    pub fn newest_first(&self) -> Vec<Refusal> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let refusals = Refusals::default();
        for port in 1..=60 {
            refusals.note(Refusal {
                at: SystemTime::UNIX_EPOCH,
                client: ([192, 0, 2, 1], port).into(),
                name: None,
                ending: Ending::Denied,
                hint: None,
            });
        }
        let ports: Vec<_> =
            refusals.newest_first().iter().map(|refusal| refusal.client.port()).collect();
        assert_eq!(ports, (11..=60).rev().collect::<Vec<_>>());
    }
}
