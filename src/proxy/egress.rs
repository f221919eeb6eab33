//! Listeners of egress addresses: they follow the table that is in force.
//!
//! One socket each, on one core, not one for each core: there may be thousands, and a caller's sidecar keeps one connection for
//! all its calls, so that little is accepted and an app that needs more cores is given more addresses. No address leads to an app while
//! a connection lives that came by it for another one: the caller would take it for the same.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::model::snapshot::Kind;
use crate::routing::table::{Route, Table};
use crate::socket;

use super::asked::told;
use super::callers::AskAgain;
use super::core::Proxy;
use super::listener::{Listening, accept};

/// The metric label of all of them: labels come from the configuration, and addresses are given.
pub const LABEL: &str = "egress";
/// Connections that are closed, because their address changed its app, end at the next tick of their core's engine.
const LOOK: Duration = Duration::from_millis(50);
/// An address that could not be listened at is tried again after this: whatever has its port may go.
const RETRY: Duration = Duration::from_secs(5);

/// One app's hold on one address. Whoever listens for it or carries a connection that came by it has a part in it.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) bind: SocketAddr,
    /// What it speaks is nobody's to know: it may be its server that speaks first.
    pub(super) is_service: bool,
    holder: Arc<str>,
    revoked: AtomicBool,
    /// Ends its connections: it was revoked, or the gateway stops.
    pub(super) stop: CancellationToken,
}

impl Tenure {
    /// Whether the address is to be another app's.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.stop.cancel();
    }
}

/// All egress listeners.
#[derive(Debug, Default)]
pub(super) struct Egress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What the table asks for.
    wanted: BTreeMap<SocketAddr, Holder>,
    open: BTreeMap<SocketAddr, Open>,
    /// Tenures that are over but for their connections.
    past: Vec<Weak<Tenure>>,
    failed: BTreeMap<SocketAddr, (Instant, String)>,
    /// Counts what was opened, so that cores take turns.
    opened: usize,
    /// Somebody looks again and again, as long as anything is missing.
    looking: bool,
}

/// Whose an address is.
#[derive(Debug, Clone)]
struct Holder {
    label: Arc<str>,
    is_service: bool,
}

#[derive(Debug)]
struct Open {
    tenure: Arc<Tenure>,
    listening: Arc<Listening>,
    /// For a successor.
    copies: Vec<TcpListener>,
}

impl Proxy {
    /// Opens and closes egress listeners, so that they are those of the table; what did not change is not touched. What cannot be
    /// opened, or not yet, is tried again.
    pub fn follow_egress(self: &Arc<Self>, table: &Table) {
        let holder = |route: &Route| {
            let (label, is_service) = (Arc::clone(&route.label), route.kind == Kind::Service);
            Holder { label, is_service }
        };
        let wanted = table.egress().map(|at| (at.bind, holder(&at.route)));
        let mut state = self.egress.state();
        state.wanted = wanted.collect();
        self.close_unwanted(&mut state);
        self.open_wanted(&mut state);
        if state.is_lacking() && !mem::replace(&mut state.looking, true) {
            let proxy = Arc::downgrade(self);
            self.spawn_on(0, look(proxy));
        }
        drop(state);
        self.count_listeners();
    }

    /// Has names of callers asked for once more before a client that is none of them is refused. The first one counts.
    pub fn ask_callers_again(&self, ask_again: Box<AskAgain>) {
        let _ = self.shared.callers.ask_again.set(ask_again);
    }

    /// What to do about callers that cannot be told apart, if it seems so.
    pub fn rewriting(&self) -> Option<String> {
        let rewriting = self.shared.callers.rewriting();
        (!rewriting.is_empty()).then(|| told(&rewriting))
    }

    /// Why an egress address is not listened at, if it is not.
    pub fn egress_trouble(&self, bind: SocketAddr) -> Option<String> {
        let state = self.egress.state();
        match (state.open.contains_key(&bind), state.failed.get(&bind)) {
            (true, _) => None,
            (false, Some((_, error))) => Some(error.clone()),
            (false, None) => Some("connections of the app that had it are being closed".to_owned()),
        }
    }

    /// Copies of the sockets, for a successor.
    pub(super) fn egress_copies(&self) -> io::Result<Vec<(SocketAddr, Vec<TcpListener>)>> {
        let state = self.egress.state();
        let copy = |(bind, open): (&SocketAddr, &Open)| {
            let copies = open.copies.iter().map(TcpListener::try_clone);
            Ok((*bind, copies.collect::<io::Result<_>>()?))
        };
        state.open.iter().map(copy).collect()
    }

    fn close_unwanted(&self, state: &mut State) {
        let State { wanted, open, past, .. } = state;
        let is_over = |bind: &SocketAddr, open: &mut Open| {
            wanted.get(bind).is_none_or(|holder| holder.label != open.tenure.holder)
        };
        for (bind, closed) in open.extract_if(.., is_over) {
            past.push(Arc::downgrade(&closed.tenure));
            self.gone().push((bind, Instant::now()));
            closed.listening.stop.cancel();
        }
        past.retain(|tenure| tenure.strong_count() > 0);
    }

    fn open_wanted(&self, state: &mut State) {
        let missing = state.wanted.iter().filter(|(bind, _)| !state.open.contains_key(bind));
        let missing: Vec<_> = missing.map(|(bind, holder)| (*bind, holder.clone())).collect();
        let wanted = &state.wanted;
        state.failed.retain(|bind, _| wanted.contains_key(bind));
        for (bind, holder) in missing {
            if self.is_free(state, bind, &holder.label) && state.is_due(bind) {
                match self.open_egress(bind, holder, state.opened) {
                    Ok(open) => {
                        state.opened += 1;
                        state.failed.remove(&bind);
                        state.open.insert(bind, open);
                    }
                    Err(error) => state.fail(bind, &error),
                }
            }
        }
    }

    /// Whether no connection lives that came by the address for another app. Those that do are closed.
    fn is_free(&self, state: &State, bind: SocketAddr, holder: &Arc<str>) -> bool {
        let tenures = state.past.iter().filter_map(Weak::upgrade);
        let others: Vec<_> =
            tenures.filter(|past| past.bind == bind && past.holder != *holder).collect();
        for other in &others {
            if !other.is_revoked() {
                tracing::warn!(address = %bind, from = &*other.holder, to = &**holder, "an egress address changes its app: its connections are closed first");
                other.revoke();
                self.shared.revoke();
            }
        }
        others.is_empty()
    }

    fn open_egress(&self, bind: SocketAddr, holder: Holder, number: usize) -> io::Result<Open> {
        let mut sockets = self.inherited.take(bind)?;
        let inherited = !sockets.is_empty();
        if !inherited {
            let gone = self.gone().iter().any(|(address, _)| *address == bind);
            if !gone {
                socket::ensure_free(bind)?;
            }
            sockets.push(socket::listen(bind)?);
        }
        let shutdown = &self.shared.shutdown;
        let (revoked, stop) = (AtomicBool::new(false), shutdown.serving());
        let Holder { label, is_service } = holder;
        let tenure = Arc::new(Tenure { bind, is_service, holder: label, revoked, stop });
        let mut listening = Listening::of_egress(Arc::clone(&tenure), shutdown.accepting());
        listening.inherited = inherited;
        let listening = Arc::new(listening);
        let copies = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        for socket in sockets {
            self.accept_on(number, |core| accept(core, Arc::clone(&listening), socket));
        }
        tracing::info!(address = %bind, app = &*tenure.holder, "egress address open");
        Ok(Open { tenure, listening, copies })
    }
}

/// Tries what is missing until nothing is.
async fn look(proxy: Weak<Proxy>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(proxy) = proxy.upgrade() else { return };
        let mut state = proxy.egress.state();
        state.past.retain(|tenure| tenure.strong_count() > 0);
        proxy.open_wanted(&mut state);
        state.looking = state.is_lacking();
        let looking = state.looking;
        drop(state);
        if !looking {
            proxy.count_listeners();
            return;
        }
    }
}

impl Egress {
    /// Nothing new is to be accepted: no copy may keep a socket open.
    pub(super) fn stop_accepting(&self) {
        let mut state = self.state();
        for open in state.open.values_mut() {
            open.copies.clear();
        }
        state.wanted.clear();
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.state().open.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_lacking(&self) -> bool {
        self.wanted.keys().any(|bind| !self.open.contains_key(bind))
    }

    fn is_due(&self, bind: SocketAddr) -> bool {
        self.failed.get(&bind).is_none_or(|(since, _)| since.elapsed() >= RETRY)
    }

    fn fail(&mut self, bind: SocketAddr, error: &io::Error) {
        let text = Failure(bind, error).to_string();
        let known = self.failed.insert(bind, (Instant::now(), text.clone()));
        if known.is_none_or(|(_, before)| before != text) {
            tracing::error!("egress: {text}");
        }
    }
}

/// An address that cannot be listened at, with what to do.
struct Failure<'a>(SocketAddr, &'a io::Error);

impl fmt::Display for Failure<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bind, error) = self;
        write!(out, "cannot listen at {bind}: {error}; ")?;
        let kind = error.kind();
        out.write_str(if kind == io::ErrorKind::AddrInUse {
            "stop what listens there (`ss -ltnp` tells)"
        } else if kind == io::ErrorKind::AddrNotAvailable {
            "this machine does not have the address: for a pool, `ip route add local POOL dev lo`"
        } else {
            "look at the system's limits and privileges"
        })
    }
}
