//! What the rest of the gateway tells at a scrape: states that are not counted as they change, because they can be asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::series::OTHER;

/// The answers of one scrape.
#[derive(Debug)]
pub struct Observed {
    /// Log lines lost so far.
    pub log_lines_dropped: u64,
    /// When what links are opened and accepted with expires, by its role.
    pub expiries: Vec<(&'static str, SystemTime)>,
    /// Values in the store of allowed apps that are no documents.
    pub documents_rejected: usize,
    admitted: Arc<HashSet<Arc<str>>>,
    sources: BTreeMap<String, (bool, Option<Duration>)>,
    endpoints: HashMap<Arc<str>, [i64; EndpointState::ALL.len()]>,
    other: [i64; EndpointState::ALL.len()],
}

/// Label `state` of `endpoints{route,state}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// May be dialled.
    Healthy,
    /// Left out for a while after failed connects.
    Ejected,
    /// Its active check says that it is down.
    Down,
    /// Configured, but no candidate: its name has no address, or it is the gateway itself.
    Absent,
}

impl EndpointState {
    const ALL: [Self; 4] = [Self::Healthy, Self::Ejected, Self::Down, Self::Absent];

    fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Absent => "absent",
        }
    }
}

impl Observed {
    pub(super) fn new(admitted: Arc<HashSet<Arc<str>>>) -> Self {
        Self {
            log_lines_dropped: 0,
            expiries: Vec::new(),
            documents_rejected: 0,
            admitted,
            sources: BTreeMap::new(),
            endpoints: HashMap::new(),
            other: [0; EndpointState::ALL.len()],
        }
    }

    /// A discovery source: whether its last attempt succeeded, and how long ago it last said what it knows.
    pub fn source(&mut self, name: &str, up: bool, age: Option<Duration>) {
        self.sources.insert(name.to_owned(), (up, age));
    }

    /// One endpoint of a route. Endpoints of routes that are not admitted add up under `other`.
    pub fn endpoint(&mut self, route: &str, state: EndpointState) {
        let counts = match self.admitted.get(route) {
            Some(label) => self.endpoints.entry(Arc::clone(label)).or_default(),
            None => &mut self.other,
        };
        if let Some(count) = counts.get_mut(state as usize) {
            *count += 1;
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, bool, Option<Duration>)> {
        self.sources.iter().map(|(name, &(up, age))| (&**name, up, age))
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&str, &'static str, i64)> {
        let other = (self.other != [0; EndpointState::ALL.len()]).then_some((OTHER, &self.other));
        let named = self.endpoints.iter().map(|(label, counts)| (&**label, counts));
        named.chain(other).flat_map(|(label, counts)| {
            EndpointState::ALL
                .iter()
                .zip(counts)
                .map(move |(state, &count)| (label, state.label(), count))
        })
    }
}
