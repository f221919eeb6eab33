//! The data path: accept → hello → route → policy → dial → relay → record. `connection` tells it; [`Proxy`] runs it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Current, Inquiry};
use crate::config::Settings;
use crate::routing::live::Live;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;

mod admission;
mod asked;
mod awaited;
mod buffer;
mod callers;
mod connection;
mod core;
mod dial;
mod egress;
mod engine;
pub mod hello;
mod id;
mod incoming;
mod inherited;
mod link;
mod listener;
mod places;
mod record;
mod refuse;
mod relay;
mod renamed;
#[cfg(test)]
mod tests;
mod thread;

pub use self::admission::Usage;
pub use self::callers::AskAgain;
pub use self::core::{ApplyError, Prepared, Proxy};
pub use self::egress::LABEL as EGRESS_LABEL;

pub(crate) use connection::EXCHANGE;

/// What all connections of one gateway share.
#[derive(Debug)]
pub struct Shared {
    /// What is in force.
    pub live: Arc<Live<Settings>>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where refusals are kept for a while.
    pub refusals: Arc<Refusals>,
    /// What links are opened and accepted with.
    pub links: Arc<Current>,
    /// Where links go on which another gateway asks what is exported.
    inquiries: link::inquiries::Inquiries,
    shutdown: Shutdown,
    ids: id::Ids,
    admission: admission::Admission,
    complaints: admission::Complaints,
    /// Refused connections that are listened to until they stop.
    discarding: places::Places,
    dialling: dial::Dialling,
    callers: callers::Callers,
    /// Counts what may have taken connections' right to live: egress addresses and names that changed their app, permissions that
    /// changed.
    revocations: watch::Sender<u64>,
    /// Nothing is accepted before it is cancelled.
    opened: CancellationToken,
    /// Another process accepts from the listeners' sockets.
    given: AtomicBool,
    /// When a drain is to be over, once there is one.
    drained_by: OnceLock<Instant>,
    /// Cancelled when there is one.
    draining: CancellationToken,
}

impl Shared {
    /// For one [`Proxy`].
    pub fn new(live: Arc<Live<Settings>>, metrics: Arc<Metrics>, refusals: Arc<Refusals>) -> Self {
        let opened = CancellationToken::new();
        opened.cancel();
        Self {
            live,
            metrics,
            refusals,
            links: Arc::default(),
            inquiries: link::inquiries::Inquiries::new(mpsc::channel(1).0),
            shutdown: Shutdown::new(),
            ids: id::Ids::new(),
            admission: admission::Admission::new(admission::Descriptors::new()),
            complaints: admission::Complaints::default(),
            discarding: places::Places::default(),
            dialling: dial::Dialling::default(),
            callers: callers::Callers::default(),
            revocations: watch::Sender::default(),
            opened,
            given: AtomicBool::new(false),
            drained_by: OnceLock::new(),
            draining: CancellationToken::new(),
        }
    }

    /// What other gateways ask goes there; without it they are refused.
    #[must_use]
    pub fn asked_at(self, inquiries: mpsc::Sender<Inquiry>) -> Self {
        Self { inquiries: link::inquiries::Inquiries::new(inquiries), ..self }
    }

    /// Nothing is to be accepted until `opened` is cancelled: listeners queue what comes.
    #[must_use]
    pub fn closed_until(self, opened: CancellationToken) -> Self {
        Self { opened, ..self }
    }

    /// Has every connection asked whether it may live on.
    fn revoke(&self) {
        self.revocations.send_modify(|revocations| *revocations = revocations.wrapping_add(1));
    }

    /// Waits until a connection has to end.
    async fn revoked(&self, record: &record::Record) {
        let mut revocations = self.revocations.subscribe();
        while !record.is_revoked() {
            // Never fails: the sender is here.
            let _ = revocations.changed().await;
        }
    }

    /// Which connections are to be closed when they are quiet.
    fn wanted(&self) -> engine::Wanted {
        let settings = self.live.settings();
        let (max_age, patience) = (settings.limits.max_age, settings.limits.first_byte_timeout);
        let revocations = *self.revocations.borrow();
        let drained_by = self.drained_by.get().copied();
        engine::Wanted { drained_by, max_age, revocations, patience }
    }
}
