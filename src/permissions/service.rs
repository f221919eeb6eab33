//! What can be done with documents: read, set, change, remove, followed. Writes go to the store; what is in force comes back from
//! there, as with a write of anybody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::model::allowed::{AllowedApps, Document, RemoteApp, Version};
use crate::model::app::AppId;

use super::format::{self, FormatError, key};
use super::in_force::InForce;
use super::store::{Entry, Expected, MOST_BYTES, Store, StoreError, Unreadable};

/// For one answer of the store. Stores have limits of their own; this one is for those that forget it.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a change is made anew because another writer was faster: each time at least one of them has succeeded.
const ATTEMPTS: usize = 16;

/// The documents, for whoever asks.
pub struct Service {
    store: Box<StoreNow>,
    in_force: watch::Receiver<Arc<InForce>>,
}

/// The store that is configured now, if one is.
pub type StoreNow = dyn Fn() -> Option<Arc<dyn Store>> + Send + Sync;

/// What a writer wants to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever is there, or nothing.
    None,
    /// Nothing.
    Absent,
    /// A document, whichever.
    Present,
    /// One of these versions.
    OneOf(Vec<Version>),
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What is there now; nothing where it was removed.
    pub document: Option<Document>,
    /// Whether the store was changed. It was not where it has said so already.
    pub changed: bool,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// There is no store to write to.
    #[error("there is no store: documents stand in the configuration alone")]
    NoStore,
    /// There is no such document.
    #[error("{0} has no document in the store")]
    Absent(AppId),
    /// The precondition does not hold. What is there is told.
    #[error("{}", there(.0.as_ref()))]
    Precondition(Option<Version>),
    /// The store does not do it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What the store has is no document.
    #[error("what is stored for {0} is no document: {1}")]
    Garbled(AppId, FormatError),
    /// The document would be too long.
    #[error("the document of {0} would have {1} bytes, and {MOST_BYTES} are the most")]
    TooLong(AppId, usize),
}

impl Service {
    /// Over a store that may come and go with the configuration, and what is in force.
    pub fn new(store: Box<StoreNow>, in_force: watch::Receiver<Arc<InForce>>) -> Self {
        Self { store, in_force }
    }

    /// What is in force, and what it becomes.
    pub fn follow(&self) -> watch::Receiver<Arc<InForce>> {
        self.in_force.clone()
    }

    /// A document as the store has it now.
    pub async fn get(&self, caller: &AppId) -> Result<Document, ServiceError> {
        let entry = self.read(caller).await?.ok_or_else(|| ServiceError::Absent(caller.clone()))?;
        document(caller, &entry)
    }

    /// Replaces a whole document, or makes it.
    pub async fn set(
        &self,
        says: AllowedApps,
        wanted: &Precondition,
    ) -> Result<Changed, ServiceError> {
        let mut attempts = wanted.attempts();
        loop {
            let expected = self.expected(&says.app, wanted).await?;
            let written = self.write(&says, &expected).await;
            if !attempts.again(&written) {
                let document = Document { version: written?, says };
                return Ok(Changed { document: Some(document), changed: true });
            }
        }
    }

    /// Allows one more app, or the same in other clusters.
    pub async fn allow(
        &self,
        caller: &AppId,
        remote: &RemoteApp,
        wanted: &Precondition,
    ) -> Result<Changed, ServiceError> {
        let change = |says: &mut AllowedApps| match says
            .allowed
            .iter_mut()
            .find(|known| known.app == remote.app)
        {
            Some(known) => known.clone_from(remote),
            None => says.allowed.push(remote.clone()),
        };
        self.change(caller, wanted, change).await
    }

    /// Allows an app no more. A document that allows nothing stays.
    pub async fn revoke(
        &self,
        caller: &AppId,
        target: &AppId,
        wanted: &Precondition,
    ) -> Result<Changed, ServiceError> {
        let change = |says: &mut AllowedApps| says.allowed.retain(|known| known.app != *target);
        self.change(caller, wanted, change).await
    }

    /// Removes a document.
    pub async fn delete(
        &self,
        caller: &AppId,
        wanted: &Precondition,
    ) -> Result<Changed, ServiceError> {
        let (key, mut attempts) = (key(caller), wanted.attempts());
        loop {
            let expected = self.expected(caller, wanted).await?;
            let removed = answered(self.store()?.remove(&key, &expected)).await;
            if !attempts.again(&removed) {
                let changed = removed?;
                let absent = || ServiceError::Absent(caller.clone());
                return changed.then_some(Changed { document: None, changed }).ok_or_else(absent);
            }
        }
    }

    /// Waits until a version is in force; without one, until none is. False where that has not come within the time.
    pub async fn until_in_force(
        &self,
        caller: &AppId,
        version: Option<&Version>,
        within: Duration,
    ) -> bool {
        let mut in_force = self.in_force.clone();
        let reached = in_force.wait_for(|now| now.version(caller) == version);
        timeout(within, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Reads, changes and writes, until nobody comes between.
    async fn change(
        &self,
        caller: &AppId,
        wanted: &Precondition,
        change: impl Fn(&mut AllowedApps),
    ) -> Result<Changed, ServiceError> {
        let mut attempts = wanted.attempts();
        loop {
            let there = self.read(caller).await?;
            let version = there.as_ref().map(|entry| entry.version.clone());
            wanted.check(version.as_ref())?;
            let before = there.map(|entry| document(caller, &entry)).transpose()?;
            let nothing = || AllowedApps { app: caller.clone(), allowed: Vec::new() };
            let said = before.as_ref().map_or_else(nothing, |document| document.says.clone());
            let mut says = said.clone();
            change(&mut says);
            if says == said {
                return Ok(Changed { document: before, changed: false });
            }
            let expected = version.map_or(Expected::Nothing, Expected::Version);
            let written = self.write(&says, &expected).await;
            if !attempts.again(&written) {
                let document = Document { version: written?, says };
                return Ok(Changed { document: Some(document), changed: true });
            }
        }
    }

    /// What has to be expected of the store for what is wanted.
    async fn expected(
        &self,
        caller: &AppId,
        wanted: &Precondition,
    ) -> Result<Expected, ServiceError> {
        Ok(match wanted {
            Precondition::None => Expected::Anything,
            Precondition::Absent => Expected::Nothing,
            Precondition::Present | Precondition::OneOf(_) => {
                let there = self.read(caller).await?.map(|entry| entry.version);
                wanted.check(there.as_ref())?;
                there.map_or(Expected::Nothing, Expected::Version)
            }
        })
    }

    fn store(&self) -> Result<Arc<dyn Store>, ServiceError> {
        (self.store)().ok_or(ServiceError::NoStore)
    }

    async fn read(&self, caller: &AppId) -> Result<Option<Entry>, ServiceError> {
        let (store, key) = (self.store()?, key(caller));
        answered(store.read(&key)).await
    }

    async fn write(
        &self,
        says: &AllowedApps,
        expected: &Expected,
    ) -> Result<Version, ServiceError> {
        let (store, key, text) = (self.store()?, key(&says.app), format::text(says));
        if text.len() > MOST_BYTES {
            return Err(ServiceError::TooLong(says.app.clone(), text.len()));
        }
        answered(store.write(&key, &text, expected)).await
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Precondition {
    fn check(&self, there: Option<&Version>) -> Result<(), ServiceError> {
        let holds = match self {
            Self::None => true,
            Self::Absent => there.is_none(),
            Self::Present => there.is_some(),
            Self::OneOf(versions) => there.is_some_and(|there| versions.contains(there)),
        };
        if holds { Ok(()) } else { Err(ServiceError::Precondition(there.cloned())) }
    }

    fn attempts(&self) -> Attempts {
        Attempts(match self {
            // The writer does not mind what is there, so that another one was faster is not his concern.
            Self::None | Self::Present => ATTEMPTS,
            Self::Absent | Self::OneOf(_) => 1,
        })
    }
}

/// How often it is still tried.
struct Attempts(usize);

impl Attempts {
    /// Whether to try again, because another writer came between.
    fn again<T>(&mut self, tried: &Result<T, ServiceError>) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0 && matches!(tried, Err(ServiceError::Store(StoreError::Conflict(_))))
    }
}

/// What a store answers, within bounds. What it has done by then, nobody knows.
async fn answered<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, ServiceError> {
    let silent = |_| {
        let seconds = ANSWER.as_secs();
        StoreError::Unavailable(format!("the store has not answered within {seconds} s"))
    };
    Ok(timeout(ANSWER, answer).await.map_err(silent).flatten()?)
}

fn document(caller: &AppId, entry: &Entry) -> Result<Document, ServiceError> {
    let unreadable = |error: &Unreadable| FormatError {
        line: 1,
        column: 1,
        message: error.to_string(),
        fix: "write a document there".into(),
    };
    let text = entry.value.as_ref().map_err(unreadable);
    let says = text.and_then(|text| format::parse(caller, text));
    let says = says.map_err(|error| ServiceError::Garbled(caller.clone(), error))?;
    Ok(Document { says, version: entry.version.clone() })
}

fn there(version: Option<&Version>) -> String {
    match version {
        None => "another version was expected, and there is no document".to_owned(),
        Some(version) => format!("another version was expected, and there is {version}"),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
