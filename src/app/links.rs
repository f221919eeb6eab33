//! Keeps links in line with the configuration and with the files by which gateways prove who they are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::pin;
use tokio::time::interval;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use crate::cluster::identity::ClusterId;
use crate::cluster::{self, Current, judge_own};
use crate::config::{self, Config, Problem};
use crate::tls::{Expiry, FileError, Files, Follower, Judge, Material, Renewed, expiries};
use crate::watch::POLL;

/// From one word on what is about to expire to the next. More often than daily, so that no day's log lacks it.
const REMINDER: Duration = Duration::from_hours(12);

/// Puts links in force, and follows their files.
pub(super) struct Linking {
    current: Arc<Current>,
    expiries: Expiries,
    stop: CancellationToken,
    running: Option<Running>,
}

/// When what is in force expires.
#[derive(Debug, Clone, Default)]
pub(super) struct Expiries(Arc<Mutex<Vec<Expiry>>>);

/// What follows the files of the links in force, until this is dropped.
struct Running {
    asked: Asked,
    _stop: DropGuard,
}

/// What a configuration says of links.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    cluster: Arc<str>,
    links: config::Links,
}

/// Links as they are to be. Dropping it, once taken back, leaves everything as it was.
pub(super) enum Prepared {
    Keep,
    Remove,
    Replace(Box<Made>),
}

/// Links made of a configuration and of what the files hold.
pub(super) struct Made {
    asked: Asked,
    links: Arc<cluster::Links>,
    material: Material,
    /// What the operator should know.
    told: Vec<FileError>,
}

impl Linking {
    pub(super) fn new(current: Arc<Current>, expiries: Expiries, stop: CancellationToken) -> Self {
        Self { current, expiries, stop, running: None }
    }

    /// Makes what a configuration asks for, unless it is in force. Reads a few small files, on a thread where nothing
    /// but changes and questions wait.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, Vec<Problem>> {
        let Some(asked) = Asked::of(config) else { return Ok(Prepared::Remove) };
        if self.running.as_ref().is_some_and(|running| running.asked == asked) {
            return Ok(Prepared::Keep);
        }
        Made::load(asked).map(|made| Prepared::Replace(Box::new(made)))
    }

    /// Puts it in force for connections that come from now on. The answer is what was in force, for [`back`](Self::back).
    pub(super) fn publish(&self, prepared: &Prepared) -> Option<Arc<cluster::Links>> {
        match prepared {
            Prepared::Keep => self.current.load(),
            Prepared::Remove => self.current.publish(None),
            Prepared::Replace(made) => self.current.publish(Some(Arc::clone(&made.links))),
        }
    }

    /// Takes back what was published.
    pub(super) fn back(&self, prepared: &Prepared, before: Option<Arc<cluster::Links>>) {
        match prepared {
            // Its files may have changed meanwhile.
            Prepared::Keep => {}
            Prepared::Remove | Prepared::Replace(_) => drop(self.current.publish(before)),
        }
    }

    /// From now on the files of what was published are followed.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Keep => {}
            Prepared::Remove => {
                self.running = None;
                self.expiries.set(Vec::new());
            }
            Prepared::Replace(made) => {
                let stop = self.stop.child_token();
                let asked = made.asked.clone();
                let (current, expiries) = (Arc::clone(&self.current), self.expiries.clone());
                tokio::spawn(follow(*made, current, expiries, stop.clone()));
                self.running = Some(Running { asked, _stop: stop.drop_guard() });
            }
        }
    }
}

impl Asked {
    fn of(config: &Config) -> Option<Self> {
        let links = config.links.clone()?;
        Some(Self { cluster: Arc::clone(&config.cluster), links })
    }

    fn files(&self) -> Files {
        let bundles = self.links.peers.iter().filter_map(|peer| peer.trust_bundle.clone());
        Files {
            directory: self.links.directory.clone(),
            has_anchors: true,
            allow_readable_key: self.links.allow_readable_key,
            bundles: bundles.collect(),
        }
    }

    fn own(&self) -> ClusterId {
        let trust_domain = Arc::clone(&self.links.trust_domain);
        ClusterId { trust_domain, cluster: Arc::clone(&self.cluster) }
    }

    fn judge(&self) -> Arc<Judge> {
        let own = self.own();
        Arc::new(move |chain: &[CertificateDer<'static>]| judge_own(&own, chain))
    }

    fn links(&self, material: &Material) -> Result<cluster::Links, cluster::Unusable> {
        let peers = self.links.peers.iter().filter_map(|peer| {
            let trust_domain = Arc::clone(&peer.trust_domain);
            let id = ClusterId { trust_domain, cluster: Arc::clone(&peer.cluster) };
            // Of each bundle that is named, something has been read: the first reading refuses to go on without.
            let anchors = Arc::clone(material.bundle(peer.trust_bundle.as_deref())?);
            Some(cluster::Peer { id, anchors })
        });
        cluster::Links::new(&self.own(), &material.identity, peers.collect(), &material.revoked)
    }
}

impl Made {
    fn load(asked: Asked) -> Result<Self, Vec<Problem>> {
        let read = asked.files().load(&*asked.judge());
        let Renewed { material, problems: told } =
            read.map_err(|errors| errors.iter().map(problem).collect::<Vec<_>>())?;
        let links = asked.links(&material).map_err(|error| {
            let fix = "look at the trust anchors and revocation lists that it is made of";
            vec![Problem::whole(&asked.links.directory, error.to_string(), fix)]
        })?;
        Ok(Self { asked, links: Arc::new(links), material, told })
    }
}

/// What is wrong with the files of a configuration's links, and what the operator should know of them.
pub(super) fn check(config: &Config) -> Result<Vec<Problem>, Vec<Problem>> {
    let Some(asked) = Asked::of(config) else { return Ok(Vec::new()) };
    let made = Made::load(asked)?;
    let (now, files) = (UnixTime::now(), made.asked.files());
    let near = expiries(&files, &made.material).into_iter().filter(|expiry| expiry.is_near(now));
    let near = near.map(|expiry| {
        Problem::whole(&expiry.file, told(&expiry, now).to_owned(), RENEW).into_warning()
    });
    let warnings = made.told.iter().map(|error| problem(error).into_warning());
    Ok(warnings.chain(near).collect())
}

fn problem(error: &FileError) -> Problem {
    Problem::whole(&error.path, error.message.clone(), &error.fix)
}

/// Makes links anew whenever the files have changed. What is open stays open; what comes is judged by the new ones.
async fn follow(made: Made, current: Arc<Current>, expiries: Expiries, stop: CancellationToken) {
    let Made { asked, links: mut last, mut material, told } = made;
    tell(&told);
    let mut follower = Follower::new(asked.files(), asked.judge(), material.clone(), POLL);
    let mut reminder = interval(REMINDER);
    loop {
        expiries.set(self::expiries(&asked.files(), &material));
        let changed = follower.changed();
        pin!(changed);
        let renewed = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                renewed = &mut changed => break renewed,
                _ = reminder.tick() => expiries.remind(),
            }
        };
        let was = std::mem::replace(&mut material, renewed.material);
        tell(&renewed.problems);
        if was.is_same(&material) {
            continue;
        }
        match asked.links(&material).map(Arc::new) {
            Ok(links) => {
                if current.renew(&last, Arc::clone(&links)) {
                    info!(directory = %asked.links.directory.display(), "links: certificates, anchors or lists have changed");
                }
                last = links;
                reminder.reset_immediately();
            }
            Err(error) => error!(%error, "links: what was in force before stays so"),
        }
    }
}

fn tell(problems: &[FileError]) {
    for FileError { path, message, fix } in problems {
        warn!(file = %path.display(), fix, "links: {message}");
    }
}

/// What to do about something that expires.
const RENEW: &str = "renew it: the new file is taken without a restart";

fn told(expiry: &Expiry, now: UnixTime) -> &'static str {
    if expiry.is_past(now) { "it has expired" } else { "it expires within 14 days" }
}

impl Expiries {
    fn lock(&self) -> MutexGuard<'_, Vec<Expiry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, expiries: Vec<Expiry>) {
        *self.lock() = expiries;
    }

    /// Each with its role and when it is.
    pub(super) fn all(&self) -> Vec<(&'static str, SystemTime)> {
        let at = |expiry: &Expiry| UNIX_EPOCH + Duration::from_secs(expiry.at.as_secs());
        self.lock().iter().map(|expiry| (expiry.role, at(expiry))).collect()
    }

    fn remind(&self) {
        let now = UnixTime::now();
        for expiry in self.lock().iter().filter(|expiry| expiry.is_near(now)) {
            warn!(file = %expiry.file.display(), fix = RENEW, "links: {}", told(expiry, now));
        }
    }
}
