//! Signs that something in some directories has changed.
//!
//! *Directories are watched, not files*: an atomic rename replaces the inode that a watch on the file would be on, and a
//! Kubernetes `ConfigMap` or `Secret` swaps the `..data` link beside it, so such a watch is dead after the first or second
//! change. A sign is only a reason to look: whether something has changed is decided by the contents. A slow poll covers what no
//! watch sees, such as network file systems and the target of a symbolic link.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Between looks when no watch tells anything.
pub const POLL: Duration = Duration::from_secs(10);
/// A change is over when so long nothing more has happened: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// A look comes at the latest so long after the first sign of a change.
const PATIENCE: Duration = Duration::from_millis(200);

/// A watch on directories.
#[derive(Debug)]
pub struct Watch {
    poll: Duration,
    signs: Arc<Notify>,
    /// `None` where the system gives no watch; polling goes on.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// On nothing yet. Gives a reason to look at least once per `poll`.
    pub fn new(poll: Duration) -> Self {
        let signs = Arc::new(Notify::new());
        let watcher = watcher(Arc::clone(&signs));
        Self { poll, signs, watcher }
    }

    /// Watches these directories too. To be asked for again before each look: it costs little and heals a watch whose directory
    /// was replaced, and a change during the look is a sign for the next one.
    pub fn follow(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for directory in directories {
            // A directory that is not there, or no watch left to have: polling covers it.
            let _ = watcher.watch(&directory, RecursiveMode::NonRecursive);
        }
    }

    /// Makes a sign.
    pub fn look_again(&self) {
        self.signs.notify_one();
    }

    /// Returns when there is a reason to look. A change in several steps is one.
    pub async fn sign(&self) {
        tokio::select! {
            biased;
            () = self.signs.notified() => self.settle().await,
            () = sleep(self.poll) => {}
        }
    }

    async fn settle(&self) {
        let patience = Instant::now() + PATIENCE;
        let quiet = async {
            while timeout_at(Instant::now() + QUIET, self.signs.notified()).await.is_ok() {}
        };
        tokio::select! {
            () = quiet => {}
            () = sleep_until(patience) => {}
        }
    }
}

fn watcher(signs: Arc<Notify>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        // An error may be a lost event, so it is a sign as well.
        if event.map_or(true, |event| changes_contents(event.kind)) {
            signs.notify_one();
        }
    };
    notify::recommended_watcher(told).ok()
}

/// Our own reading opens and closes files: taken for a change it would make us read again, for ever.
fn changes_contents(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
