//! A configuration without a gateway: what `check` and `explain --config` look at.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::config::problem::MAX_PROBLEMS;
use crate::config::{self, AdminAddress, Config, Loaded, Problem, Reading};
use crate::discovery::aggregate::{self, enter_configured};
use crate::model::snapshot::{Addresses, Routes};
use crate::routing::build::{BuildError, Inputs, OwnListeners, build};
use crate::routing::endpoint::Endpoints;
use crate::routing::table::Table;
use crate::socket;

use super::{guarding, links};

/// A configuration and the table that it makes while nobody has resolved a name.
#[derive(Debug)]
pub struct Offline {
    /// The configuration with its warnings.
    pub loaded: Loaded,
    /// The table.
    pub table: Table,
}

/// Loads a configuration and builds its table, as a gateway does at its start. Names that collide are told together with all
/// else that is wrong, so that nobody mends the one only to learn of the other.
pub fn offline(path: &Path) -> Result<Offline, Vec<Problem>> {
    let Reading { outcome, partial, .. } = config::read(path);
    match outcome {
        Ok(loaded) => {
            let own = own(&loaded.config);
            let routes = enter_configured(&loaded.config.routes);
            let table = table(&routes, &own).map_err(problems)?;
            Ok(Offline { loaded, table })
        }
        Err(mut found) => {
            // A list that was cut ends with a word on the rest.
            if found.len() <= MAX_PROBLEMS {
                let collisions =
                    partial.and_then(|routes| table(&routes, &OwnListeners::default()).err());
                found.extend(problems(collisions.unwrap_or_default()));
                found.sort_by(|one, other| one.place().cmp(&other.place()));
            }
            Err(found)
        }
    }
}

/// The same with the egress addresses that `egress.lock` holds, where it can be read from here.
pub fn offline_with_egress(path: &Path) -> Result<Offline, Vec<Problem>> {
    let Offline { loaded, table } = offline(path)?;
    let table = aggregate::looked_up(&loaded.config.routes, table);
    Ok(Offline { loaded, table })
}

/// Everything that is wrong with a configuration, the files of its links and of the admin API included: what a gateway would refuse to start with.
pub fn check(path: &Path) -> Result<Offline, Vec<Problem>> {
    let mut offline = offline(path)?;
    let config = &offline.loaded.config;
    let found = [links::check(config), guarding::check(config)];
    let mut errors = Vec::new();
    for found in found {
        match found {
            Ok(warnings) => offline.loaded.warnings.extend(warnings),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(offline)
}

/// The table that routes make while nobody has resolved a name.
fn table(routes: &Routes, own: &OwnListeners) -> Result<Table, Vec<BuildError>> {
    let inputs = Inputs { routes, addresses: &Addresses::default(), own };
    build(&inputs, &mut Endpoints::default())
}

/// What makes a table impossible, as problems of the files that ask for it. Each file is read once: it may have a million lines,
/// and a hundred of them may be wrong.
pub(super) fn problems(errors: Vec<BuildError>) -> Vec<Problem> {
    let mut texts = HashMap::new();
    let mut problem = |BuildError { origin, text, message, fix }| {
        let source = texts
            .entry(Arc::clone(&origin.file))
            .or_insert_with(|| fs::read_to_string(&origin.file).unwrap_or_default());
        Problem::found_later(&origin, source, &text, message, fix)
    };
    errors.into_iter().map(&mut problem).collect()
}

/// Listeners as written: a port 0 is no port that anybody could dial.
fn own(config: &Config) -> OwnListeners {
    let listeners = &config.listeners;
    let admin = match &listeners.admin {
        AdminAddress::Tcp(address) => Some(*address),
        AdminAddress::Unix(_) => None,
    };
    let ingress = listeners.ingress.iter().map(|ingress| ingress.address);
    let written = ingress.chain(listeners.metrics).chain(admin);
    let bound = written.filter(|address| address.port() != 0).collect();
    OwnListeners { bound, is_local: socket::is_local }
}
