//! All cores, and the listeners that they share.

use std::fmt;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::config::{Ingress, Limits, OnRevoke, Settings};
use crate::reactor::Driver;
use crate::socket;

use super::Shared;
use super::admission::Usage;
use super::egress::Egress;
use super::inherited::Inherited;
use super::listener::{Listening, accept};
use super::thread::{Form, Thread};

/// So long sockets of a listener that went may listen: until handshakes have ended, on a loaded machine.
const LINGERING: Duration = Duration::from_secs(5);

/// The running data path.
///
/// Each core has a runtime and a listening socket of its own: a connection lives and dies on the core that accepted it, so that
/// nothing on its way takes a lock that another core holds for long.
#[derive(Debug)]
pub struct Proxy {
    pub(super) shared: Arc<Shared>,
    threads: Vec<Thread>,
    listeners: Mutex<Vec<Listed>>,
    pub(super) inherited: Inherited,
    pub(super) egress: Egress,
    /// Where listeners were that went, and when: for a moment their sockets still listen.
    gone: Mutex<Vec<(SocketAddr, Instant)>>,
    /// Ends the threads.
    ended: CancellationToken,
}

/// What a core's connections share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    /// Closes this core's connections.
    pub(super) cut: CancellationToken,
}

/// A listener in force.
#[derive(Debug)]
struct Listed {
    ingress: Ingress,
    bound: SocketAddr,
    listening: Arc<Listening>,
    /// Copies of the sockets that its loops accept from, for a successor. As long as one lives, the socket listens: they go first.
    copies: Vec<TcpListener>,
}

/// What becomes of one of the wanted listeners.
#[derive(Debug)]
enum Step {
    /// It is there, at this place of the list.
    Keep(usize),
    /// It is bound, at least one socket a core, each with a copy, and waits for its accept loops.
    Open(Bound),
}

/// The sockets of a new listener.
#[derive(Debug)]
struct Bound {
    address: SocketAddr,
    /// Some are of another process.
    inherited: bool,
    sockets: Vec<[TcpListener; 2]>,
}

/// Wanted listeners of which the new ones are bound, not yet at work. Dropping it closes those again.
#[derive(Debug)]
pub struct Prepared(Vec<(Ingress, SocketAddr, Step)>);

impl Prepared {
    /// Where the listeners are bound: ports are real.
    pub fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(_, bound, _)| *bound)
    }
}

/// An address that cannot be listened at. Nothing has changed.
#[derive(Debug)]
pub struct ApplyError {
    /// The address as configured.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

impl Proxy {
    /// Starts `cores` threads, without a listener.
    pub fn start(cores: usize, shared: Arc<Shared>) -> io::Result<Self> {
        Self::start_as(Form::Own, cores, shared)
    }

    pub(super) fn start_as(form: Form, cores: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (ended, listeners) = (CancellationToken::new(), Mutex::default());
        // Made before the first thread: dropped with an error, it ends those that did start.
        let (inherited, gone) = (Inherited::default(), Mutex::default());
        let driver = Arc::new(Driver::start()?);
        let (threads, egress) = (Vec::new(), Egress::default());
        let mut proxy = Self { shared, threads, listeners, inherited, egress, gone, ended };
        for number in 0..cores.max(1) {
            let thread = Thread::start(form, number, &proxy.shared, &driver, &proxy.ended)?;
            proxy.threads.push(thread);
        }
        Ok(proxy)
    }

    /// Gives it listening sockets that another process has bound, with the addresses that they are for: listeners with these take
    /// them instead of binding their own, all of them however many there are.
    pub fn inherit(&self, sockets: Vec<(SocketAddr, TcpListener)>) {
        self.inherited.add(sockets);
    }

    /// Closes inherited sockets that no listener wanted; their addresses.
    pub fn forget_inherited(&self) -> Vec<SocketAddr> {
        self.inherited.forget()
    }

    /// Copies of all listening sockets, with the address as configured.
    pub fn copies(&self) -> io::Result<Vec<(SocketAddr, Vec<TcpListener>)>> {
        let copy = |listed: &Listed| {
            let copies = listed.copies.iter().map(TcpListener::try_clone);
            Ok((listed.ingress.address, copies.collect::<io::Result<_>>()?))
        };
        let ingress: io::Result<Vec<_>> = self.listed().iter().map(copy).collect();
        let mut copies = ingress?;
        copies.extend(self.egress_copies()?);
        Ok(copies)
    }

    /// Binds what is new among the wanted listeners: all of it or, when one cannot be bound, nothing. Only [`commit`](Self::commit)
    /// changes what is accepted; one owner calls the two in turn. `leaving` is what listeners of another kind give up in the same
    /// change: it may be taken over.
    pub fn prepare(
        &self,
        wanted: &[Ingress],
        leaving: &[SocketAddr],
    ) -> Result<Prepared, ApplyError> {
        let listed = self.listed();
        let steps = self.bind(&listed, wanted, leaving)?;
        let place = |(step, ingress): (Step, &Ingress)| {
            let bound = match &step {
                Step::Keep(at) => listed.get(*at).map_or(ingress.address, |kept| kept.bound),
                Step::Open(bound) => bound.address,
            };
            (ingress.clone(), bound, step)
        };
        Ok(Prepared(steps.into_iter().zip(wanted).map(place).collect()))
    }

    /// Makes the prepared listeners those in force. One whose address stays is not bound again, a removed one stops accepting, and
    /// connections live on in any case. Once accepting has been stopped nothing begins any more.
    pub fn commit(&self, prepared: Prepared) {
        let mut listed = self.listed();
        if self.closed().is_cancelled() {
            return;
        }
        let mut old: Vec<_> = mem::take(&mut *listed).into_iter().map(Some).collect();
        for (ingress, _, step) in prepared.0 {
            listed.extend(match step {
                Step::Keep(at) => {
                    old.get_mut(at).and_then(Option::take).map(|kept| kept.changed(&ingress))
                }
                Step::Open(bound) => Some(self.open(&ingress, bound)),
            });
        }
        for removed in old.into_iter().flatten() {
            self.gone().push((removed.bound, Instant::now()));
            removed.listening.stop.cancel();
        }
        drop(listed);
        self.count_listeners();
    }

    /// Prepares and commits.
    pub fn apply(&self, wanted: &[Ingress]) -> Result<(), ApplyError> {
        self.prepare(wanted, &[]).map(|prepared| self.commit(prepared))
    }

    /// The listeners with the addresses that they really have: a port of 0 is resolved.
    pub fn bound(&self) -> Vec<(Ingress, SocketAddr)> {
        self.listed().iter().map(|listed| (listed.ingress.clone(), listed.bound)).collect()
    }

    /// Connections that have not ended, those that are being refused included.
    pub fn open_connections(&self) -> usize {
        self.shared.shutdown.open_connections()
    }

    /// Connections that were admitted and have not ended.
    pub fn admitted(&self) -> usize {
        self.shared.admission.open()
    }

    /// How far the limits in force are used, and `busiest`, the sources with most connections.
    pub fn usage(&self, busiest: usize) -> Vec<Usage> {
        let limits = &self.shared.live.settings().limits;
        let mut usage = self.shared.admission.usage(limits, busiest);
        let of = |listed: &Listed| {
            let listening = &listed.listening;
            Usage::of_listener(&listening.label, &listening.open, limits)
        };
        usage.extend(self.listed().iter().map(of));
        usage
    }

    /// The process's limit of file descriptors and the most connections in force, where that is less than `limits.connections`.
    pub fn lowered(&self, limits: &Limits) -> Option<(usize, usize)> {
        let most = self.shared.admission.most(limits);
        (most < limits.connections).then(|| (self.shared.admission.descriptors.all(), most))
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.ids.made()
    }

    /// Another process accepts from the same sockets from now on: stops to accept from them, and leaves them open for it.
    pub fn give_listeners(&self) {
        self.shared.given.store(true, Ordering::Release);
        self.stop_accepting();
    }

    /// Closes all listeners; connections live on.
    pub fn stop_accepting(&self) {
        // Held to the end, so that no listener comes in between.
        let mut listed = self.listed();
        for listed in &mut *listed {
            listed.copies.clear();
        }
        self.egress.stop_accepting();
        self.shared.shutdown.stop_accepting();
    }

    /// Cancelled once accepting has been stopped.
    pub fn closed(&self) -> CancellationToken {
        self.shared.shutdown.accepting()
    }

    /// Waits until accepting has been stopped and the last connection has ended.
    pub async fn drained(&self) {
        self.shared.shutdown.drained().await;
    }

    /// Closes connections between two calls, spread over the time until `by`; what is never quiet lives on.
    pub fn close_quiet_ones(&self, by: Instant) {
        // Set once: a later one is another drain of the same gateway, which there is not.
        let _ = self.shared.drained_by.set(by);
        self.shared.draining.cancel();
    }

    /// Closes everything that still lives.
    pub fn cut(&self) {
        self.shared.shutdown.cut();
    }

    /// Something else is in force: has every connection asked whether it may live on, where the operator wants that.
    pub fn review(&self, settings: &Settings) {
        match settings.on_revoke {
            OnRevoke::Close => self.shared.revoke(),
            OnRevoke::Keep => {}
        }
    }

    pub(super) fn gone(&self) -> MutexGuard<'_, Vec<(SocketAddr, Instant)>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a core do something; cores take turns by number.
    pub(super) fn spawn_on(&self, number: usize, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(thread) = self.threads.get(number % self.threads.len().max(1)) {
            thread.spawner.spawn(Box::pin(work));
        }
    }

    /// Tells how many sockets listen: their descriptors are no connection's. One of an egress address has a single core, and a copy.
    pub(super) fn count_listeners(&self) {
        let cores = self.threads.len().max(1);
        let listeners = self.listed().len() + (self.egress.count() * 2).div_ceil(cores);
        self.shared.admission.descriptors.refresh();
        self.shared.admission.descriptors.listen(cores, listeners);
    }

    /// Has a core accept; cores take turns by number.
    pub(super) fn accept_on<F: Future<Output = ()> + Send + 'static>(
        &self,
        number: usize,
        accept: impl FnOnce(Arc<Core>) -> F,
    ) {
        if let Some(thread) = self.threads.get(number % self.threads.len().max(1)) {
            let accept = accept(Arc::clone(&thread.core));
            thread.spawner.spawn(Box::pin(self.shared.shutdown.acceptor(accept)));
        }
    }

    fn listed(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds those that are there and binds the others.
    fn bind(
        &self,
        listed: &[Listed],
        wanted: &[Ingress],
        leaving: &[SocketAddr],
    ) -> Result<Vec<Step>, ApplyError> {
        let mut steps: Vec<Step> = Vec::with_capacity(wanted.len());
        let mut own: Vec<SocketAddr> = listed.iter().map(|listed| listed.bound).collect();
        self.gone().retain(|(_, since)| since.elapsed() < LINGERING);
        let gone: Vec<_> = self.gone().iter().map(|(address, _)| *address).collect();
        let leaving = [leaving, &gone].concat();
        for ingress in wanted {
            let address = ingress.address;
            let taken =
                |at| steps.iter().any(|step| matches!(step, Step::Keep(kept) if *kept == at));
            let mut there =
                listed.iter().enumerate().filter(|(_, old)| old.ingress.address == address);
            let step = match there.find(|&(at, _)| !taken(at)) {
                Some((at, _)) => Step::Keep(at),
                None => self
                    .listen(address, &own, &leaving)
                    .map_err(|error| ApplyError { address, error })?,
            };
            if let Step::Open(bound) = &step {
                own.push(bound.address);
            }
            steps.push(step);
        }
        Ok(steps)
    }

    /// Takes what was inherited for the address, or binds one socket for each core. `own` is what this gateway listens at: an
    /// address that overlaps with one of those, such as all addresses instead of one, can be bound beside it; beside a stranger's
    /// it must not be.
    fn listen(
        &self,
        address: SocketAddr,
        own: &[SocketAddr],
        leaving: &[SocketAddr],
    ) -> io::Result<Step> {
        if own.contains(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let mut listeners = self.inherited.take(address)?;
        let inherited = !listeners.is_empty();
        let strangers = own.iter().chain(leaving).all(|own| own.port() != address.port());
        if !inherited && strangers {
            socket::ensure_free(address)?;
        }
        let mut address = listeners.first().map_or(Ok(address), TcpListener::local_addr)?;
        // Beside inherited ones too, where this process has more cores.
        while listeners.len() < self.threads.len() {
            let listener = match (socket::listen(address), listeners.first()) {
                // A service manager's socket shares its address with no other unless it was told to: cores share the socket.
                (Err(error), Some(first)) if error.kind() == io::ErrorKind::AddrInUse => {
                    first.try_clone()?
                }
                (listener, _) => listener?,
            };
            address = listener.local_addr()?;
            listeners.push(listener);
        }
        let copied = listeners.into_iter().map(|listener| Ok([listener.try_clone()?, listener]));
        let sockets = copied.collect::<io::Result<_>>()?;
        Ok(Step::Open(Bound { address, inherited, sockets }))
    }

    /// Starts to accept.
    fn open(&self, ingress: &Ingress, bound: Bound) -> Listed {
        let shutdown = &self.shared.shutdown;
        let mut listening =
            Listening::new(ingress.address, &ingress.proxy_from, shutdown.accepting());
        listening.inherited = bound.inherited;
        let listening = Arc::new(listening);
        let mut copies = Vec::with_capacity(bound.sockets.len());
        // Another process may have had more cores: every socket is accepted from, or what its queue holds would wait forever.
        for (thread, [listener, copy]) in self.threads.iter().cycle().zip(bound.sockets) {
            copies.push(copy);
            let accept = accept(Arc::clone(&thread.core), Arc::clone(&listening), listener);
            thread.spawner.spawn(Box::pin(shutdown.acceptor(accept)));
        }
        Listed { ingress: ingress.clone(), bound: bound.address, listening, copies }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.cancel();
        for thread in &mut self.threads {
            // Its panic, if that ended it, has been reported by the hook.
            let _ = thread.running.take().map(JoinHandle::join);
        }
    }
}

impl Listed {
    /// The same listener with other settings.
    fn changed(mut self, ingress: &Ingress) -> Self {
        if self.ingress != *ingress {
            self.listening.trust(&ingress.proxy_from);
            self.ingress = ingress.clone();
        }
        self
    }
}

impl ApplyError {
    /// What the operator may do.
    pub fn fix(&self) -> &'static str {
        let kind = self.error.kind();
        if kind == io::ErrorKind::AddrInUse {
            "something listens there already (`ss -ltnp` tells what): stop it, or take another port"
        } else if kind == io::ErrorKind::AddrNotAvailable {
            "this machine does not have the address: take one that it has, or [::] for all of them"
        } else if kind == io::ErrorKind::PermissionDenied {
            "ports below 1024 need a privilege: take a higher one and let a Service or load balancer map to it"
        } else {
            "look at the system's limits, or take another address"
        }
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot listen at {}: {}", self.address, self.error)
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
