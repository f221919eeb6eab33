//! What a store tells to who follows it: the same news once, the same failure once.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use super::{Entry, Told};

/// Before the first new try; each failure doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait before a new try. A store that is back is heard within it, and a dead one costs a connect every two seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Reasons that are remembered, so that one which comes back is not told again.
const MOST_REASONS: usize = 16;

/// Tells, and knows what it has told.
pub(super) struct Teller<'a> {
    told: &'a mpsc::Sender<Told>,
    hasher: RandomState,
    /// Of each key, what its entry hashes to: documents are held by who follows.
    known: HashMap<String, u64>,
    /// Why it has failed since it worked last.
    reasons: Vec<String>,
    notes: Vec<String>,
    wait: Duration,
}

impl<'a> Teller<'a> {
    pub(super) fn new(told: &'a mpsc::Sender<Told>) -> Self {
        let (known, reasons, notes) = (HashMap::new(), Vec::new(), Vec::new());
        Self { told, hasher: RandomState::new(), known, reasons, notes, wait: FIRST_WAIT }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_done(&self) -> bool {
        self.told.is_closed()
    }

    /// Returns when nobody listens any more.
    pub(super) async fn done(&self) {
        self.told.closed().await;
    }

    /// How many keys there are.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// All that there is, after a connect.
    pub(super) async fn all(&mut self, entries: Vec<(String, Entry)>) {
        let hash = |entry: &Entry| self.hasher.hash_one(entry);
        self.known = entries.iter().map(|(key, entry)| (key.clone(), hash(entry))).collect();
        self.tell(Told::All(entries)).await;
        self.works();
    }

    /// All that there is, of which most is known: tells what is not.
    pub(super) async fn changes(&mut self, entries: Vec<(String, Entry)>) {
        let there: HashSet<&String> = entries.iter().map(|(key, _)| key).collect();
        let gone = self.known.keys().filter(|key| !there.contains(key));
        let gone: Vec<String> = gone.cloned().collect();
        let mut news = false;
        for key in gone {
            news |= self.one(key, None).await;
        }
        for (key, entry) in entries {
            news |= self.one(key, Some(entry)).await;
        }
        if !news {
            self.unchanged().await;
        }
    }

    /// What one key has now. Whether that was news.
    pub(super) async fn one(&mut self, key: String, entry: Option<Entry>) -> bool {
        let hash = entry.as_ref().map(|entry| self.hasher.hash_one(entry));
        let before = match hash {
            Some(hash) => self.known.insert(key.clone(), hash),
            None => self.known.remove(&key),
        };
        if before == hash {
            return false;
        }
        self.tell(Told::One(key, entry)).await;
        true
    }

    /// Nothing has changed.
    pub(super) async fn unchanged(&mut self) {
        self.tell(Told::Unchanged).await;
        self.works();
    }

    /// It does not work: tells why, once for each reason, and waits before the next try.
    pub(super) async fn failed(&mut self, reason: String) {
        if is_new(&mut self.reasons, &reason) {
            self.tell(Told::Failed(reason)).await;
        }
        tokio::time::sleep(self.spread(self.wait)).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Something that the operator should know and that is no failure, once for each reason.
    pub(super) fn note(&mut self, store: &str, note: &str) {
        if is_new(&mut self.notes, note) {
            info!(store, "{note}");
        }
    }

    fn works(&mut self) {
        self.wait = FIRST_WAIT;
        self.reasons.clear();
    }

    /// Between half of it and all: gateways that lost a store in the same moment do not all come back in the same.
    fn spread(&self, wait: Duration) -> Duration {
        let chance = self.hasher.hash_one(std::time::Instant::now());
        let share =
            f64::from(u32::try_from(chance >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        wait.mul_f64(0.5 + share / 2.0)
    }

    async fn tell(&self, told: Told) {
        // Nobody listens any more: `is_done` says so.
        let _ = self.told.send(told).await;
    }
}

fn is_new(reasons: &mut Vec<String>, reason: &str) -> bool {
    if reasons.iter().any(|told| told == reason) {
        return false;
    }
    reasons.truncate(MOST_REASONS - 1);
    reasons.push(reason.to_owned());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::store::versions;

    fn entry(text: &str) -> Entry {
        versions::entry(text.as_bytes())
    }

    fn heard(receiver: &mut mpsc::Receiver<Told>) -> Vec<Told> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn what_is_known_is_not_told_again() {
        let (sender, mut receiver) = mpsc::channel(16);
        let mut teller = Teller::new(&sender);
        let (a, b) = (("a".to_owned(), entry("1")), ("b".to_owned(), entry("1")));
        teller.all(vec![a.clone(), b.clone()]).await;
        teller.changes(vec![a.clone(), b.clone()]).await;
        assert_eq!(heard(&mut receiver), [Told::All(vec![a.clone(), b]), Told::Unchanged]);
        teller.changes(vec![("a".to_owned(), entry("2"))]).await;
        let gone = Told::One("b".to_owned(), None);
        assert_eq!(heard(&mut receiver), [gone, Told::One("a".to_owned(), Some(entry("2")))]);
        assert!(!teller.one("a".to_owned(), Some(entry("2"))).await);
        assert!(!teller.one("c".to_owned(), None).await);
        assert_eq!(heard(&mut receiver), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_for_each_reason_until_it_works() {
        let (sender, mut receiver) = mpsc::channel(16);
        let mut teller = Teller::new(&sender);
        for reason in ["down", "slow", "down", "slow"] {
            teller.failed(reason.to_owned()).await;
        }
        let told = ["down", "slow"].map(|reason| Told::Failed(reason.to_owned()));
        assert_eq!(heard(&mut receiver), told);
        teller.unchanged().await;
        teller.failed("down".to_owned()).await;
        assert_eq!(heard(&mut receiver), [Told::Unchanged, Told::Failed("down".to_owned())]);
    }
}
