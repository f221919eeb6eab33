//! The way to the owner of what is in force.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::discovery::memory::Sources;
use crate::discovery::{SourceStatus, Update};
use crate::model::name::Name;
use crate::model::snapshot::Routes;
use crate::routing::build::OwnListeners;

use super::ConfigureError;

/// The way to the owner, for sources, configuration and status.
pub struct Handle<S> {
    pub(super) commands: mpsc::Sender<Command<S>>,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) statuses: watch::Sender<Sources>,
    pub(super) hosts: watch::Receiver<Arc<HashSet<Name>>>,
}

impl<S> Handle<S> {
    /// Builds a table at once, with the addresses known so far, and puts it in force: the number of its generation. Says the same
    /// number again when nothing differs. An error leaves everything as it was.
    pub async fn configure(
        &self,
        routes: Arc<Routes>,
        settings: Arc<S>,
        own: OwnListeners,
    ) -> Result<u64, ConfigureError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Configure(Wanted { routes, settings, own }, reply);
        self.commands.send(command).await.map_err(|_| ConfigureError::Stopping)?;
        answer.await.map_err(|_| ConfigureError::Stopping)?
    }

    /// Brings into force what sources have sent by now, without waiting for more.
    pub async fn refresh(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Refresh(reply)).await.is_ok() {
            // An error: the gateway is stopping.
            let _ = done.await;
        }
    }

    /// Where sources send what they know.
    pub fn updates(&self) -> mpsc::Sender<Update> {
        self.updates.clone()
    }

    /// The DNS names that the configuration in force leads to, for the source that resolves them.
    pub fn hosts(&self) -> watch::Receiver<Arc<HashSet<Name>>> {
        self.hosts.clone()
    }

    /// Announces a source, which [`settled`](Self::settled) waits for from now on.
    pub fn expect(&self, source: &str) {
        let name: Arc<str> = source.into();
        self.statuses.send_modify(|statuses| {
            statuses.entry(name).or_insert_with_key(|name| SourceStatus::silent(Arc::clone(name)));
        });
    }

    /// How every source is doing, by name.
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.statuses.borrow().values().cloned().collect()
    }

    /// The same, as it changes.
    pub fn watch_sources(&self) -> watch::Receiver<Sources> {
        self.statuses.subscribe()
    }

    /// Waits until every announced source has spoken and what it said is in force. An outage is an answer too.
    pub async fn settled(&self) {
        let mut statuses = self.statuses.subscribe();
        // Never fails: this handle holds a sender.
        let _ = statuses.wait_for(|all| all.values().all(|status| status.spoken)).await;
    }
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            updates: self.updates.clone(),
            statuses: self.statuses.clone(),
            hosts: self.hosts.clone(),
        }
    }
}

impl<S> fmt::Debug for Handle<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Handle").field("sources", &self.sources()).finish_non_exhaustive()
    }
}

/// What the owner is told to do.
pub(super) enum Command<S> {
    Configure(Wanted<S>, oneshot::Sender<Result<u64, ConfigureError>>),
    Refresh(oneshot::Sender<()>),
}

/// What a configuration asks for.
pub(super) struct Wanted<S> {
    pub(super) routes: Arc<Routes>,
    pub(super) settings: Arc<S>,
    pub(super) own: OwnListeners,
}

impl<S> Wanted<S> {
    /// By identity: the configuration makes new values exactly when something was written anew.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.settings, &other.settings)
            && self.own.bound == other.own.bound
    }
}
