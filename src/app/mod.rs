//! Composition root: the only place where the control side, the data side and what stands around them are joined.

mod answers;
mod control;
mod exchange;
mod guarding;
mod links;
mod name_server;
mod offline;
mod permissions;
mod readiness;
mod service;
mod succession;
mod surroundings;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::status::ListenerStatus;
use crate::cluster::Current;
use crate::config::{Problem, Settings};
use crate::discovery::exchange as inquiring;
use crate::discovery::{aggregate, dns, file, memory};
use crate::dns::Desk;
use crate::handover::{Kind, Offer};
use crate::health::Probes;
use crate::permissions::InForce;
use crate::permissions::follow::{self as allowed_apps, Rejections};
use crate::proxy::{AskAgain, EXCHANGE, Proxy, Shared};
use crate::routing::live::Live;
use crate::routing::table::Peer;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;

use control::{Configuration, Control, SourceSettings};
use guarding::Guarding;
use links::{Expiries, Linking};
use readiness::Readiness;
use succession::Inheritance;
use surroundings::{Copied, Surroundings};

pub use offline::{Offline, check, offline, offline_with_egress};

/// Links that wait for who answers what other gateways ask. It takes each at once.
const INQUIRIES: usize = 16;

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// File or directory of the configuration.
    pub config: PathBuf,
    /// Number of data threads, at least 1.
    pub cores: usize,
    /// A socket file: the gateway that offers its listeners there is relieved, and a successor may ask there.
    pub handover: Option<PathBuf>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot come into force: every reason.
    #[error("the configuration is not valid")]
    Config(Vec<Problem>),
    /// The system did not give what a gateway needs.
    #[error("the gateway cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running gateway. Several may run in one process; they share nothing.
#[derive(Debug)]
pub struct Gateway {
    parts: Arc<Parts>,
    reload: Arc<Notify>,
    stop: CancellationToken,
    control: JoinHandle<()>,
    memory: JoinHandle<()>,
}

/// What the parts of a gateway reach of each other.
#[derive(Debug)]
struct Parts {
    options: Options,
    started: SystemTime,
    live: Arc<Live<Settings>>,
    metrics: Arc<Metrics>,
    proxy: Arc<Proxy>,
    sources: aggregate::Handle<Settings>,
    readiness: Readiness,
    /// Cancelled when this process may accept.
    opened: CancellationToken,
    /// Cancelled when another process accepts.
    relieved: CancellationToken,
    offer: Mutex<Option<Offer>>,
    configuration: Mutex<Configuration>,
    /// What links are opened and accepted with.
    links: Arc<Current>,
    /// When that expires.
    expiries: Expiries,
    refusals: Arc<Refusals>,
    /// Until it is cancelled, other gateways are told what is exported.
    answering: CancellationToken,
    /// The other clusters of the table in force.
    peers: watch::Sender<Arc<[Peer]>>,
    /// What the store of allowed apps has that is no document.
    rejections: Rejections,
    /// The documents by which the table in force judges callers.
    in_force: watch::Sender<Arc<InForce>>,
    /// Listeners around the data path, for status.
    around: Mutex<Vec<ListenerStatus>>,
    /// Their sockets, for a successor, and what ends them.
    copies: Mutex<Vec<(Kind, String, Copied)>>,
    around_stop: CancellationToken,
    /// Where the admin API answers, as `--admin` takes it.
    admin: Mutex<String>,
}

impl Gateway {
    /// Starts a gateway and waits until its first configuration is in force and its listeners accept.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::start_on(options, Vec::new()).await
    }

    /// Starts with listening sockets that a service manager has bound: an ingress listener with the address of one takes it.
    ///
    /// With these or those of a running gateway its listeners accept only once it is ready; what comes before waits in their queues.
    pub async fn start_on(
        options: Options,
        activated: Vec<TcpListener>,
    ) -> Result<Self, StartError> {
        let inherited = Inheritance::collect(options.handover.as_deref(), activated).await?;
        let stop = CancellationToken::new();
        // Dropped on every early return: whatever has been started by then ends.
        let unfinished = stop.clone().drop_guard();
        let opened = CancellationToken::new();
        if inherited.is_empty() {
            opened.cancel();
        }
        let parts = Parts::new(options, &stop, opened.clone())?;
        parts.proxy.inherit(inherited.ingress);
        let reload = Arc::new(Notify::new());
        let (changes, mut news) = mpsc::channel(1);
        tokio::spawn(file::watch(
            parts.options.config.clone(),
            Arc::clone(&reload),
            stop.clone(),
            changes,
        ));
        let first = news
            .recv()
            .await
            .ok_or_else(|| io::Error::other("the configuration's watcher ended"))?;
        let settings = SourceSettings::default();
        let api = permissions::router(&parts, settings.store.subscribe());
        let (answers, ends) = (answers::answers(&parts, api), parts.around_stop.clone());
        let desk = Desk::new(Arc::clone(&parts.live), Arc::clone(&parts.metrics));
        let guarding = Guarding::new(stop.clone());
        let access = guarding.current();
        let surroundings = Surroundings::new(answers, access, ends, opened, inherited.around, desk);
        let (links, expiries) = (Arc::clone(&parts.links), parts.expiries.clone());
        let linking = Linking::new(links, expiries, stop.clone());
        let around = (surroundings, guarding);
        let mut control = Control::new(Arc::clone(&parts), around, linking, settings.clone());
        control.apply(first.map_err(StartError::Config)?).await.map_err(StartError::Config)?;
        let unwanted = parts.proxy.forget_inherited();
        if !unwanted.is_empty() {
            warn!(addresses = ?unwanted, "these listeners were passed on, and the configuration has none of them");
        }
        let memory = parts.start_sources(&settings, &stop).await;
        tokio::spawn(succession::begin(Arc::clone(&parts), inherited.predecessor, stop.clone()));
        let control = tokio::spawn(control.run(news, stop.clone()));
        let gateway = Self { parts, reload, stop: unfinished.disarm(), control, memory };
        gateway.observe_log(|| 0);
        Ok(gateway)
    }

    /// Where ingress listeners are bound: ports are real.
    pub fn ingress(&self) -> Vec<SocketAddr> {
        self.parts.proxy.bound().into_iter().map(|(_, bound)| bound).collect()
    }

    /// Where the admin API answers, as `--admin` takes it.
    pub fn admin(&self) -> String {
        self.parts.admin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has metrics tell how many log lines were lost, besides the state of sources and endpoints.
    pub fn observe_log(&self, dropped_lines: impl Fn() -> u64 + Send + Sync + 'static) {
        // Weak: the metrics are one of the parts.
        let parts: Weak<Parts> = Arc::downgrade(&self.parts);
        self.parts.metrics.observe(move |observed| {
            observed.log_lines_dropped = dropped_lines();
            if let Some(parts) = parts.upgrade() {
                parts.observe(observed);
            }
        });
    }

    /// Reads the configuration again, whether it seems to have changed or not.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Stops in the order that loses least: not ready, `drainDelay`, nothing new accepted, `drainTimeout`, the rest closed.
    pub async fn drain(&self) {
        let limits = self.parts.live.load().settings.limits;
        self.parts.readiness.drain();
        service::stopping(self.parts.proxy.open_connections());
        info!(delay = ?limits.drain_delay, timeout = ?limits.drain_timeout, "stopping: no longer ready");
        tokio::time::sleep(limits.drain_delay).await;
        self.parts.proxy.stop_accepting();
        info!(connections = self.parts.proxy.open_connections(), "stopping: accepting nothing new");
        self.let_end().await;
    }

    /// Waits until another process accepts instead of this one.
    pub async fn relieved(&self) {
        self.parts.relieved.cancelled().await;
    }

    /// What is left to do once relieved: connections that live may end within `drainTimeout`.
    pub async fn retire(&self) {
        self.parts.readiness.drain();
        self.let_end().await;
    }

    /// Closes connections between calls until none is left, or `drainTimeout` is over.
    async fn let_end(&self) {
        // Their next callers go to another gateway.
        self.parts.answering.cancel();
        let limits = self.parts.live.load().settings.limits;
        self.parts.proxy.close_quiet_ones(Instant::now() + limits.drain_timeout);
        if timeout(limits.drain_timeout, self.parts.proxy.drained()).await.is_err() {
            warn!(
                connections = self.parts.proxy.open_connections(),
                "stopping: closing what has not ended"
            );
        }
    }

    /// Ends at once: open connections are closed.
    pub async fn stop(self) {
        self.parts.readiness.drain();
        drop(self.parts.offer.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.parts.proxy.cut();
        self.parts.proxy.drained().await;
        self.stop.cancel();
        // Each fails only if the task panicked, which the log has told.
        let _ = self.control.await;
        let _ = self.memory.await;
    }
}

impl Parts {
    fn new(
        options: Options,
        stop: &CancellationToken,
        opened: CancellationToken,
    ) -> io::Result<Arc<Self>> {
        let live = Arc::new(Live::new(Arc::new(Settings::default())));
        let (metrics, refusals) = (Arc::new(Metrics::new()), Arc::new(Refusals::default()));
        let shared = Shared::new(Arc::clone(&live), Arc::clone(&metrics), Arc::clone(&refusals));
        let (inquiries, asked) = mpsc::channel(INQUIRIES);
        let shared = shared.closed_until(opened.clone()).asked_at(inquiries);
        let answering = stop.child_token();
        tokio::spawn(crate::exchange::serve(Arc::clone(&live), asked, answering.clone()));
        let links = Arc::clone(&shared.links);
        let probes = Probes::new(Handle::current());
        let proxy = Arc::new(Proxy::start(options.cores, Arc::new(shared))?);
        let peers = watch::Sender::new(Arc::from([]));
        let in_force = watch::Sender::new(Arc::default());
        let told = (peers.clone(), in_force.clone());
        let published = published(&metrics, probes, Arc::downgrade(&proxy), told);
        Ok(Arc::new(Self {
            started: SystemTime::now(),
            proxy,
            sources: aggregate::start(Arc::clone(&live), published, stop.clone()),
            readiness: Readiness::default(),
            opened,
            relieved: CancellationToken::new(),
            offer: Mutex::default(),
            configuration: Mutex::default(),
            links,
            expiries: Expiries::default(),
            answering,
            peers,
            rejections: Rejections::new(Arc::default()),
            in_force,
            around: Mutex::default(),
            copies: Mutex::default(),
            around_stop: stop.child_token(),
            admin: Mutex::default(),
            options,
            live,
            metrics,
            refusals,
        }))
    }

    /// Starts the sources besides the configuration, with what they said before the restart, and what keeps that.
    async fn start_sources(
        &self,
        settings: &SourceSettings,
        stop: &CancellationToken,
    ) -> JoinHandle<()> {
        let state_dir = settings.state_dir.subscribe();
        let folder = state_dir.borrow().clone();
        let remembered = match &folder {
            Some(folder) => memory::recall_addresses(folder, dns::SOURCE).await,
            None => None,
        };
        self.sources.expect(dns::SOURCE);
        let (names, updates) = (self.sources.hosts(), self.sources.updates());
        let (again, requests) = dns::Again::new();
        self.proxy.ask_callers_again(ask_again(again, self.sources.clone()));
        tokio::spawn(dns::watch(
            settings.dns.subscribe(),
            names,
            remembered,
            requests,
            updates,
            stop.clone(),
        ));
        let cancelled = stop.clone();
        for peer in self.live.load().table.peers() {
            self.sources.expect(&inquiring::source(&peer.cluster));
        }
        let (peers, ways) = (self.peers.subscribe(), exchange::ways(&self.links, &self.metrics));
        let updates = self.sources.updates();
        tokio::spawn(inquiring::watch(peers, ways, folder.clone(), updates, cancelled));
        self.follow_allowed_apps(settings, folder, stop);
        // Ends when another process serves: what this one knows grows old from then on.
        let until = self.around_stop.clone();
        tokio::spawn(memory::keep(self.sources.watch_sources(), state_dir, until))
    }

    fn follow_allowed_apps(
        &self,
        settings: &SourceSettings,
        folder: Option<PathBuf>,
        stop: &CancellationToken,
    ) {
        let stores = settings.store.subscribe();
        if stores.borrow().is_some() {
            self.sources.expect(allowed_apps::SOURCE);
        }
        let (rejections, updates) = (self.rejections.clone(), self.sources.updates());
        tokio::spawn(allowed_apps::watch(stores, folder, rejections, updates, stop.clone()));
    }

    /// Notes which listeners there are around the data path.
    fn listening(&self, surroundings: &Surroundings) {
        *self.around.lock().unwrap_or_else(PoisonError::into_inner) = surroundings.status();
        *self.copies.lock().unwrap_or_else(PoisonError::into_inner) = surroundings.copies();
        if let Some(url) = surroundings.admin_url() {
            *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = url;
        }
    }
}

/// Asks for names once more, until what they stand for is in force.
fn ask_again(again: dns::Again, sources: aggregate::Handle<Settings>) -> Box<AskAgain> {
    Box::new(move |names| {
        let (again, sources) = (again.clone(), sources.clone());
        Box::pin(async move {
            again.ask(names).await;
            sources.refresh().await;
        })
    })
}

/// What happens at every new generation.
fn published(
    metrics: &Arc<Metrics>,
    probes: Probes,
    proxy: Weak<Proxy>,
    (peers, in_force): (watch::Sender<Arc<[Peer]>>, watch::Sender<Arc<InForce>>),
) -> Box<aggregate::Published<Settings>> {
    let (metrics, exchange) = (Arc::clone(metrics), Arc::from(EXCHANGE));
    Box::new(move |generation| {
        let labels = generation.table.routes().map(|route| &route.label);
        metrics.admit_routes(labels.chain([&exchange]), generation.settings.metrics_routes);
        metrics.published(generation.table.len(), generation.number, generation.since);
        probes.follow(&generation.table);
        if let Some(proxy) = proxy.upgrade() {
            proxy.follow_egress(&generation.table);
            proxy.follow_names(&generation.table);
            proxy.review(&generation.settings);
        }
        peers.send_replace(generation.table.peers().into());
        permissions::tell(&in_force, &generation.table);
    })
}
