//! Puts configurations in force, one after the other: each wholly or not at all.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, Limits, Listeners, Loaded, Problem};
use crate::discovery::aggregate::ConfigureError;
use crate::discovery::dns;
use crate::permissions::follow::Followed;
use crate::proxy::EGRESS_LABEL;
use crate::routing::build::OwnListeners;
use crate::socket;

use super::guarding::Guarding;
use super::links::Linking;
use super::offline::problems;
use super::surroundings::{BindError, Surroundings};
use super::{Parts, service};

/// What is known of the configuration, for status.
#[derive(Debug, Default, Clone)]
pub(super) struct Configuration {
    /// What is in force; `None` before the first.
    pub(super) in_force: Option<Arc<Config>>,
    /// When that came into force.
    pub(super) changed: Option<SystemTime>,
    /// What is wrong with a newer one that did not.
    pub(super) rejected: Vec<Problem>,
    /// What the operator should know of the one in force.
    pub(super) warnings: Vec<Problem>,
}

/// The one task that changes what is in force.
pub(super) struct Control {
    parts: Arc<Parts>,
    surroundings: Surroundings,
    guarding: Guarding,
    linking: Linking,
    settings: SourceSettings,
}

/// What the sources follow of the configuration in force.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceSettings {
    pub(super) dns: watch::Sender<dns::Settings>,
    /// Where what they say is kept.
    pub(super) state_dir: watch::Sender<Option<PathBuf>>,
    /// Where documents of allowed apps are.
    pub(super) store: watch::Sender<Option<Followed>>,
}

impl SourceSettings {
    fn follow(&self, config: &Config) {
        let resolver = &config.resolver;
        let dns = dns::Settings {
            servers: resolver.servers.clone(),
            allow_local: resolver.allow_local_addresses,
        };
        self.dns.send_if_modified(|asked| {
            let differs = *asked != dns;
            *asked = dns;
            differs
        });
        self.state_dir.send_replace(config.state_dir.clone());
        let names = self.dns.borrow().clone();
        self.store.send_if_modified(|followed| {
            let is_it = match (&*followed, &config.store) {
                (Some(followed), Some(written)) => followed.is(written, &names),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_it {
                *followed =
                    config.store.clone().map(|written| Followed::open(written, names.clone()));
            }
            !is_it
        });
    }
}

impl Control {
    pub(super) fn new(
        parts: Arc<Parts>,
        (surroundings, guarding): (Surroundings, Guarding),
        linking: Linking,
        settings: SourceSettings,
    ) -> Self {
        Self { parts, surroundings, guarding, linking, settings }
    }

    /// Takes what the watcher reads until nothing new is accepted, and keeps what stands around until the gateway stops.
    ///
    /// Who accepts nothing has no use for a configuration, and its listeners may be a successor's, who reads the same files.
    pub(super) async fn run(
        mut self,
        mut news: mpsc::Receiver<Result<Loaded, Vec<Problem>>>,
        stop: CancellationToken,
    ) {
        let closed = self.parts.proxy.closed();
        while let Some(Some(change)) = closed.run_until_cancelled(news.recv()).await {
            service::reloading();
            let outcome = match change {
                Ok(loaded) => self.apply(loaded).await,
                Err(problems) => Err(problems),
            };
            if let Err(problems) = outcome {
                self.reject(problems);
            }
            service::ready(self.parts.live.load().table.len());
        }
        drop(news);
        stop.cancelled().await;
    }

    /// Puts a configuration in force, or says why that cannot be and leaves everything as it was.
    ///
    /// What may fail comes first and is taken back by dropping it: new listeners are bound, certificates are read, then the table is
    /// built. Only then the listeners are put to work, which cannot fail. A table leads nobody to a cluster that links do not know, so
    /// they are there before it.
    pub(super) async fn apply(&mut self, loaded: Loaded) -> Result<(), Vec<Problem>> {
        let config = &loaded.config;
        let leaving = self.leaving(&config.listeners);
        let ingress = self.parts.proxy.prepare(&config.listeners.ingress, &leaving);
        let ingress = ingress.map_err(|error| self.whole(&error, error.fix()))?;
        let around = self.surroundings.prepare(&config.listeners, &leaving);
        let around = around.map_err(|error| self.whole(&error, BindError::FIX))?;
        let access = self.guarding.prepare(config)?;
        let links = self.linking.prepare(config)?;
        let bound = ingress.bound().chain(around.bound()).collect();
        let own = OwnListeners { bound, is_local: socket::is_local };
        let (routes, settings) = (Arc::clone(&config.routes), Arc::clone(&config.settings));
        let before = self.linking.publish(&links);
        match self.parts.sources.configure(routes, settings, own).await {
            Ok(generation) => info!(generation, "configuration in force"),
            Err(error) => {
                self.linking.back(&links, before);
                return self.refused(error).await;
            }
        }
        self.parts.proxy.commit(ingress);
        // Before a new listener serves: it may be one that others reach.
        self.guarding.commit(access);
        self.surroundings.commit(around);
        self.linking.commit(links);
        self.accepted(loaded);
        Ok(())
    }

    async fn refused(&self, error: ConfigureError) -> Result<(), Vec<Problem>> {
        match error {
            ConfigureError::Refused(errors) => {
                // Reads the files once more, which may be long.
                let found = spawn_blocking(|| problems(errors)).await;
                Err(found.unwrap_or_else(|error| self.whole(&error, "look into the log")))
            }
            ConfigureError::Stopping => Ok(()),
            ConfigureError::Panicked => {
                Err(self.whole(&error, "report it with the configuration, and keep the one before"))
            }
        }
    }

    /// Where listeners of any kind are bound that these give up: others of these may take over such an address, or its port.
    fn leaving(&self, listeners: &Listeners) -> Vec<SocketAddr> {
        let ingress = self.parts.proxy.bound().into_iter();
        let gone = ingress.filter(|(old, _)| {
            listeners.ingress.iter().all(|wanted| wanted.address != old.address)
        });
        gone.map(|(_, bound)| bound).chain(self.surroundings.leaving(listeners)).collect()
    }

    fn accepted(&self, loaded: Loaded) {
        let Loaded { config, warnings, .. } = loaded;
        for warning in &warnings {
            warn!(place = %Place(warning), fix = warning.fix, "configuration: {}", warning.message);
        }
        self.tell_lowered(&config.settings.limits);
        self.settings.follow(&config);
        let labels: Vec<_> =
            config.listeners.ingress.iter().map(|ingress| ingress.address.to_string()).collect();
        let egress = config.routes.egress.as_ref().map(|_| EGRESS_LABEL);
        self.parts.metrics.admit_listeners(labels.iter().map(String::as_str).chain(egress));
        self.parts.listening(&self.surroundings);
        let mut known = self.parts.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Configuration {
            in_force: Some(Arc::new(config)),
            changed: Some(SystemTime::now()),
            rejected: Vec::new(),
            warnings,
        };
    }

    fn tell_lowered(&self, limits: &Limits) {
        if let Some((descriptors, most)) = self.parts.proxy.lowered(limits) {
            warn!(
                descriptors,
                configured = limits.connections,
                in_force = most,
                "limits.connections is lowered to what the file descriptors allow: two for each connection, and a reserve. Raise the process's limit (ulimit -n, LimitNOFILE=), or lower limits.connections"
            );
        }
    }

    fn reject(&self, problems: Vec<Problem>) {
        self.parts.metrics.config_rejected();
        for problem in &problems {
            error!(place = %Place(problem), fix = problem.fix, "configuration rejected: {}", problem.message);
        }
        warn!("the last good configuration stays in force");
        let mut known = self.parts.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        known.rejected = problems;
    }

    /// A problem of no place in particular.
    fn whole(&self, error: &impl fmt::Display, fix: &str) -> Vec<Problem> {
        vec![Problem::whole(&self.parts.options.config, error.to_string(), fix)]
    }
}

/// Where a problem is, in one field of a log line.
struct Place<'a>(&'a Problem);

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, column) = self.0.place();
        match line {
            0 => write!(out, "{}", file.display()),
            line => write!(out, "{}:{line}:{column}", file.display()),
        }
    }
}
