//! The admin and metrics listeners and the name server: they come and go with the configuration, as ingress listeners do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info};

use crate::admin::access::CurrentAccess;
use crate::admin::listener::{AdminListener, Copy};
use crate::admin::status::ListenerStatus;
use crate::admin::{self, Answers, Scope};
use crate::config::{AdminAddress, Listeners};
use crate::dns::{Copies, Desk};
use crate::handover::{Kind, Passed};

use super::name_server::{self, NameServer};

/// The listeners around the data path.
pub(super) struct Surroundings {
    answers: Arc<Answers>,
    /// Who may ask the admin listener.
    access: CurrentAccess,
    stop: CancellationToken,
    /// Nothing is answered before it is cancelled.
    opened: CancellationToken,
    /// Sockets of a predecessor, until the first listeners have taken theirs.
    inherited: Vec<Passed>,
    admin: Option<Running>,
    metrics: Option<Running>,
    name_server: NameServer,
}

/// Copies of a listener's sockets, for a successor.
#[derive(Debug)]
pub(super) enum Copied {
    Admin(Arc<Copy>),
    Dns(Arc<Copies>),
}

/// A listener that serves.
struct Running {
    written: AdminAddress,
    bound: Option<SocketAddr>,
    /// For a successor.
    copy: Arc<Copy>,
    /// Ends the listener when it is dropped.
    _stop: DropGuard,
}

/// Listeners that are bound and do not serve yet. Dropping takes them back.
pub(super) struct Prepared {
    admin: Change,
    metrics: Change,
    dns: name_server::Change,
    dns_bound: Option<SocketAddr>,
}

enum Change {
    /// The same address as before.
    Keep(Option<SocketAddr>),
    /// No such listener from now on.
    Remove,
    /// Another address.
    Replace(AdminAddress, AdminListener, Arc<Copy>),
}

/// An address that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {error}")]
pub(super) struct BindError {
    address: Written,
    error: io::Error,
}

impl BindError {
    /// What the operator may do.
    pub(super) const FIX: &str = "stop what listens there (`ss -ltnp` tells), or take another port or path; for a socket file \
         its folder must exist and be writable";
}

impl Surroundings {
    pub(super) fn new(
        answers: Arc<Answers>,
        access: CurrentAccess,
        stop: CancellationToken,
        opened: CancellationToken,
        inherited: Vec<Passed>,
        desk: Desk,
    ) -> Self {
        let name_server = NameServer::new(desk);
        Self { answers, access, stop, opened, inherited, admin: None, metrics: None, name_server }
    }

    /// Binds what is new. `leaving` are addresses that this gateway gives up in the same change.
    pub(super) fn prepare(
        &mut self,
        listeners: &Listeners,
        leaving: &[SocketAddr],
    ) -> Result<Prepared, BindError> {
        let metrics = listeners.metrics.map(AdminAddress::Tcp);
        let mut inherited = std::mem::take(&mut self.inherited);
        let mut sockets = |kind, wanted: Option<&AdminAddress>| {
            let address = Written(wanted?.clone()).to_string();
            let is_it = |passed: &mut Passed| passed.kind == kind && passed.address == address;
            Some(inherited.extract_if(.., is_it).next()?.sockets)
        };
        let admin_socket = sockets(Kind::Admin, Some(&listeners.admin)).and_then(|mut s| s.pop());
        let metrics_socket = sockets(Kind::Metrics, metrics.as_ref()).and_then(|mut s| s.pop());
        let dns = listeners.dns.map(AdminAddress::Tcp);
        let dns_sockets = sockets(Kind::Dns, dns.as_ref());
        let change = self.name_server.prepare(listeners.dns, dns_sockets, &self.opened, &self.stop);
        let change = change.map_err(|error| BindError {
            address: Written(dns.unwrap_or_else(|| listeners.admin.clone())),
            error,
        })?;
        Ok(Prepared {
            dns_bound: change.bound(&self.name_server),
            dns: change,
            admin: prepare(self.admin.as_ref(), Some(&listeners.admin), admin_socket, leaving)?,
            metrics: prepare(self.metrics.as_ref(), metrics.as_ref(), metrics_socket, leaving)?,
        })
    }

    /// Where listeners are bound that these do not keep.
    pub(super) fn leaving(&self, listeners: &Listeners) -> impl Iterator<Item = SocketAddr> {
        let metrics = listeners.metrics.map(AdminAddress::Tcp);
        let admin = self.admin.as_ref().filter(|running| running.written != listeners.admin);
        let metrics =
            self.metrics.as_ref().filter(|running| Some(&running.written) != metrics.as_ref());
        [admin, metrics].into_iter().flatten().filter_map(|running| running.bound)
    }

    /// Serves on what was bound; what is gone from the configuration stops.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        let Self { answers, access, stop, opened, admin, metrics, .. } = self;
        let serve = |listener, scope, stop| {
            let (answers, opened) = (Arc::clone(answers), opened.clone());
            let access = match scope {
                Scope::Admin => Arc::clone(access),
                Scope::Probes => CurrentAccess::default(),
            };
            tokio::spawn(serve(listener, (scope, access), answers, opened, stop));
        };
        commit(admin, prepared.admin, Scope::Admin, stop, &serve);
        commit(metrics, prepared.metrics, Scope::Probes, stop, &serve);
        self.name_server.commit(prepared.dns);
    }

    /// Copies of the sockets, for a successor.
    pub(super) fn copies(&self) -> Vec<(Kind, String, Copied)> {
        let kinds = [(Kind::Admin, &self.admin), (Kind::Metrics, &self.metrics)];
        let running =
            kinds.into_iter().filter_map(|(kind, running)| Some((kind, running.as_ref()?)));
        let around = running.map(|(kind, running)| {
            let copied = Copied::Admin(Arc::clone(&running.copy));
            (kind, Written(running.written.clone()).to_string(), copied)
        });
        let dns = self.name_server.copies();
        let dns = dns.map(|(address, copies)| (Kind::Dns, address, Copied::Dns(copies)));
        around.chain(dns).collect()
    }

    /// What there is, for status.
    pub(super) fn status(&self) -> Vec<ListenerStatus> {
        let kinds = [("metrics", &self.metrics), ("admin", &self.admin)];
        let running =
            kinds.into_iter().filter_map(|(kind, running)| Some((kind, running.as_ref()?)));
        running
            .map(|(kind, running)| ListenerStatus {
                kind: kind.to_owned(),
                address: Written(running.written.clone()).to_string(),
                bound: running.bound.map(|bound| bound.to_string()),
            })
            .chain(self.name_server.status())
            .collect()
    }

    /// Where the admin API answers, as `--admin` takes it.
    pub(super) fn admin_url(&self) -> Option<String> {
        let running = self.admin.as_ref()?;
        Some(match running.bound {
            Some(bound) if self.access.load().tls.is_some() => format!("https://{bound}"),
            Some(bound) => format!("http://{bound}"),
            None => Written(running.written.clone()).to_string(),
        })
    }
}

impl Prepared {
    /// Where TCP listeners are bound.
    pub(super) fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.admin, &self.metrics].into_iter().filter_map(Change::bound).chain(self.dns_bound)
    }
}

impl Copied {
    /// Descriptors to be passed on.
    pub(super) fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        match self {
            Self::Admin(copy) => Ok(vec![copy.socket()?]),
            Self::Dns(copies) => copies.sockets(),
        }
    }

    /// The other process serves now.
    pub(super) fn given(&self) {
        match self {
            Self::Admin(copy) => copy.given(),
            // Nothing but the sockets is to be left to it.
            Self::Dns(_) => {}
        }
    }
}

impl Change {
    fn bound(&self) -> Option<SocketAddr> {
        match self {
            Self::Keep(bound) => *bound,
            Self::Remove => None,
            Self::Replace(_, listener, _) => listener.address(),
        }
    }
}

/// An address as the configuration writes it.
#[derive(Debug, Clone)]
struct Written(AdminAddress);

impl fmt::Display for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AdminAddress::Tcp(address) => write!(out, "{address}"),
            AdminAddress::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

fn prepare(
    running: Option<&Running>,
    wanted: Option<&AdminAddress>,
    inherited: Option<OwnedFd>,
    leaving: &[SocketAddr],
) -> Result<Change, BindError> {
    match (running, wanted) {
        (_, None) => Ok(Change::Remove),
        (Some(running), Some(wanted)) if running.written == *wanted => {
            Ok(Change::Keep(running.bound))
        }
        (_, Some(wanted)) => {
            let listener = bind(wanted, inherited, leaving);
            match listener.and_then(|listener| Ok((Arc::new(listener.copy()?), listener))) {
                Ok((copy, listener)) => Ok(Change::Replace(wanted.clone(), listener, copy)),
                Err(error) => Err(BindError { address: Written(wanted.clone()), error }),
            }
        }
    }
}

fn bind(
    address: &AdminAddress,
    inherited: Option<OwnedFd>,
    leaving: &[SocketAddr],
) -> io::Result<AdminListener> {
    match (address, inherited) {
        (AdminAddress::Tcp(_), Some(socket)) => AdminListener::inherited_tcp(socket),
        (AdminAddress::Unix(path), Some(socket)) => AdminListener::inherited_unix(socket, path),
        (AdminAddress::Tcp(address), None) => AdminListener::tcp(*address, leaving),
        (AdminAddress::Unix(path), None) => AdminListener::unix(path),
    }
}

fn commit(
    place: &mut Option<Running>,
    change: Change,
    scope: Scope,
    stop: &CancellationToken,
    serve: &impl Fn(AdminListener, Scope, CancellationToken),
) {
    match change {
        Change::Keep(_) => {}
        Change::Remove => *place = None,
        Change::Replace(written, listener, copy) => {
            let stop = stop.child_token();
            let bound = listener.address();
            info!(address = %Written(written.clone()), bound = bound.map(tracing::field::display), ?scope, "listening");
            serve(listener, scope, stop.clone());
            *place = Some(Running { written, bound, copy, _stop: stop.drop_guard() });
        }
    }
}

/// Serves once it is this process's turn, until `stop`.
async fn serve(
    listener: AdminListener,
    (scope, access): (Scope, CurrentAccess),
    answers: Arc<Answers>,
    opened: CancellationToken,
    stop: CancellationToken,
) {
    if stop.run_until_cancelled(opened.cancelled()).await.is_none() {
        return;
    }
    if let Err(error) = admin::serve(listener, scope, answers, access, stop).await {
        error!(?scope, %error, "the listener ended");
    }
}
