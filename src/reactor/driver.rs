//! What moves Tokio's timers for the cores, whose own threads wait in sets of their own.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio_util::sync::CancellationToken;

/// A Tokio runtime on a thread of its own. A core's tasks find it as theirs, so that timers just work; those that fire wake the core.
/// Dropped after the cores: a timer that outlives it panics.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    ended: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts its thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let end = ended.clone();
        let running = thread::Builder::new()
            .name("timers".into())
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(Self { handle, ended, running: Some(running) })
    }

    /// Makes it the runtime of this thread.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.ended.cancel();
        // Its panic, if that ended it, has been reported by the hook.
        let _ = self.running.take().map(JoinHandle::join);
    }
}
