//! The thread of a core: its runtime, its set of sockets and its engine.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::reactor::Reactor;

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

/// A running core.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) core: Arc<Core>,
    pub(super) runtime: Handle,
    pub(super) running: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts the thread of a core; it ends with `ended`.
    pub(super) fn start(
        form: Form,
        number: usize,
        shared: &Arc<Shared>,
        ended: &CancellationToken,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let ended = ended.clone();
        let reactor = match form {
            Form::Own => Some(Reactor::new(&runtime)?),
            Form::Portable => None,
        };
        let core = Core { shared: Arc::clone(shared), cut: shared.shutdown.serving() };
        let wanted = Arc::clone(shared);
        handle.spawn(engine::attend(core.cut.clone(), move || wanted.wanted()));
        let run = move || {
            if let Some(reactor) = reactor {
                return reactor.run(&runtime, engine::turn, ended.cancelled());
            }
            runtime.block_on(ended.cancelled());
            Ok(())
        };
        let running = thread::Builder::new().name(format!("core-{number}")).spawn(move || {
            if let Err(error) = run() {
                tracing::error!(core = number, %error, "a core has stopped: please restart the gateway");
            }
            engine::clear();
        })?;
        Ok(Self { core: Arc::new(core), runtime: handle, running: Some(running) })
    }
}
