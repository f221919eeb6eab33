//! Who follows a store, and what it knows by then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strait::permissions::store::{Entry, Store, Told};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use crate::common::PATIENCE;

/// Follows until it is dropped.
pub(crate) struct Follower {
    told: mpsc::Receiver<Told>,
    following: JoinHandle<()>,
    pub(crate) known: BTreeMap<String, Entry>,
    pub(crate) failures: Vec<String>,
    /// How often all was read anew, and how often nothing had changed.
    pub(crate) all: usize,
    pub(crate) unchanged: usize,
}

impl Follower {
    pub(crate) fn new(store: &Arc<dyn Store>) -> Self {
        let store = Arc::clone(store);
        let (sender, told) = mpsc::channel(64);
        let following = tokio::spawn(async move { store.follow(&sender).await });
        let (known, failures) = (BTreeMap::new(), Vec::new());
        Self { told, following, known, failures, all: 0, unchanged: 0 }
    }

    /// Follows, and has heard everything once.
    pub(crate) async fn ready(store: &Arc<dyn Store>) -> Self {
        let mut follower = Self::new(store);
        follower.until("all is told", |follower| follower.all > 0).await;
        follower
    }

    /// Listens until something is so. The time that it took.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let since = Instant::now();
        let deadline = since + PATIENCE;
        while !is_so(self) {
            let told = timeout_at(deadline.into(), self.told.recv()).await;
            let told = told.unwrap_or_else(|_| {
                panic!("in vain: {what}; failures {:?}, {} known", self.failures, self.known.len())
            });
            self.hear(told.expect("the store is followed"));
        }
        since.elapsed()
    }

    /// Listens until a key has a text, `None` being nothing.
    pub(crate) async fn until_has(&mut self, key: &str, text: Option<&str>) -> Duration {
        self.until(&format!("{key} has {text:?}"), |follower| follower.text(key) == text).await
    }

    /// What a key has, unless that is no text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.known.get(key).and_then(|entry| entry.value.as_deref().ok())
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::All(entries) => {
                self.known = entries.into_iter().collect();
                self.all += 1;
            }
            Told::One(key, Some(entry)) => drop(self.known.insert(key, entry)),
            Told::One(key, None) => drop(self.known.remove(&key)),
            Told::Unchanged => self.unchanged += 1,
            Told::Failed(reason) => self.failures.push(reason),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.following.abort();
    }
}
