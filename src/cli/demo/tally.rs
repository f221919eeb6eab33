//! How many calls were made, and how they ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::caller::Line;

/// Counts of all callers. Clones count together, so that calls which flow in the background are never lost from the sum.
#[derive(Clone, Default)]
pub(super) struct Tallies(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    begun: u32,
    rows: Vec<Tally>,
}

/// The calls of one caller to one app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The caller and its cluster.
    pub(super) from: String,
    /// `namespace/app`.
    pub(super) to: &'static str,
    /// Arrived at the app that was wanted, as they should.
    pub(super) arrived: u32,
    /// Refused, as they should be.
    pub(super) refused: u32,
    /// Everything else.
    pub(super) wrong: u32,
}

/// Which count a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It arrived, and should.
    Arrived,
    /// It was refused, and should be.
    Refused,
    /// It ended otherwise than it should.
    Wrong,
}

impl Tallies {
    /// What the next call asks: no question is asked twice.
    pub(super) fn question(&self) -> String {
        let mut counts = self.lock();
        counts.begun += 1;
        format!("call {}", counts.begun)
    }

    /// Counts a call.
    pub(super) fn count(&self, line: &Line, verdict: Verdict) {
        let mut counts = self.lock();
        let from = line.caller.to_string();
        let known = counts.rows.iter_mut().find(|row| row.from == from && row.to == line.app);
        if let Some(row) = known {
            row.add(verdict);
        } else {
            let mut row = Tally { from, to: line.app, ..Tally::default() };
            row.add(verdict);
            counts.rows.push(row);
        }
    }

    /// Every caller and app, in the order of their first calls.
    pub(super) fn rows(&self) -> Vec<Tally> {
        self.lock().rows.clone()
    }

    /// Of all of them together.
    pub(super) fn sum(&self) -> Tally {
        self.lock().rows.iter().fold(Tally::default(), |sum, row| Tally {
            arrived: sum.arrived + row.arrived,
            refused: sum.refused + row.refused,
            wrong: sum.wrong + row.wrong,
            ..sum
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// All of them.
    pub(super) fn total(&self) -> u32 {
        self.arrived + self.refused + self.wrong
    }

    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Arrived => self.arrived += 1,
            Verdict::Refused => self.refused += 1,
            Verdict::Wrong => self.wrong += 1,
        }
    }
}
