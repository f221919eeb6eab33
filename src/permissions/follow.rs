//! The source `allowed-apps`: follows the documents of a store, and keeps the last good one of each caller.
//!
//! What is no document takes nothing away: what its caller could call before still holds, and the operator is told which key it is,
//! which version, and where in its text the mistake stands. A key that is gone does take it away.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::background::{self, Urgency};
use crate::config;
use crate::discovery::memory::recall_documents;
use crate::discovery::{Said, Snapshot, Update, dns};
use crate::model::allowed::{Document, Documents, Version};
use crate::model::app::AppId;

use super::format;
use super::store::{self, Entry, Store, Told};

/// The source's name, for metrics, status and the file in `stateDir`.
pub const SOURCE: &str = "allowed-apps";

/// Words of a store on their way. A store that finds the queue full waits.
const QUEUE: usize = 64;

/// A store as it is configured, and opened.
#[derive(Clone)]
pub struct Followed {
    written: config::Store,
    names: dns::Settings,
    /// The store.
    pub store: Arc<dyn Store>,
}

impl Followed {
    /// Opens a store; connects to nothing yet.
    pub fn open(written: config::Store, names: dns::Settings) -> Self {
        let store = store::open(&written, &names);
        Self { written, names, store }
    }

    /// Whether it is this store, reached in this way.
    pub fn is(&self, written: &config::Store, names: &dns::Settings) -> bool {
        self.written == *written && self.names == *names
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Followed").field(&self.written).finish()
    }
}

/// A value in the store that is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its key.
    pub key: String,
    /// Which one it is.
    pub version: Version,
    /// What is wrong, where, and how to mend it.
    pub why: String,
    /// Whether a document that came before it is in force in its place.
    pub is_replaced: bool,
}

/// All that are rejected now, in the order of their keys.
pub type Rejections = watch::Sender<Arc<[Rejected]>>;

/// Follows the store that is configured until `stop`. `folder` is where what was in force before the restart may be kept.
pub async fn watch(
    mut stores: watch::Receiver<Option<Followed>>,
    folder: Option<PathBuf>,
    rejections: Rejections,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper::default();
    let has_store = stores.borrow().is_some();
    if let Some(folder) = folder.filter(|_| has_store)
        && let Some(remembered) = recall_documents(&folder, SOURCE).await
    {
        keeper.recall(remembered.said, remembered.as_of);
    }
    let following = async {
        loop {
            let followed = stores.borrow_and_update().clone();
            if let Some(Followed { store, .. }) = followed {
                tokio::select! {
                    changed = stores.changed() => if changed.is_err() { return },
                    back = follow(&*store, &mut keeper, &rejections, &updates) => {
                        let Some(()) = back else { return };
                    }
                }
                continue;
            }
            keeper = Keeper::default();
            rejections.send_replace(Arc::default());
            let gone = Update { source: SOURCE.into(), said: Said::Gone };
            // Fails only where nobody listens any more.
            let _ = updates.send(gone).await;
            if stores.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(following).await;
}

/// Follows one store for as long as it is polled. `None`: a fault of ours has ended it, and the log has it.
async fn follow(
    store: &dyn Store,
    keeper: &mut Keeper,
    rejections: &Rejections,
    updates: &mpsc::Sender<Update>,
) -> Option<()> {
    let (told, mut words) = mpsc::channel(QUEUE);
    let mut following = store.follow(&told);
    info!(store = store.describe(), "following the allowed apps");
    loop {
        tokio::select! {
            () = &mut following => return Some(()),
            Some(word) = words.recv() => {
                // Ten thousand documents take a while to parse, and this thread has other work.
                let mut taken = std::mem::take(keeper);
                let heard = background::run(Urgency::Change, move || {
                    taken.hear(word);
                    taken
                });
                *keeper = heard.await.ok()?;
                let rejected: Arc<[Rejected]> = keeper.rejected.values().cloned().collect();
                rejections.send_if_modified(|known| {
                    let differs = *known != rejected;
                    *known = rejected;
                    differs
                });
            }
            // Reserved before it is made: while the owner is busy building, one snapshot stands for many changes.
            Ok(permit) = updates.reserve(), if keeper.has_news() => {
                if let Some(said) = keeper.news() {
                    permit.send(Update { source: SOURCE.into(), said });
                }
            }
        }
    }
}

/// What has come of what a store told.
#[derive(Debug, Default)]
struct Keeper {
    /// Each caller's last good document.
    documents: Arc<Documents>,
    rejected: BTreeMap<String, Rejected>,
    /// What was remembered from before the restart has not been said.
    remembered: Option<SystemTime>,
    /// The documents have not been said as they are now.
    changed: bool,
    /// What is to be said besides.
    word: Option<Said>,
}

impl Keeper {
    fn recall(&mut self, documents: Documents, as_of: SystemTime) {
        (self.documents, self.remembered) = (Arc::new(documents), Some(as_of));
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::All(entries) => self.all(entries),
            Told::One(key, entry) => {
                self.one(&key, entry);
                self.word = Some(Said::Unchanged);
            }
            Told::Unchanged => self.word = Some(Said::Unchanged),
            Told::Failed(why) => {
                warn!(%why, "the store of allowed apps does not answer; the last known documents stay in force");
                self.word = Some(Said::Failed(why));
            }
        }
    }

    fn all(&mut self, entries: Vec<(String, Entry)>) {
        let there: HashSet<AppId> =
            entries.iter().filter_map(|(key, _)| format::caller(key).ok()).collect();
        let gone: Vec<_> =
            self.documents.keys().filter(|caller| !there.contains(*caller)).cloned().collect();
        let keys: HashSet<&str> = entries.iter().map(|(key, _)| &**key).collect();
        self.rejected.retain(|key, _| keys.contains(&**key));
        for caller in gone {
            Arc::make_mut(&mut self.documents).remove(&caller);
        }
        for (key, entry) in entries {
            self.one(&key, Some(entry));
        }
        // Also when there is nothing: that is a statement.
        (self.changed, self.word) = (true, None);
    }

    fn one(&mut self, key: &str, entry: Option<Entry>) {
        let Some(Entry { value, version }) = entry else {
            self.rejected.remove(key);
            if let Ok(caller) = format::caller(key) {
                self.changed |= Arc::make_mut(&mut self.documents).remove(&caller).is_some();
            }
            return;
        };
        let read = match (format::caller(key), value) {
            (Ok(caller), Ok(text)) => match format::parse(&caller, &text) {
                Ok(says) => Ok((caller, Document { says, version: version.clone() })),
                Err(error) => Err(error.to_string()),
            },
            (Ok(_), Err(unreadable)) => Err(unreadable.to_string()),
            (Err(error), _) => Err(error),
        };
        match read {
            Ok((caller, document)) => self.take(key, caller, document),
            Err(why) => self.reject(key, version, why),
        }
    }

    fn take(&mut self, key: &str, caller: AppId, document: Document) {
        if self.rejected.remove(key).is_some() {
            info!(key, version = %document.version, "it is a document again, and in force");
        }
        if self.documents.get(&caller).is_some_and(|known| **known == document) {
            return;
        }
        Arc::make_mut(&mut self.documents).insert(caller, Arc::new(document));
        self.changed = true;
    }

    fn reject(&mut self, key: &str, version: Version, why: String) {
        let caller = format::caller(key).ok();
        let is_replaced = caller.is_some_and(|caller| self.documents.contains_key(&caller));
        let rejected = Rejected { key: key.to_owned(), version, why, is_replaced };
        let known = self.rejected.insert(key.to_owned(), rejected.clone());
        if known.as_ref() != Some(&rejected) {
            let Rejected { key, version, why, is_replaced } = rejected;
            let instead = if is_replaced { "the document before it" } else { "nothing" };
            warn!(key, %version, %why, in_force = instead, "it is no document of allowed apps");
        }
    }

    fn has_news(&self) -> bool {
        self.remembered.is_some() || self.changed || self.word.is_some()
    }

    /// What to say next. What fails is said after what is known.
    fn news(&mut self) -> Option<Said> {
        let documents = || Snapshot::Documents(Arc::clone(&self.documents));
        if self.changed {
            let said = Said::Snapshot(documents());
            (self.changed, self.remembered) = (false, None);
            // It says as much.
            self.word = self.word.take().filter(|word| *word != Said::Unchanged);
            return Some(said);
        }
        if let Some(as_of) = self.remembered {
            let said = Said::Remembered(documents(), as_of);
            self.remembered = None;
            return Some(said);
        }
        self.word.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn entry(key: &str, value: &str, version: &str) -> (String, Entry) {
        let entry = Entry { value: Ok(value.to_owned()), version: version.into() };
        (format!("strait/apps/{key}"), entry)
    }

    fn one(keeper: &mut Keeper, key: &str, value: &str, version: &str) {
        let (key, entry) = entry(key, value, version);
        keeper.hear(Told::One(key, Some(entry)));
    }

    /// Callers with what they may call.
    fn known(keeper: &Keeper) -> Vec<String> {
        let known = keeper
            .documents
            .values()
            .map(|document| format!("{} {}", document.version, format::text(&document.says)));
        known.collect()
    }

    const ORDERS: &str = r#"{"allowed":[{"app":"orders"}]}"#;

    #[test]
    fn what_is_no_document_keeps_the_last_good_one_and_is_told() {
        let mut keeper = Keeper::default();
        keeper.hear(Told::All(vec![entry("shop/a", ORDERS, "1"), entry("shop/b", "{", "7")]));
        let a = r#"1 {"app":"shop/a","allowed":[{"app":"shop/orders"}]}"#;
        assert_eq!(known(&keeper), [a]);
        assert!(matches!(keeper.news(), Some(Said::Snapshot(_))));
        one(&mut keeper, "shop/a", r#"{"allow":[]}"#, "2");
        assert_eq!(known(&keeper), [a], "it keeps what it had");
        let told: Vec<_> = keeper.rejected.values().cloned().collect();
        let [a_is, b_is] = &*told else { panic!("{told:?}") };
        assert_eq!((&*a_is.key, a_is.version.as_str()), ("strait/apps/shop/a", "2"));
        assert!(a_is.why.starts_with("line 1 column 8: unknown field `allow`"), "{}", a_is.why);
        assert!(a_is.is_replaced && !b_is.is_replaced);
        one(&mut keeper, "shop/a", "{}", "3");
        assert_eq!(known(&keeper), [r#"3 {"app":"shop/a"}"#]);
        assert_eq!(keeper.rejected.len(), 1);
        keeper.hear(Told::One("strait/apps/shop/a".into(), None));
        assert!(known(&keeper).is_empty(), "what is removed is not kept");
    }

    #[test]
    fn what_was_remembered_holds_until_the_store_says_otherwise() {
        let mut before = Keeper::default();
        before.hear(Told::All(vec![entry("shop/a", ORDERS, "1"), entry("shop/b", ORDERS, "1")]));
        let mut keeper = Keeper::default();
        keeper.recall(Documents::clone(&before.documents), SystemTime::UNIX_EPOCH);
        assert!(matches!(keeper.news(), Some(Said::Remembered(..))));
        keeper.hear(Told::Failed("nobody is there".into()));
        assert_eq!(keeper.news(), Some(Said::Failed("nobody is there".into())));
        assert!(!keeper.has_news());
        // One is garbled meanwhile, the other is gone.
        keeper.hear(Told::All(vec![entry("shop/a", "garbled", "2")]));
        assert_eq!(known(&keeper).len(), 1);
        assert!(matches!(keeper.news(), Some(Said::Snapshot(_))));
        assert!(keeper.rejected.values().all(|rejected| rejected.is_replaced));
    }

    #[test]
    fn words_are_said_once_and_in_order() {
        let mut keeper = Keeper::default();
        keeper.hear(Told::All(vec![]));
        assert!(matches!(keeper.news(), Some(Said::Snapshot(_))), "nothing is a statement");
        assert!(!keeper.has_news());
        one(&mut keeper, "shop/a", ORDERS, "1");
        keeper.hear(Told::Failed("gone".into()));
        assert!(matches!(keeper.news(), Some(Said::Snapshot(_))));
        assert!(matches!(keeper.news(), Some(Said::Failed(_))));
        one(&mut keeper, "shop/a", ORDERS, "1");
        assert_eq!(keeper.news(), Some(Said::Unchanged));
        assert_eq!(keeper.news(), None);
    }

    #[test]
    fn ten_thousand_documents_load_at_once_and_one_change_parses_one() {
        let apps: Vec<_> =
            (0..20).map(|app| format!(r#"{{"app":"app{app}","clusters":["east"]}}"#)).collect();
        let text = format!(r#"{{"allowed":[{}]}}"#, apps.join(","));
        let entries = (0..10_000).map(|caller| entry(&format!("shop/caller{caller}"), &text, "1"));
        let (mut keeper, entries) = (Keeper::default(), entries.collect());
        let start = Instant::now();
        keeper.hear(Told::All(entries));
        let took = start.elapsed();
        assert_eq!(keeper.documents.len(), 10_000);
        let before = Arc::clone(&keeper.documents);
        one(&mut keeper, "shop/caller7", "{}", "2");
        let same = before.iter().filter(|(caller, document)| {
            keeper.documents.get(*caller).is_some_and(|now| Arc::ptr_eq(now, document))
        });
        assert_eq!(same.count(), 9_999);
        assert!(took < Duration::from_secs(20), "an unoptimized build on a busy machine: {took:?}");
    }
}
