//! Taking over from a running gateway, and being taken over: whose turn it is to accept.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::handover::{Kind, Offer, Outgoing, Passed, Predecessor};

use super::{Parts, StartError, readiness, service};

/// What this process was given at its start.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub(super) predecessor: Option<Predecessor>,
    /// Sockets of ingress listeners, with the address that each is for.
    pub(super) ingress: Vec<(SocketAddr, TcpListener)>,
    /// Sockets of the listeners around.
    pub(super) around: Vec<Passed>,
}

impl Inheritance {
    /// Joins what a service manager has passed with what a running gateway passes, if one does.
    pub(super) async fn collect(
        path: Option<&Path>,
        activated: Vec<TcpListener>,
    ) -> Result<Self, StartError> {
        let mut inheritance = Self::default();
        for listener in activated {
            inheritance.ingress.push((listener.local_addr()?, listener));
        }
        let Some(path) = path.map(Path::to_owned) else { return Ok(inheritance) };
        let asked = path.clone();
        let asked = tokio::task::spawn_blocking(move || Predecessor::ask(&asked)).await;
        let found = asked.map_err(io::Error::other)?.map_err(|error| {
            let message = format!("no hand-over from the gateway at {}: {error}", path.display());
            io::Error::new(error.kind(), message)
        })?;
        if let Some((predecessor, passed)) = found {
            info!(pid = predecessor.pid, "taking over from a running gateway");
            inheritance.predecessor = Some(predecessor);
            for passed in passed {
                inheritance.add(passed);
            }
        }
        Ok(inheritance)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.predecessor.is_none() && self.ingress.is_empty()
    }

    fn add(&mut self, passed: Passed) {
        match (passed.kind, passed.address.parse()) {
            (Kind::Ingress, Ok(address)) => {
                let listeners = passed.sockets.into_iter().map(TcpListener::from);
                self.ingress.extend(listeners.map(|listener| (address, listener)));
            }
            (Kind::Ingress, Err(_)) => warn!(address = ?passed.address, "not an address: ignored"),
            (Kind::Admin | Kind::Metrics | Kind::Dns, _) => self.around.push(passed),
        }
    }
}

/// Waits until this process is ready, has it accept, relieves the predecessor and lets a successor ask.
pub(super) async fn begin(
    parts: Arc<Parts>,
    predecessor: Option<Predecessor>,
    stop: CancellationToken,
) {
    if !readiness::when_sources_have_spoken(&parts, &stop).await {
        return;
    }
    // Before the other one stops: both accept for a moment, so that nobody does at none.
    parts.opened.cancel();
    if let Some(predecessor) = predecessor {
        let relieved = tokio::task::spawn_blocking(move || predecessor.relieve()).await;
        match relieved.map_err(io::Error::other).flatten() {
            Ok(()) => info!("the other gateway accepts nothing any more"),
            // It is gone, or it goes on: connections are served by either.
            Err(error) => warn!(%error, "the other gateway did not confirm the hand-over"),
        }
    }
    service::ready(parts.live.load().table.len());
    if let Some(path) = &parts.options.handover {
        match Offer::new(path, Current(Arc::downgrade(&parts))) {
            Ok(offer) => {
                *parts.offer.lock().unwrap_or_else(PoisonError::into_inner) = Some(offer);
                info!(path = %path.display(), "a successor may ask for the listeners");
            }
            Err(error) => {
                error!(path = %path.display(), %error, "no successor can take over: a restart will refuse connections");
            }
        }
    }
}

/// This gateway as its successor sees it. Weak: the gateway holds the offer.
struct Current(Weak<Parts>);

impl Outgoing for Current {
    fn sockets(&self) -> io::Result<Vec<Passed>> {
        let parts = self.0.upgrade().ok_or_else(|| io::Error::other("the gateway has ended"))?;
        let mut passed = Vec::new();
        for (address, listeners) in parts.proxy.copies()? {
            let sockets = listeners.into_iter().map(OwnedFd::from).collect();
            passed.push(Passed { kind: Kind::Ingress, address: address.to_string(), sockets });
        }
        for (kind, address, copy) in &*parts.copies.lock().unwrap_or_else(PoisonError::into_inner) {
            let (address, sockets) = (address.clone(), copy.sockets()?);
            passed.push(Passed { kind: *kind, address, sockets });
        }
        Ok(passed)
    }

    fn relieved(&self, pid: u32) {
        let Some(parts) = self.0.upgrade() else { return };
        info!(pid, "relieved: another gateway accepts from now on");
        for (_, _, copy) in &*parts.copies.lock().unwrap_or_else(PoisonError::into_inner) {
            copy.given();
        }
        parts.around_stop.cancel();
        parts.proxy.give_listeners();
        service::main_process(pid);
    }

    fn dismissed(&self) {
        if let Some(parts) = self.0.upgrade() {
            parts.relieved.cancel();
        }
    }
}
