//! What the source says and when: the first word, changes, failures, and now and then that all is as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::name::Name;

/// Word that nothing has changed goes out no more often than this.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What is to be said.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Whether there has been a first word, before which nothing is said.
    pub(super) spoken: bool,
    /// Addresses differ from those last said.
    pub(super) changed: bool,
    /// Something was answered since the last word.
    fresh: bool,
    pub(super) failing: BTreeMap<Name, String>,
    last: Option<(Instant, Word)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Snapshot,
    Unchanged,
    Failed(String),
}

impl Report {
    pub(super) fn hear(&mut self, name: &Name, trouble: Option<String>, changed: bool) {
        self.changed |= changed;
        if let Some(why) = trouble {
            if self.failing.insert(name.clone(), why.clone()).is_none() {
                warn!(%name, %why, "DNS does not answer; the last good addresses stay");
            }
            return;
        }
        self.fresh = true;
        if self.failing.remove(name).is_some() {
            info!(%name, "DNS answers again");
        }
    }

    /// The first word. Also an empty snapshot is one, unless names fail and nothing is known.
    pub(super) fn speak(&mut self) {
        self.spoken = true;
        self.changed |= self.failing.is_empty();
    }

    /// What to say next. A snapshot counts as success, so that what fails is said after it.
    pub(super) fn next(&self, now: Instant, names: usize) -> Option<Word> {
        if !self.spoken {
            return None;
        }
        if self.changed {
            return Some(Word::Snapshot);
        }
        if let Some((name, why)) = self.failing.first_key_value() {
            let others = self.failing.len();
            let word = Word::Failed(match others {
                1 => format!("{name}: {why}"),
                _ => format!("{others} of {names} names fail; {name}: {why}"),
            });
            let news = self.last.as_ref().is_none_or(|(_, last)| *last != word);
            return news.then_some(word);
        }
        let healed = self.last.as_ref().is_some_and(|(_, last)| matches!(last, Word::Failed(_)));
        let rested = self.last.as_ref().is_none_or(|(at, _)| now >= *at + HEARTBEAT);
        (healed || self.fresh && rested).then_some(Word::Unchanged)
    }

    pub(super) fn said(&mut self, word: &Word) {
        self.changed &= *word != Word::Snapshot;
        self.fresh = false;
        self.last = Some((Instant::now(), word.clone()));
    }
}
