//! The one owner of what is in force: keeps the last good snapshot of every source, builds tables, publishes them.
//!
//! Nobody else builds or publishes, so there is no order of events in which an older state overwrites a newer one. Building, and
//! dropping the table that it replaces, takes a while at a million names: both happen in the background.

mod debounce;
mod documents;
mod egress;
mod handle;
mod imports;
mod snapshots;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::background::{self, Urgency};
use crate::model::allowed::Documents;
use crate::model::name::Name;
use crate::model::offer::Offered;
use crate::model::snapshot::{Addresses, Routes};
use crate::routing::build::{BuildError, Inputs, build, have_same_names, rebuild};
use crate::routing::endpoint::Endpoints;
use crate::routing::live::{Generation, Live};
use crate::routing::table::Table;

use self::debounce::Debounce;
use self::documents::Targets;
use self::egress::{Egress, Settling};
use self::handle::{Command, Wanted};
use self::snapshots::Snapshots;
use super::memory::Sources;
use super::{Said, SourceStatus, Update, hosts};

pub use self::documents::enter_configured;
pub use self::egress::looked_up;
pub use self::handle::Handle;

/// Updates and commands on their way. A source that finds the queue full waits, and may then say something newer.
const QUEUE: usize = 16;

/// Why a configuration did not come into force. What was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// No table can be made of it.
    #[error("the configuration makes no table: {} errors", .0.len())]
    Refused(Vec<BuildError>),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// Building panicked: our fault.
    #[error(
        "internal error: building the table panicked; please report this with the log line above"
    )]
    Panicked,
}

/// Told of every generation, after it came into force.
pub type Published<S> = dyn Fn(&Arc<Generation<S>>) + Send + Sync;
/// [`build_beside`], or a test's stand-in.
type Build = dyn Fn(&Inputs<'_>, Option<&Table>, &mut Endpoints) -> Result<Table, Vec<BuildError>>
    + Send
    + Sync;

/// Starts the owner; it ends with `stop`. `published` is told of every generation, after it came into force.
pub fn start<S: Send + Sync + 'static>(
    live: Arc<Live<S>>,
    published: Box<Published<S>>,
    stop: CancellationToken,
) -> Handle<S> {
    start_with(Arc::new(build_beside), live, published, stop)
}

/// Builds a table; `before` is one of the same names, if there is any.
fn build_beside(
    inputs: &Inputs<'_>,
    before: Option<&Table>,
    endpoints: &mut Endpoints,
) -> Result<Table, Vec<BuildError>> {
    match before {
        Some(before) => Ok(rebuild(before, inputs, endpoints)),
        None => build(inputs, endpoints),
    }
}

fn start_with<S: Send + Sync + 'static>(
    build: Arc<Build>,
    live: Arc<Live<S>>,
    published: Box<Published<S>>,
    stop: CancellationToken,
) -> Handle<S> {
    let (commands, to_do) = mpsc::channel(QUEUE);
    let (updates, news) = mpsc::channel(QUEUE);
    let (hosts, names) = watch::channel(Arc::default());
    let statuses = watch::Sender::default();
    let owner = Owner {
        build,
        live,
        published: published.into(),
        endpoints: Arc::default(),
        snapshots: Snapshots::default(),
        egress: Egress::default(),
        unbuilt: BTreeSet::new(),
        in_force: None,
        statuses: statuses.clone(),
        hosts,
    };
    tokio::spawn(owner.run(to_do, news, stop));
    Handle { commands, updates, statuses, hosts: names }
}

/// What the table in force was made of.
struct InForce<S> {
    wanted: Arc<Wanted<S>>,
    entered: Entered,
    hosts: Arc<HashSet<Name>>,
    addresses: Addresses,
    number: u64,
}

/// The configuration's routes with what sources say.
#[derive(Clone)]
struct Entered {
    routes: Arc<Routes>,
    offered: Offered,
    documents: Arc<Documents>,
    /// What the documents name.
    targets: Arc<Targets>,
}

/// What has just come into force.
struct Made<S> {
    generation: Arc<Generation<S>>,
    addresses: Addresses,
    settled: Settling,
}

struct Owner<S> {
    build: Arc<Build>,
    live: Arc<Live<S>>,
    published: Arc<Published<S>>,
    /// Locked by one build at a time; shared because a build runs on another thread, and survives one that panics.
    endpoints: Arc<Mutex<Endpoints>>,
    snapshots: Snapshots,
    egress: Egress,
    /// Sources whose last snapshot no table has taken into account yet.
    unbuilt: BTreeSet<Arc<str>>,
    in_force: Option<InForce<S>>,
    statuses: watch::Sender<Sources>,
    hosts: watch::Sender<Arc<HashSet<Name>>>,
}

impl<S: Send + Sync + 'static> Owner<S> {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command<S>>,
        mut updates: mpsc::Receiver<Update>,
        stop: CancellationToken,
    ) {
        let mut debounce = Debounce::default();
        loop {
            // The timer stands before the updates: a source that never pauses must not hold the table back.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = debounce.due() => {
                    debounce.took(Instant::now());
                    self.refresh().await;
                }
                // An error: nobody waits for the answer any more. The change stands all the same.
                Some(command) = commands.recv() => match command {
                    Command::Configure(wanted, reply) => {
                        let _ = reply.send(self.configure(wanted).await);
                    }
                    Command::Refresh(reply) => {
                        while let Ok(update) = updates.try_recv() {
                            self.hear(update);
                        }
                        self.refresh().await;
                        let _ = reply.send(());
                    }
                },
                () = wake(self.egress.wake()) => self.settle_anew().await,
                Some(update) = updates.recv() => {
                    if self.hear(update) {
                        debounce.start(Instant::now());
                    }
                }
            }
        }
    }

    /// Takes note of an update. Whether there is anything to build.
    fn hear(&mut self, Update { source, said }: Update) -> bool {
        if said == Said::Gone {
            self.forget(&source);
            return true;
        }
        let now = std::time::Instant::now();
        let mut snapshot = None;
        self.statuses.send_modify(|statuses| {
            let silent = || SourceStatus::silent(Arc::clone(&source));
            let status = statuses.entry(Arc::clone(&source)).or_insert_with(silent);
            status.hear(&said, now);
            if let Said::Snapshot(said) | Said::Remembered(said, _) = said {
                snapshot = Some(Arc::new(said));
                status.snapshot.clone_from(&snapshot);
            }
        });
        if let Some(snapshot) = snapshot {
            self.snapshots.replace(Arc::clone(&source), snapshot);
            self.unbuilt.insert(source);
            return true;
        }
        if !self.unbuilt.contains(&source) {
            self.spoken([source]);
        }
        false
    }

    fn forget(&mut self, source: &str) {
        self.snapshots.forget(source);
        self.unbuilt.remove(source);
        self.statuses.send_modify(|statuses| {
            statuses.remove(source);
        });
    }

    fn spoken(&self, sources: impl IntoIterator<Item = Arc<str>>) {
        self.statuses.send_modify(|statuses| {
            for source in sources {
                if let Some(status) = statuses.get_mut(&source) {
                    // What is only remembered is no word of the source's own.
                    status.spoken = status.last_ok.is_some() || status.last_error.is_some();
                }
            }
        });
    }

    async fn configure(&mut self, wanted: Wanted<S>) -> Result<u64, ConfigureError> {
        match &self.in_force {
            Some(now) if now.wanted.is(&wanted) => {
                let (wanted, hosts) = (Arc::clone(&now.wanted), Arc::clone(&now.hosts));
                self.bring_into_force(wanted, hosts).await
            }
            Some(_) | None => {
                let wanted = Arc::new(wanted);
                let routes = Arc::clone(&wanted.routes);
                let hosts = background::run(self.urgency(), move || hosts(&routes)).await;
                let hosts = Arc::new(hosts.map_err(|_| ConfigureError::Panicked)?);
                let number = self.bring_into_force(wanted, Arc::clone(&hosts)).await?;
                self.hosts.send_if_modified(|known| {
                    let differs = *known != hosts;
                    *known = hosts;
                    differs
                });
                Ok(number)
            }
        }
    }

    /// Brings the sources' last snapshots into force, if there is a configuration yet.
    async fn refresh(&mut self) {
        let unbuilt = std::mem::take(&mut self.unbuilt);
        if let Some(now) = &self.in_force {
            let (wanted, hosts) = (Arc::clone(&now.wanted), Arc::clone(&now.hosts));
            if let Err(refused) = self.bring_into_force(wanted, hosts).await {
                self.refused(&unbuilt, &refused);
            }
        }
        self.spoken(unbuilt);
    }

    /// What these sources said makes no table: say so, keep what is in force.
    fn refused(&self, sources: &BTreeSet<Arc<str>>, refused: &ConfigureError) {
        let why = match refused {
            ConfigureError::Refused(errors) => errors.first().map_or_else(
                || refused.to_string(),
                |first| format!("{}: {}: {}", first.origin, first.text, first.message),
            ),
            ConfigureError::Stopping | ConfigureError::Panicked => refused.to_string(),
        };
        error!(?sources, %why, "addresses not taken over; the table before stays in force");
        let failed = Said::Failed(why);
        self.statuses.send_modify(|statuses| {
            for source in sources {
                if let Some(status) = statuses.get_mut(source) {
                    status.hear(&failed, std::time::Instant::now());
                }
            }
        });
    }

    /// Builds and publishes, unless exactly that is in force already.
    async fn bring_into_force(
        &mut self,
        wanted: Arc<Wanted<S>>,
        hosts: Arc<HashSet<Name>>,
    ) -> Result<u64, ConfigureError> {
        let addresses = self.snapshots.merged(&hosts);
        let (offered, documents) = (self.snapshots.offered(), self.snapshots.documents());
        if let Some(now) = &self.in_force
            && Arc::ptr_eq(&now.wanted, &wanted)
            && now.addresses == addresses
            && now.entered.offered == offered
            && Arc::ptr_eq(&now.entered.documents, &documents)
        {
            return Ok(now.number);
        }
        let entered = self.enter(&wanted, offered, documents).await?;
        self.put_into_force(wanted, entered, hosts, addresses).await
    }

    /// Egress addresses have rested, or their lock may have been mended.
    async fn settle_anew(&mut self) {
        let Some(now) = &self.in_force else { return };
        let (wanted, hosts) = (Arc::clone(&now.wanted), Arc::clone(&now.hosts));
        let (entered, addresses) = (now.entered.clone(), now.addresses.clone());
        let settling = self.egress.settling(Arc::clone(&entered.routes));
        let settled = spawn_blocking(settling).await;
        if settled.is_ok_and(|settled| !self.egress.is_known(&settled))
            && let Err(error) = self.put_into_force(wanted, entered, hosts, addresses).await
        {
            error!(%error, "egress addresses not taken over; the table before stays in force");
        }
    }

    async fn put_into_force(
        &mut self,
        wanted: Arc<Wanted<S>>,
        entered: Entered,
        hosts: Arc<HashSet<Name>>,
        addresses: Addresses,
    ) -> Result<u64, ConfigureError> {
        let Made { generation, addresses, settled } =
            self.publish(Arc::clone(&wanted), entered.clone(), addresses).await?;
        self.egress.in_force(settled);
        let number = generation.number;
        self.in_force = Some(InForce { wanted, entered, hosts, addresses, number });
        info!(generation = number, names = generation.table.len(), "table in force");
        self.tell(generation).await;
        Ok(number)
    }

    /// The routes of a configuration with what is offered, and what documents name; those in force where none of it has changed.
    async fn enter(
        &self,
        wanted: &Arc<Wanted<S>>,
        offered: Offered,
        documents: Arc<Documents>,
    ) -> Result<Entered, ConfigureError> {
        let before = self.in_force.as_ref().filter(|now| {
            Arc::ptr_eq(&now.wanted.routes, &wanted.routes) && now.entered.offered == offered
        });
        let before = before.map(|now| now.entered.clone());
        if let Some(before) = before.as_ref().filter(|it| Arc::ptr_eq(&it.documents, &documents)) {
            return Ok(before.clone());
        }
        let (live, routes) = (self.live.load(), Arc::clone(&wanted.routes));
        let entering = move || {
            let targets = Targets::of(&routes.permissions, &documents);
            if let Some(before) = before.filter(|before| *before.targets == targets) {
                return Entered { documents, ..before };
            }
            let routes = imports::enter(&routes, &offered, &live.table);
            let routes = documents::enter(routes, &targets, &offered, &live.table);
            Entered { routes, offered, documents, targets: Arc::new(targets) }
        };
        background::run(self.urgency(), entering).await.map_err(|_| ConfigureError::Panicked)
    }

    /// Not on this thread, because somebody may look at every one of a million routes; and not in the background, because they
    /// may hold locks that connections wait for.
    async fn tell(&self, generation: Arc<Generation<S>>) {
        let published = Arc::clone(&self.published);
        // A panic in there has been reported by the panic hook; the table is in force.
        let _ = spawn_blocking(move || published(&generation)).await;
    }

    fn urgency(&self) -> Urgency {
        if self.in_force.is_none() { Urgency::Start } else { Urgency::Change }
    }

    async fn publish(
        &self,
        wanted: Arc<Wanted<S>>,
        entered: Entered,
        addresses: Addresses,
    ) -> Result<Made<S>, ConfigureError> {
        let Entered { routes, documents, .. } = entered;
        let (build, live) = (Arc::clone(&self.build), Arc::clone(&self.live));
        let endpoints = Arc::clone(&self.endpoints);
        let now = self.in_force.as_ref();
        let before = now.map(|now| Arc::clone(&now.entered.routes));
        let settle = self.egress.settling(Arc::clone(&routes));
        // A configuration that makes no table must not move anybody.
        let settle_back = now.map(|now| self.egress.settling(Arc::clone(&now.entered.routes)));
        let building = background::run(self.urgency(), move || {
            let mut endpoints = endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            let settled = settle();
            let own = settled.own(&wanted.own);
            let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
            // That another cluster exports an app, or does not any more, changes no name of an app that is imported by its own.
            let same = before.is_some_and(|before| {
                Arc::ptr_eq(&before, &routes) || have_same_names(&before, &routes)
            });
            let before = same.then(|| live.load());
            let before = before.as_ref().map(|before| &before.table);
            let table = build(&inputs, before, &mut endpoints).inspect_err(|_| {
                settle_back.map(|settle| settle());
            })?;
            let table = settled.given.join(table).with_documents(documents);
            live.publish(table, Arc::clone(&wanted.settings));
            Ok(Made { generation: live.load(), addresses, settled })
        });
        let outcome = building.await.map_err(|_| ConfigureError::Panicked)?;
        outcome.map_err(ConfigureError::Refused)
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
