//! The thread of a core: its tasks, its set of sockets and its engine.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::reactor::{Driver, Reactor, Spawner};

use super::Shared;
use super::core::Core;
use super::engine;

/// What a core waits for its sockets with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// An epoll set of its own.
    Own,
    /// Tokio's, as on other systems.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests run it on Linux too"))]
    Portable,
}

/// What the thread of a core runs until its end.
type Run = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A running core.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) core: Arc<Core>,
    pub(super) spawner: Spawner,
    pub(super) running: Option<JoinHandle<()>>,
}

impl Form {
    fn prepare(self, driver: Arc<Driver>, ended: CancellationToken) -> io::Result<(Spawner, Run)> {
        match self {
            Self::Own => {
                let reactor = Reactor::new()?;
                let spawner = reactor.spawner();
                let run = move || reactor.run(&driver, engine::turn, ended.cancelled());
                Ok((spawner, Box::new(run)))
            }
            Self::Portable => {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let spawner = Spawner::portable(runtime.handle().clone());
                let run = move || {
                    runtime.block_on(ended.cancelled());
                    Ok(())
                };
                Ok((spawner, Box::new(run)))
            }
        }
    }
}

impl Thread {
    /// Starts the thread of a core; it ends with `ended`.
    pub(super) fn start(
        form: Form,
        number: usize,
        shared: &Arc<Shared>,
        driver: &Arc<Driver>,
        ended: &CancellationToken,
    ) -> io::Result<Self> {
        let (spawner, run) = form.prepare(Arc::clone(driver), ended.clone())?;
        let core = Core { shared: Arc::clone(shared), cut: shared.shutdown.serving() };
        let wanted = Arc::clone(shared);
        let (stop, revocations) = (core.cut.clone(), shared.revocations.subscribe());
        let attending = engine::attend(stop, revocations, move || wanted.wanted());
        spawner.spawn(Box::pin(attending));
        let running = thread::Builder::new().name(format!("core-{number}")).spawn(move || {
            if let Err(error) = run() {
                tracing::error!(core = number, %error, "a core has stopped: please restart the gateway");
            }
            engine::clear();
        })?;
        Ok(Self { core: Arc::new(core), spawner, running: Some(running) })
    }
}
