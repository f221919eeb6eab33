//! How often news may make a table.

use std::time::Duration;

use tokio::time::Instant;

/// Two tables in any such time, however often a source changes: each costs its building, and the memory of the one before. A
/// change after a rest is not held up by it, nor is the next one.
const SPAN: Duration = Duration::from_secs(1);

/// Remembers the last two times.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    before: Option<Instant>,
}

impl Pace {
    /// It has happened again.
    pub(super) fn took(&mut self, now: Instant) {
        self.before = self.last.replace(now);
    }

    /// When it may happen that is due at some time: then, or later.
    pub(super) fn earliest(&self, due: Instant) -> Instant {
        self.before.map_or(due, |before| due.max(before + SPAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_come_as_they_are_due_and_the_third_a_second_after_the_first() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        for (due, happens) in
            [(0, 0), (100, 100), (200, 1000), (1010, 1100), (3000, 3000), (3001, 3001)]
        {
            assert_eq!(pace.earliest(at(due)), at(happens));
            pace.took(at(happens));
        }
    }
}
