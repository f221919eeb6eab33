//! What a cluster is told: the apps that it may call here, and no more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::warn;

use crate::routing::live::{Generation, Live};
use crate::routing::table::Route;

use super::proto::discover_response::Word;
use super::proto::{App, DiscoverResponse, Heartbeat, State};
use super::{HEARTBEAT, MOST_APPS, MOST_NAMES};

/// How often marks of health are looked at: they change without a table, and an app's last endpoint that dies is to be known
/// elsewhere at once. Two hundred apps are read in microseconds.
const LOOK: Duration = Duration::from_millis(50);

/// Tells a cluster what it may call, whenever that changes, until nobody listens or `stop`.
pub(super) async fn tell<S>(
    live: Arc<Live<S>>,
    cluster: Arc<str>,
    words: mpsc::Sender<Result<DiscoverResponse, Status>>,
    stop: CancellationToken,
) {
    let mut teller = Teller::new(cluster);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = words.closed() => return,
            _ = looks.tick() => {}
        }
        if let Some(word) = teller.next(&live.load(), Instant::now()) {
            let word = DiscoverResponse { word: Some(word) };
            if words.send(Ok(word)).await.is_err() {
                return;
            }
        }
    }
}

/// What one cluster was told last.
struct Teller {
    cluster: Arc<str>,
    /// Number of the table that the routes are of; 0 before the first.
    generation: u64,
    routes: Vec<Arc<Route>>,
    state: Option<State>,
    at: Option<Instant>,
}

impl Teller {
    fn new(cluster: Arc<str>) -> Self {
        Self { cluster, generation: 0, routes: Vec::new(), state: None, at: None }
    }

    /// What is to be said now, if anything is.
    fn next<S>(&mut self, generation: &Generation<S>, now: Instant) -> Option<Word> {
        let word = self.word(generation, now)?;
        self.at = Some(now);
        Some(word)
    }

    fn word<S>(&mut self, generation: &Generation<S>, now: Instant) -> Option<Word> {
        if generation.number == 0 {
            // No table yet: what is exported is not known.
            return None;
        }
        let other_table = self.generation != generation.number;
        if other_table {
            self.generation = generation.number;
            self.routes = self.exported(generation);
        }
        if other_table || self.counts_differ() {
            let state = state(generation.table.cluster(), &self.routes);
            if self.state.as_ref() != Some(&state) {
                self.state = Some(state.clone());
                return Some(Word::State(state));
            }
        }
        let silent = self.at.is_none_or(|at| now >= at + HEARTBEAT);
        silent.then_some(Word::Heartbeat(Heartbeat {}))
    }

    fn exported<S>(&self, generation: &Generation<S>) -> Vec<Arc<Route>> {
        let exported = generation.table.exported_to(&self.cluster);
        let named = exported.filter(|route| route.names().next().is_some());
        let mut routes: Vec<_> = named.map(Arc::clone).collect();
        routes.sort_unstable_by(|one, other| one.label.cmp(&other.label));
        if routes.len() > MOST_APPS {
            warn!(cluster = %self.cluster, exported = routes.len(), most = MOST_APPS, "more apps are exported than can be told of: the rest is not");
            routes.truncate(MOST_APPS);
        }
        routes
    }

    fn counts_differ(&self) -> bool {
        let said = self.state.iter().flat_map(|state| &state.apps);
        !said.map(|app| app.healthy_endpoints).eq(self.routes.iter().map(|route| healthy(route)))
    }
}

fn state(own: &Arc<str>, routes: &[Arc<Route>]) -> State {
    let app = |route: &Arc<Route>| App {
        app: route.label.to_string(),
        names: route.names().take(MOST_NAMES).map(ToString::to_string).collect(),
        healthy_endpoints: healthy(route),
    };
    State { cluster: own.to_string(), apps: routes.iter().map(app).collect() }
}

fn healthy(route: &Route) -> u32 {
    u32::try_from(route.healthy_endpoints()).unwrap_or(u32::MAX)
}
