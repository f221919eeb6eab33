//! The name server's listener: comes and goes with the configuration, as the others do.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::status::ListenerStatus;
use crate::dns::{Copies, Desk, Listener, Server};

/// The one that serves, if there is one.
pub(super) struct NameServer {
    desk: Arc<Desk>,
    running: Option<Running>,
}

struct Running {
    written: SocketAddr,
    bound: SocketAddr,
    copies: Arc<Copies>,
    server: Server,
}

/// What becomes of it. Dropping takes it back.
pub(super) enum Change {
    Keep,
    Remove,
    Replace(Prepared),
}

/// One that is bound and does not serve yet.
pub(super) struct Prepared(Running);

impl NameServer {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk: Arc::new(desk), running: None }
    }

    /// Binds what is new, or takes over the sockets of another process.
    pub(super) fn prepare(
        &self,
        wanted: Option<SocketAddr>,
        inherited: Option<Vec<OwnedFd>>,
        opened: &CancellationToken,
        stop: &CancellationToken,
    ) -> io::Result<Change> {
        let Some(written) = wanted else { return Ok(Change::Remove) };
        if self.running.as_ref().is_some_and(|running| running.written == written) {
            return Ok(Change::Keep);
        }
        let listener = match inherited {
            Some(sockets) => Listener::inherited(sockets)?,
            None => Listener::bind(written)?,
        };
        let (bound, copies) = (listener.address(), Arc::new(listener.copies()?));
        let server = Server::prepare(listener, Arc::clone(&self.desk), opened.clone(), stop)?;
        Ok(Change::Replace(Prepared(Running { written, bound, copies, server })))
    }

    /// Serves on what was bound, or no more.
    pub(super) fn commit(&mut self, change: Change) {
        match change {
            Change::Keep => {}
            Change::Remove => self.running = None,
            Change::Replace(Prepared(running)) => {
                info!(address = %running.written, bound = %running.bound, "answering DNS questions");
                running.server.begin();
                self.running = Some(running);
            }
        }
    }

    /// Copies of the sockets, for a successor, with the address as written.
    pub(super) fn copies(&self) -> Option<(String, Arc<Copies>)> {
        let running = self.running.as_ref()?;
        Some((running.written.to_string(), Arc::clone(&running.copies)))
    }

    /// What there is, for status.
    pub(super) fn status(&self) -> Option<ListenerStatus> {
        let running = self.running.as_ref()?;
        Some(ListenerStatus {
            kind: "dns".to_owned(),
            address: running.written.to_string(),
            bound: Some(running.bound.to_string()),
        })
    }
}

impl Change {
    /// Where it is bound now.
    pub(super) fn bound(&self, server: &NameServer) -> Option<SocketAddr> {
        match self {
            Self::Keep => server.running.as_ref().map(|running| running.bound),
            Self::Remove => None,
            Self::Replace(Prepared(running)) => Some(running.bound),
        }
    }
}
