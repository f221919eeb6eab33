//! Active checks: whether the endpoints in force answer, asked from beside the connections.

mod probe;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::model::snapshot::Check;
use crate::routing::endpoint::Endpoint;
use crate::routing::table::Table;

/// Connects in progress: a check that waits for its time-out holds a socket, and thousands may fail together.
const AT_A_TIME: usize = 256;
/// A new endpoint is checked within this or its interval, whichever is shorter; the moment is left to chance, so that the checks
/// of many endpoints do not go out together, now or at any later interval.
const FIRST_CHECK: Duration = Duration::from_secs(1);

/// The checks of all endpoints in force. They end when this is dropped.
pub struct Probes {
    running: Mutex<HashMap<(SocketAddr, Check), Running>>,
    permits: Arc<Semaphore>,
    chance: RandomState,
    runtime: Handle,
}

/// One endpoint's check, until this is dropped.
struct Running {
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// Nothing to check yet. Checks will run on this runtime, not on those of the connections.
    pub fn new(runtime: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(AT_A_TIME));
        Self { running: Mutex::default(), permits, chance: RandomState::new(), runtime }
    }

    /// Checks what this table wants checked. Endpoints that stay keep their state and their rhythm; the others are let go.
    pub fn follow(&self, table: &Table) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for route in table.routes() {
            for candidate in &route.candidates {
                let endpoint = &candidate.endpoint;
                let Some(check) = endpoint.check else { continue };
                running.entry((endpoint.address, check)).or_insert_with_key(|key| {
                    let same = |old: &Running| Arc::ptr_eq(&old.endpoint, endpoint);
                    let kept = before.remove(key).filter(same);
                    kept.unwrap_or_else(|| self.start(endpoint, check, &route.label))
                });
            }
        }
    }

    fn start(&self, endpoint: &Arc<Endpoint>, check: Check, route: &Arc<str>) -> Running {
        let probe = probe::Probe {
            endpoint: Arc::clone(endpoint),
            check,
            route: Arc::clone(route),
            permits: Arc::clone(&self.permits),
        };
        let first = check.interval.min(FIRST_CHECK).mul_f64(self.chance_of(endpoint));
        let task = self.runtime.spawn(probe.run(first)).abort_handle();
        Running { endpoint: Arc::clone(endpoint), task }
    }

    /// From 0 to 1. std's hasher is keyed with randomness: no generator is needed for so little.
    fn chance_of(&self, endpoint: &Endpoint) -> f64 {
        let hash = self.chance.hash_one(endpoint.address);
        f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        out.debug_struct("Probes").field("running", &running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::NamePattern;
    use crate::model::snapshot::{
        Addresses, Allow, EndpointAt, EndpointSpec, Kind, Origin, RouteSpec, Routes,
    };
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::{Endpoints, Health};
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    /// Whatever happens within this has happened: tests wait for it to be seen, never for the time.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn check(fall: u16) -> Check {
        let (interval, timeout) = (Duration::from_millis(20), PATIENCE);
        Check { interval, timeout, rise: 2, fall }
    }

    fn table(at: &[SocketAddr], check: Option<Check>, endpoints: &mut Endpoints) -> Table {
        let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
        let spec = |&address: &SocketAddr| EndpointSpec {
            at: EndpointAt::Address(address),
            weight: 1,
            priority: 0,
            origin: origin.clone(),
        };
        let route = RouteSpec {
            label: "shop/checkout".into(),
            kind: Kind::Plain,
            names: vec![(NamePattern::parse("a.example").unwrap(), origin.clone())],
            allow: Allow::Open,
            import: None,
            endpoints: at.iter().map(spec).collect(),
            check,
            send_proxy: false,
            quiet_close: true,
            plaintext: false,
        };
        let routes = Routes { routes: vec![route], ..Routes::default() };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        build(&Inputs { routes: &routes, addresses: &addresses, own: &own }, endpoints).unwrap()
    }

    fn endpoint(table: &Table, at: usize) -> Arc<Endpoint> {
        let route = table.routes().next().unwrap();
        Arc::clone(&route.candidates[at].endpoint)
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
    }

    /// Counts connections. On an address of its own, so that no other test gets the port while it is free.
    async fn listen(
        at: SocketAddr,
    ) -> (SocketAddr, Arc<AtomicUsize>, tokio_util::task::AbortOnDropHandle<()>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let accept = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        (at, accepted, tokio_util::task::AbortOnDropHandle::new(accept))
    }

    #[tokio::test]
    async fn an_endpoint_that_goes_away_is_down_until_it_comes_back() {
        let (at, accepted, listener) = listen(([127, 0, 91, 1], 0).into()).await;
        let table = table(&[at], Some(check(3)), &mut Endpoints::default());
        let (probes, endpoint) = (Probes::new(Handle::current()), endpoint(&table, 0));
        probes.follow(&table);
        until("checked", || accepted.load(Ordering::Relaxed) > 1).await;
        assert_eq!(endpoint.health(), Health::Healthy);
        drop(listener);
        until("down", || endpoint.health() == Health::Down).await;
        let (_, accepted, _listener) = listen(at).await;
        until("up", || endpoint.health() == Health::Healthy).await;
        assert!(accepted.load(Ordering::Relaxed) >= 1);
    }

    #[tokio::test]
    async fn the_first_check_of_a_new_endpoint_decides_alone() {
        let (at, _, listener) = listen(([127, 0, 91, 2], 0).into()).await;
        drop(listener);
        let table = table(&[at], Some(check(u16::MAX)), &mut Endpoints::default());
        let (probes, endpoint) = (Probes::new(Handle::current()), endpoint(&table, 0));
        assert_eq!(endpoint.health(), Health::Healthy, "until proven otherwise");
        probes.follow(&table);
        until("down", || endpoint.health() == Health::Down).await;
    }

    #[tokio::test]
    async fn what_stays_goes_on_and_what_goes_is_let_go() {
        let (first, _, _one) = listen(([127, 0, 91, 3], 0).into()).await;
        let (second, _, _two) = listen(([127, 0, 91, 3], 0).into()).await;
        let mut endpoints = Endpoints::default();
        let both = table(&[first, second], Some(check(3)), &mut endpoints);
        let probes = Probes::new(Handle::current());
        probes.follow(&both);
        let ids = |probes: &Probes| -> HashMap<SocketAddr, tokio::task::Id> {
            let running = probes.running.lock().unwrap();
            running.iter().map(|((at, _), running)| (*at, running.task.id())).collect()
        };
        let before = ids(&probes);
        let gone = Arc::downgrade(&endpoint(&both, 1));
        let one = table(&[first], Some(check(3)), &mut endpoints);
        drop(both);
        probes.follow(&one);
        assert_eq!(ids(&probes), HashMap::from([(first, before[&first])]));
        until("let go", || gone.upgrade().is_none()).await;
        probes.follow(&table(&[first], None, &mut endpoints));
        assert!(ids(&probes).is_empty());
    }
}
