//! Where documents are kept. Every kind of store has the same face: [`Store`].
//!
//! A store deals in keys and texts, as it finds them. Whether a text is a document, and which was the last good one, is the
//! business of who follows it.

mod dial;
mod file;
mod postgresql;
mod redis;
mod teller;
pub(super) mod versions;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config;
use crate::discovery::dns;
use crate::model::allowed::Version;

pub use postgresql::{Initialized, initialize};

/// What all keys begin with.
pub const PREFIX: &str = "strait/apps/";

/// Most keys below [`PREFIX`]. Ten thousand are many; more than this is somebody's mistake, or somebody's attack on memory.
const MOST_KEYS: usize = 100_000;
/// Most bytes of all values together: ten thousand documents of 25 KiB.
const MOST_BYTES_OF_ALL: usize = 256 << 20;
/// Longest time for all keys and values. Each step of it has less, where there are steps.
const LISTING: Duration = Duration::from_secs(30);
/// Between two questions whether something has changed, where nobody tells it or who should may have failed. A change is to be in
/// force within a second of its writing, and a table takes up to 200 ms of it.
const BEAT: Duration = Duration::from_millis(500);
/// Most bytes of a value.
pub const MOST_BYTES: usize = 64 << 10;

/// One key's value, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The text, or why there is none: a store holds whatever others write there.
    pub value: Result<String, Unreadable>,
    /// Which one it is.
    pub version: Version,
}

/// Why a value is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    /// Its bytes are no text.
    #[error("it is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// It is no string, but another type of the store.
    #[error("it is no string")]
    OtherType,
    /// The system does not let us.
    #[error("it cannot be read: {0}")]
    System(std::io::ErrorKind),
    /// It is longer than any document may be, and was not read to its end.
    #[error("it has more than {MOST_BYTES} bytes")]
    TooLong,
}

/// What a store that is followed tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Every key below [`PREFIX`], read anew: after each connect, and by each poll that cannot do with less.
    All(Vec<(String, Entry)>),
    /// One key has changed, and this is what it has now; `None`: it is gone.
    One(String, Option<Entry>),
    /// Asked again, and nothing has changed.
    Unchanged,
    /// It cannot be asked, and why, for the operator. It is tried again.
    Failed(String),
}

/// What a writer knows of what it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    Anything,
    /// Nothing is there.
    Nothing,
    /// Exactly this is there.
    Version(Version),
}

/// Why a store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Something else is there than was expected: somebody was faster. What is there now is told.
    #[error("the document is not the one that was expected; there is {}", .0.as_ref().map_or("none".to_owned(), |version| format!("version {version}")))]
    Conflict(Option<Version>),
    /// It cannot be reached, is too slow, or answers what nobody understands.
    #[error("{0}")]
    Unavailable(String),
    /// It is reached, and does not allow it.
    #[error("{0}")]
    Refused(String),
}

/// What a store is doing.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A configuration store.
pub trait Store: Send + Sync {
    /// What kind it is and where, for messages: `redis at redis:6379, database 3`. No secret is in it.
    fn describe(&self) -> String;

    /// Follows the keys below [`PREFIX`] for as long as it is polled: first all of them, then what changes. A store that cannot
    /// be reached is told once for each reason, and tried again without end, ever more slowly.
    fn follow<'a>(&'a self, told: &'a mpsc::Sender<Told>) -> Doing<'a, ()>;

    /// What a key has now.
    fn read<'a>(&'a self, key: &'a str) -> Doing<'a, Result<Option<Entry>, StoreError>>;

    /// Replaces what a key has, if that is what is expected, in one step that no other writer can come between. The new version.
    fn write<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<Version, StoreError>>;

    /// Removes a key, if it has what is expected. Whether there was anything.
    fn remove<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<bool, StoreError>>;
}

/// A store as it is configured. Nothing is connected yet; names are asked for as `names` says.
pub fn open(store: &config::Store, names: &dns::Settings) -> Arc<dyn Store> {
    match store {
        config::Store::File { directory } => Arc::new(file::Folder::new(directory)),
        config::Store::Redis(redis) => Arc::new(redis::Redis::new(redis, names)),
        config::Store::Postgresql(table) => Arc::new(postgresql::Postgresql::new(table, names)),
    }
}
