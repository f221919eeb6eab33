//! The series of connections, by listener and route: found by two look-ups without allocation, removed when nothing needs them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::model::ending::Ending;

use super::metrics::{About, add, valid};

/// The label of a route that has no series of its own.
pub(super) const OTHER: &str = "other";

const TOTAL: About = About(
    "strait_connections_total",
    "Connections that ended, by listener, route and ending. Without a route: none was found.",
);
const OPEN: About = About("strait_connections_open", "Connections that lead to an endpoint now.");
const BYTES: About = About(
    "strait_bytes_total",
    "Bytes carried: up is client to endpoint, down is endpoint to client.",
);

/// Series of routes that are gone wait for a scrape to take their last counts. When this many wait, nobody scrapes: as many as
/// the default of `metrics.routes`, so that waiting at most doubles what is held.
const MOST_WAITING: usize = 1_000;

/// `connections_total`, `connections_open` and `bytes_total`.
pub(super) struct Series {
    families: Families,
    known: RwLock<Known>,
    /// Admitted labels as the last publish left them; held for a whole admission, which must not stop connections.
    admitted: Mutex<Arc<HashSet<Arc<str>>>>,
}

/// A listener's series of one route. Whoever holds it keeps it from being removed.
pub(super) type Taken = Arc<Pair>;

/// Series that can be removed after the scrape that comes: (route, listener).
pub(super) struct Idle(Vec<(Arc<str>, Arc<str>)>);

struct Families {
    total: IntCounterVec,
    open: IntGaugeVec,
    bytes: IntCounterVec,
}

struct Known {
    routes: HashMap<Arc<str>, RouteSeries>,
    /// Connections that found no route.
    none: RouteSeries,
    other: RouteSeries,
    /// Listeners that exist; none named means that all do.
    listeners: Option<HashSet<Box<str>>>,
}

/// All made at first use: a route that nobody calls takes no series.
#[derive(Default)]
struct RouteSeries {
    retired: bool,
    bytes: OnceLock<[IntCounter; 2]>,
    listeners: HashMap<Arc<str>, Taken>,
}

/// A listener's series of one route.
#[derive(Debug, Default)]
pub(super) struct Pair {
    open: OnceLock<IntGauge>,
    endings: [OnceLock<IntCounter>; Ending::ALL.len()],
}

impl Series {
    pub(super) fn new(registry: &Registry) -> Self {
        let known = Known {
            routes: HashMap::new(),
            none: RouteSeries::default(),
            other: RouteSeries::default(),
            listeners: None,
        };
        Self {
            families: Families::new(registry),
            known: RwLock::new(known),
            admitted: Mutex::default(),
        }
    }

    /// A connection's series, held; its gauge of open connections; bytes up and down.
    pub(super) fn take(
        &self,
        listener: &str,
        route: &str,
    ) -> (Taken, IntGauge, IntCounter, IntCounter) {
        self.with(listener, route, |label, series, pair| {
            let [up, down] = series.bytes.get_or_init(|| self.families.bytes(label));
            let open = pair.open.get_or_init(|| self.families.open(listener, label));
            (Arc::clone(pair), open.clone(), up.clone(), down.clone())
        })
    }

    pub(super) fn ended(&self, listener: &str, route: &str, ending: Ending) {
        self.with(listener, route, |label, _, pair| {
            if let Some(slot) = pair.endings.get(ending as usize) {
                slot.get_or_init(|| self.families.total(listener, label, ending)).inc();
            }
        });
    }

    /// Labels that have series of their own now.
    pub(super) fn admitted(&self) -> Arc<HashSet<Arc<str>>> {
        Arc::clone(&self.admitted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn admit_routes<'a>(
        &self,
        labels: impl IntoIterator<Item = &'a Arc<str>>,
        limit: usize,
    ) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        let next = choose(&admitted, labels, limit);
        self.write(|known| {
            for label in &next {
                known.routes.entry(Arc::clone(label)).or_default();
            }
            for (label, series) in &mut known.routes {
                series.retired = !next.contains(label);
            }
        });
        *admitted = Arc::new(next);
        drop(admitted);
        let idle = self.idle();
        if idle.0.len() > MOST_WAITING {
            self.remove(&idle);
        }
    }

    pub(super) fn admit_listeners<'a>(&self, labels: impl IntoIterator<Item = &'a str>) {
        let listeners = labels.into_iter().map(Box::from).collect();
        self.write(|known| known.listeners = Some(listeners));
    }

    /// Series whose route or listener is gone and that no connection holds.
    pub(super) fn idle(&self) -> Idle {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut idle = Vec::new();
        for (label, series) in known.all() {
            if series.retired && series.listeners.is_empty() {
                idle.push((Arc::clone(&label), Arc::default()));
            }
            for (listener, pair) in &series.listeners {
                if known.is_gone(series, listener) && pair.is_idle() {
                    idle.push((Arc::clone(&label), Arc::clone(listener)));
                }
            }
        }
        Idle(idle)
    }

    /// Removes what is still idle and still gone.
    pub(super) fn remove(&self, idle: &Idle) {
        if idle.0.is_empty() {
            return;
        }
        self.write(|known| {
            for (label, listener) in &idle.0 {
                known.remove(&self.families, label, listener);
            }
        });
    }

    /// The series of a listener and a route with the route's label; made when they are used for the first time.
    fn with<R>(
        &self,
        listener: &str,
        route: &str,
        mut use_them: impl FnMut(&str, &RouteSeries, &Taken) -> R,
    ) -> R {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (label, series) = known.find(route);
        if let Some(pair) = series.listeners.get(listener) {
            return use_them(label, series, pair);
        }
        drop(known);
        self.write(|known| {
            let (label, series) = known.find_mut(route);
            let pair = Arc::clone(series.listeners.entry(listener.into()).or_default());
            use_them(label, series, &pair)
        })
    }

    fn write<R>(&self, change: impl FnOnce(&mut Known) -> R) -> R {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Labels that were admitted and still exist come first, then the others; each in the order given.
fn choose<'a>(
    admitted: &HashSet<Arc<str>>,
    labels: impl IntoIterator<Item = &'a Arc<str>>,
    limit: usize,
) -> HashSet<Arc<str>> {
    let (mut kept, mut fresh) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for label in labels {
        let was = admitted.contains(label);
        if (was || fresh.len() < limit) && seen.insert(label) {
            if was { &mut kept } else { &mut fresh }.push(label);
        }
        if kept.len() == admitted.len() && fresh.len() >= limit {
            break;
        }
    }
    kept.into_iter().chain(fresh).take(limit).map(Arc::clone).collect()
}

impl Known {
    fn find<'a>(&'a self, route: &'a str) -> (&'a str, &'a RouteSeries) {
        if route.is_empty() {
            return ("", &self.none);
        }
        match self.routes.get(route) {
            Some(series) => (route, series),
            None => (OTHER, &self.other),
        }
    }

    fn find_mut<'a>(&'a mut self, route: &'a str) -> (&'a str, &'a mut RouteSeries) {
        if route.is_empty() {
            return ("", &mut self.none);
        }
        match self.routes.get_mut(route) {
            Some(series) => (route, series),
            None => (OTHER, &mut self.other),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Arc<str>, &RouteSeries)> {
        let named = self.routes.iter().map(|(label, series)| (Arc::clone(label), series));
        named.chain([("".into(), &self.none), (OTHER.into(), &self.other)])
    }

    fn is_gone(&self, series: &RouteSeries, listener: &str) -> bool {
        let exists = self.listeners.as_ref().is_none_or(|all| all.contains(listener));
        series.retired || !exists
    }

    fn remove(&mut self, families: &Families, route: &str, listener: &str) {
        let (label, series) = self.find(route);
        // Asked again, now that nobody can take it: a connection may have come since it was found idle.
        if let Some(pair) = series.listeners.get(listener)
            && self.is_gone(series, listener)
            && pair.is_idle()
        {
            families.remove_pair(listener, label, pair);
            self.find_mut(route).1.listeners.remove(listener);
        }
        let (label, series) = self.find(route);
        if series.retired && series.listeners.is_empty() {
            if series.bytes.get().is_some() {
                families.remove_bytes(label);
            }
            self.routes.remove(route);
        }
    }
}

impl Pair {
    /// Counts an ending, if one like it has been counted before: else its counter has to be made.
    pub(super) fn count(&self, ending: Ending) -> bool {
        let counter = self.endings.get(ending as usize).and_then(OnceLock::get);
        counter.inspect(|counter| counter.inc()).is_some()
    }

    /// Nobody but the map holds it, and no connection is open.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.open.get().is_none_or(|open| open.get() == 0)
    }
}

impl Families {
    fn new(registry: &Registry) -> Self {
        let labels = ["listener", "route", "ending"];
        Self {
            total: add(registry, valid(IntCounterVec::new(TOTAL.opts(), &labels))),
            open: add(registry, valid(IntGaugeVec::new(OPEN.opts(), &["listener", "route"]))),
            bytes: add(registry, valid(IntCounterVec::new(BYTES.opts(), &["route", "direction"]))),
        }
    }

    fn total(&self, listener: &str, route: &str, ending: Ending) -> IntCounter {
        self.total.with_label_values(&[listener, route, ending.label()])
    }

    fn open(&self, listener: &str, route: &str) -> IntGauge {
        self.open.with_label_values(&[listener, route])
    }

    fn bytes(&self, route: &str) -> [IntCounter; 2] {
        ["up", "down"].map(|direction| self.bytes.with_label_values(&[route, direction]))
    }

    /// Removing fails only where the series was never made.
    fn remove_pair(&self, listener: &str, route: &str, pair: &Pair) {
        let _ = self.open.remove_label_values(&[listener, route]);
        for (ending, slot) in Ending::ALL.iter().zip(&pair.endings) {
            if slot.get().is_some() {
                let _ = self.total.remove_label_values(&[listener, route, ending.label()]);
            }
        }
    }

    fn remove_bytes(&self, route: &str) {
        for direction in ["up", "down"] {
            let _ = self.bytes.remove_label_values(&[route, direction]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_place_that_is_also_removed() {
        let registry = Registry::new();
        let series = Series::new(&registry);
        let labels: Vec<Arc<str>> = vec!["a".into()];
        series.admit_routes(&labels, 1);
        for ending in Ending::ALL {
            series.ended("in", "a", ending);
        }
        let counted =
            registry.gather().iter().map(|family| family.get_metric().len()).sum::<usize>();
        assert_eq!(counted, Ending::ALL.len());
        series.admit_routes(&[], 1);
        series.remove(&series.idle());
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn a_limit_of_zero_admits_nothing() {
        let labels: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        assert!(choose(&HashSet::new(), &labels, 0).is_empty());
    }

    #[test]
    fn a_label_that_comes_twice_takes_one_place() {
        let labels: Vec<Arc<str>> = vec!["a".into(), "a".into(), "b".into()];
        assert_eq!(choose(&HashSet::new(), &labels, 2).len(), 2);
    }
}
