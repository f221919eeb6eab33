//! Signs that something in some directories has changed.
//!
//! *Directories are watched, not files*: an atomic rename replaces the inode that a watch on the file would be on, and a
//! Kubernetes `ConfigMap` or `Secret` swaps the `..data` link beside it, so such a watch is dead after the first or second
//! change. A sign is only a reason to look: whether something has changed is decided by the contents. A slow poll covers what no
//! watch sees, such as network file systems and the target of a symbolic link.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

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
    signs: Arc<Signs>,
    /// `None` where the system gives no watch; polling goes on.
    watcher: Option<RecommendedWatcher>,
}

/// What the system tells.
#[derive(Debug, Default)]
struct Signs {
    told: Notify,
    /// The last of them was a name that another file was given.
    renamed: AtomicBool,
}

/// A reason to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A change is over, or it is time again.
    Over,
    /// A file was put in another's place, which is there as a whole; more of the same change may follow.
    Replaced,
}

impl Watch {
    /// On nothing yet. Gives a reason to look at least once per `poll`.
    pub fn new(poll: Duration) -> Self {
        let signs = Arc::<Signs>::default();
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
        self.signs.told.notify_one();
    }

    /// Returns when there is a reason to look. A change in several steps is one.
    pub async fn sign(&self) {
        if self.change().await == Reason::Replaced {
            self.calm().await;
        }
    }

    /// Returns when there is a reason to look, which may be before a change is over: see [`calm`](Self::calm).
    pub async fn change(&self) -> Reason {
        tokio::select! {
            biased;
            () = self.signs.told.notified() => self.settle().await,
            () = sleep(self.poll) => Reason::Over,
        }
    }

    async fn settle(&self) -> Reason {
        let patience = Instant::now() + PATIENCE;
        while !self.signs.renamed.load(Ordering::Acquire) {
            if !self.signs.follow_soon(patience).await {
                return Reason::Over;
            }
        }
        Reason::Replaced
    }

    /// Returns when a change is over, and whether more of it has followed from now on.
    pub fn calm(&self) -> impl Future<Output = bool> + use<> {
        let signs = Arc::clone(&self.signs);
        async move {
            let patience = Instant::now() + PATIENCE;
            let mut followed = false;
            while signs.follow_soon(patience).await {
                followed = true;
            }
            followed
        }
    }
}

impl Signs {
    /// Waits for a further one; for as long as a change rests between its steps, and not beyond `patience`.
    async fn follow_soon(&self, patience: Instant) -> bool {
        let now = Instant::now();
        let until = patience.min(now + QUIET);
        now < patience && timeout_at(until, self.told.notified()).await.is_ok()
    }
}

fn watcher(signs: Arc<Signs>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        // An error may be a lost event, so it is a sign as well.
        let kind = event.map_or(EventKind::Any, |event| event.kind);
        if changes_contents(kind) {
            let renamed = matches!(kind, EventKind::Modify(ModifyKind::Name(_)));
            signs.renamed.store(renamed, Ordering::Release);
            signs.told.notify_one();
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
