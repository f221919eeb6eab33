//! Keeps who may ask the admin API in line with the configuration and with the files of its TLS.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use crate::admin::access::{Access, CurrentAccess};
use crate::admin::check_tokens;
use crate::admin::tls::{Tls, Unusable};
use crate::config::{AdminAccess, AdminTls, Config, Problem};
use crate::tls::{FileError, Files, Follower, Judge, Material, Renewed};
use crate::watch::POLL;

/// Puts in force who may ask, and follows the files.
pub(super) struct Guarding {
    current: CurrentAccess,
    stop: CancellationToken,
    running: Option<Running>,
}

struct Running {
    asked: AdminAccess,
    /// Ends what follows the files when it is dropped.
    _stop: DropGuard,
}

/// Access as it is to be. Dropping it leaves everything as it was.
pub(super) enum Prepared {
    Keep,
    Replace(Box<Made>),
}

/// Access made of a configuration and of what the files hold.
pub(super) struct Made {
    asked: AdminAccess,
    tls: Option<(Tls, Material)>,
    /// What the operator should know.
    told: Vec<FileError>,
}

impl Guarding {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { current: CurrentAccess::default(), stop, running: None }
    }

    /// What the listener looks at.
    pub(super) fn current(&self) -> CurrentAccess {
        Arc::clone(&self.current)
    }

    /// Makes what a configuration asks for, unless it is in force. Reads a few small files.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, Vec<Problem>> {
        let asked = &config.listeners.admin_access;
        if self.running.as_ref().is_some_and(|running| running.asked == *asked) {
            return Ok(Prepared::Keep);
        }
        Made::load(asked).map(|made| Prepared::Replace(Box::new(made)))
    }

    /// Puts it in force, and follows its files from now on.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        let Prepared::Replace(made) = prepared else { return };
        // First, so that nothing that followed the files of before puts them in force once more.
        self.running = None;
        let Made { asked, tls, told } = *made;
        tell(&told);
        self.current.store(access(&asked, tls.as_ref().map(|(tls, _)| tls.clone())));
        let stop = self.stop.child_token();
        if let (Some(wanted), Some((_, material))) = (asked.tls.clone(), tls) {
            tokio::spawn(follow(asked.clone(), wanted, material, self.current(), stop.clone()));
        }
        self.running = Some(Running { asked, _stop: stop.drop_guard() });
    }
}

/// What is wrong with the files of a configuration's admin API, and what the operator should know of them.
pub(super) fn check(config: &Config) -> Result<Vec<Problem>, Vec<Problem>> {
    let made = Made::load(&config.listeners.admin_access)?;
    Ok(made.told.iter().map(|error| problem(error).into_warning()).collect())
}

impl Made {
    fn load(asked: &AdminAccess) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if let Some(file) = &asked.token_file
            && let Err((message, fix)) = check_tokens(file)
        {
            problems.push(Problem::whole(file, message, &fix));
        }
        let loaded = asked.tls.as_ref().map(load).transpose();
        match loaded.map_err(|errors| problems.extend(errors)) {
            Ok(loaded) if problems.is_empty() => {
                let (tls, told) = loaded.map_or((None, Vec::new()), |(tls, renewed)| {
                    (Some((tls, renewed.material)), renewed.problems)
                });
                Ok(Self { asked: asked.clone(), tls, told })
            }
            Ok(_) | Err(()) => Err(problems),
        }
    }
}

fn load(wanted: &AdminTls) -> Result<(Tls, Renewed), Vec<Problem>> {
    let loaded = files(wanted).load(&*judge());
    let renewed = loaded.map_err(|errors| errors.iter().map(problem).collect::<Vec<_>>())?;
    let made = tls(wanted, &renewed.material).map_err(|error| {
        let fix = "look at the authorities and revocation lists that it is made of";
        vec![Problem::whole(&wanted.directory, error.to_string(), fix)]
    })?;
    Ok((made, renewed))
}

fn access(asked: &AdminAccess, tls: Option<Tls>) -> Arc<Access> {
    Arc::new(Access { token_file: asked.token_file.clone(), tls })
}

fn files(wanted: &AdminTls) -> Files {
    Files {
        directory: wanted.directory.clone(),
        has_anchors: false,
        allow_readable_key: wanted.allow_readable_key,
        bundles: wanted.client_ca.iter().cloned().collect::<BTreeSet<_>>(),
    }
}

/// Any certificate is good enough to serve with: clients say whether it is for them.
fn judge() -> Arc<Judge> {
    Arc::new(|_: &[_]| Ok(()))
}

fn tls(wanted: &AdminTls, material: &Material) -> Result<Tls, Unusable> {
    let clients = wanted.client_ca.as_deref().and_then(|path: &Path| material.bundle(Some(path)));
    Tls::new(&material.identity, clients, &material.revoked)
}

fn problem(error: &FileError) -> Problem {
    Problem::whole(&error.path, error.message.clone(), &error.fix)
}

/// Puts TLS in force anew whenever its files have changed, for connections that come from then on.
async fn follow(
    asked: AdminAccess,
    wanted: AdminTls,
    mut material: Material,
    current: CurrentAccess,
    stop: CancellationToken,
) {
    let mut follower = Follower::new(files(&wanted), judge(), material.clone(), POLL);
    while let Some(renewed) = stop.run_until_cancelled(follower.changed()).await {
        tell(&renewed.problems);
        if material.is_same(&renewed.material) {
            continue;
        }
        material = renewed.material;
        match tls(&wanted, &material) {
            Ok(tls) => {
                current.store(access(&asked, Some(tls)));
                info!(directory = %wanted.directory.display(), "admin: certificates, authorities or lists have changed");
            }
            Err(error) => error!(%error, "admin: what was in force before stays so"),
        }
    }
}

fn tell(problems: &[FileError]) {
    for FileError { path, message, fix } in problems {
        warn!(file = %path.display(), fix, "admin: {message}");
    }
}
