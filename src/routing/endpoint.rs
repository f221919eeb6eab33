//! An endpoint and what is known of it. Lives as long as a route or a connection names it; survives every rebuild.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use crate::model::snapshot::Check;

use super::holds::Holds;

/// Failed connects in a row that eject an endpoint: one may be chance, and a pod that restarts fails many.
const FAILURES_TO_EJECT: u32 = 3;
/// The first ejection; each further one is twice as long. A daprd tries a call again after a second.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// The longest ejection: an endpoint that comes back is found within a minute without any active check.
const LONGEST_EJECTION: Duration = Duration::from_mins(1);
/// Dials in progress of one route. Each holds a client's hello and a socket for up to `limits.connectTotal`; a thousand in
/// flight means three hundred new connections a second to endpoints that do not answer.
const MAX_DIALS: u32 = 1024;

/// A sidecar's address with its health and load.
///
/// The numbers are written and read by all cores without order between them: a choice made on a number that is a moment old
/// is as good as any.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to dial.
    pub address: SocketAddr,
    /// Its active check, if the route asks for one.
    pub check: Option<Check>,
    open: AtomicU32,
    /// Failed connects since the last successful one; those during an ejection do not count.
    failures: AtomicU32,
    /// Milliseconds since [`CLOCK`] at which the ejection ends; in the past for one that is not ejected.
    ejected_until: AtomicU64,
    /// Seconds since [`CLOCK`] when something last spoke against it, or when it became known. In seconds it fits into what would be
    /// padding: there may be a million.
    troubled: AtomicU32,
    down: AtomicBool,
}

/// What is known of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Nothing speaks against it.
    Healthy,
    /// Failed connects in a row; not tried for a while.
    Ejected,
    /// Its active check says so.
    Down,
}

impl Health {
    /// Every state, for metrics.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Ejected, Self::Down];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

/// What ejections are counted from, because an atomic cannot hold an [`Instant`]. Starts with the first endpoint.
static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Endpoint {
    fn new(address: SocketAddr, check: Option<Check>) -> Self {
        LazyLock::force(&CLOCK);
        Self {
            address,
            check,
            open: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            troubled: AtomicU32::new(seconds(Instant::now())),
            down: AtomicBool::new(false),
        }
    }

    /// Health at this moment.
    pub fn health(&self) -> Health {
        self.health_at(Instant::now())
    }

    /// Health at a moment.
    pub fn health_at(&self, now: Instant) -> Health {
        if self.down.load(Relaxed) {
            Health::Down
        } else if milliseconds(now) < self.ejected_until() {
            Health::Ejected
        } else {
            Health::Healthy
        }
    }

    /// For how long nothing has spoken against it, to a second; nothing while something does.
    pub fn well_for(&self, now: Instant) -> Option<Duration> {
        if self.health_at(now) != Health::Healthy {
            return None;
        }
        let since = u64::from(self.troubled.load(Relaxed)).max(self.ejected_until().div_ceil(1000));
        Some(Duration::from_secs(u64::from(seconds(now)).saturating_sub(since)))
    }

    /// When its ejection ends, or ended. Only good to compare.
    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Relaxed)
    }

    /// Connections open now, dials in progress included.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Counts a connection as open until the value is dropped.
    pub fn connection(self: &Arc<Self>) -> OpenConnection {
        self.open.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A connect succeeded: no ejection, back-off starts over.
    pub fn connected(&self) {
        // Read first: this runs for every connection, and a line that nobody writes stays in every core's cache.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            if self.ejected_until.swap(0, Relaxed) != 0 {
                // Only now is it known that it is back.
                self.troubled.fetch_max(seconds(Instant::now()), Relaxed);
            }
        }
    }

    /// A connect failed: after some in a row the endpoint is ejected, longer each time.
    pub fn failed(&self) {
        self.failed_at(Instant::now());
    }

    /// A connect failed at a moment.
    pub fn failed_at(&self, now: Instant) {
        // A hundred dials that fail together are one failure of the endpoint: without this they would raise the back-off from
        // a second to its limit at once.
        if milliseconds(now) < self.ejected_until() {
            return;
        }
        self.troubled.store(seconds(now), Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if let Some(times) = failures.checked_sub(FAILURES_TO_EJECT) {
            let length =
                FIRST_EJECTION.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
            let until = milliseconds(now + length.min(LONGEST_EJECTION));
            self.ejected_until.store(until, Relaxed);
        }
    }

    /// It is not there: ejected at once, as if it had failed often enough.
    pub fn lost(&self) {
        self.failures.fetch_max(FAILURES_TO_EJECT - 1, Relaxed);
        self.failed();
    }

    /// The active check's verdict.
    pub fn checked(&self, up: bool) {
        if !up {
            self.troubled.store(seconds(Instant::now()), Relaxed);
        }
        let was_down = self.down.swap(!up, Relaxed);
        if up && was_down {
            // The check has just connected, several times as a rule: what failed before it is history.
            self.connected();
        }
    }
}

/// At least 1, because 0 stands for never.
fn milliseconds(now: Instant) -> u64 {
    let since = now.saturating_duration_since(*CLOCK);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn seconds(now: Instant) -> u32 {
    let since = now.saturating_duration_since(*CLOCK);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// A connection that counts as open at its endpoint until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<Endpoint>);

impl OpenConnection {
    /// Where it goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Dials of one route that are in progress.
#[derive(Debug, Default)]
pub struct Dials(AtomicU32);

impl Dials {
    /// Room for one more dial until the value is dropped; `None` at the limit.
    pub fn permit(self: &Arc<Self>) -> Option<DialPermit> {
        let more = |dials: u32| (dials < MAX_DIALS).then_some(dials + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(DialPermit(Arc::clone(self)))
    }
}

/// The right to dial for a route.
#[derive(Debug)]
pub struct DialPermit(Arc<Dials>);

impl Drop for DialPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// What outlives a table: endpoints by address, check and cluster, dials by route. Both are gone when no table and no connection
/// names them.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// Those without a check. By themselves, because there may be a million, and room for a check doubles what each costs here.
    plain: HashMap<SocketAddr, Weak<Endpoint>>,
    checked: HashMap<(SocketAddr, Check), Weak<Endpoint>>,
    /// By cluster: what fails as one cluster's gateway may well answer as a sidecar, or as another's.
    gateways: HashMap<(SocketAddr, Arc<str>), Weak<Endpoint>>,
    dials: HashMap<Box<str>, Weak<Dials>>,
    /// Which route has a name, for those who came by it.
    pub(super) holds: Holds,
}

impl Endpoints {
    /// The living endpoint for an address and check, or a new one.
    pub fn intern(&mut self, address: SocketAddr, check: Option<Check>) -> Arc<Endpoint> {
        let known = match check {
            None => self.plain.entry(address).or_default(),
            Some(check) => self.checked.entry((address, check)).or_default(),
        };
        living(known, address, check)
    }

    /// The living endpoint for a gateway of a cluster, or a new one. Gateways have no active check: links tell how they are.
    pub fn intern_gateway(&mut self, address: SocketAddr, cluster: &Arc<str>) -> Arc<Endpoint> {
        let known = self.gateways.entry((address, Arc::clone(cluster))).or_default();
        living(known, address, None)
    }

    /// The living count of a route's dials, or a new one.
    pub(super) fn dials(&mut self, route: &str) -> Arc<Dials> {
        if let Some(living) = self.dials.get(route).and_then(Weak::upgrade) {
            return living;
        }
        let dials = Arc::default();
        self.dials.insert(route.into(), Arc::downgrade(&dials));
        dials
    }

    /// Forgets what nobody names any more. Part of every build.
    pub(super) fn purge(&mut self) {
        self.plain.retain(|_, endpoint| endpoint.strong_count() > 0);
        self.checked.retain(|_, endpoint| endpoint.strong_count() > 0);
        self.gateways.retain(|_, endpoint| endpoint.strong_count() > 0);
        self.dials.retain(|_, dials| dials.strong_count() > 0);
        self.holds.purge();
    }

    /// Every living endpoint.
    pub fn living(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        let all = self.plain.values().chain(self.checked.values()).chain(self.gateways.values());
        all.filter_map(Weak::upgrade)
    }
}

/// What is still known, or else a new one in its place.
fn living(known: &mut Weak<Endpoint>, address: SocketAddr, check: Option<Check>) -> Arc<Endpoint> {
    known.upgrade().unwrap_or_else(|| {
        let endpoint = Arc::new(Endpoint::new(address, check));
        *known = Arc::downgrade(&endpoint);
        endpoint
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Endpoints::default().intern("10.0.0.1:50002".parse().unwrap(), None)
    }

    /// How long a failure at `now` ejects, to the millisecond.
    fn ejection(endpoint: &Endpoint, now: Instant) -> Duration {
        endpoint.failed_at(now);
        let ejected = |milliseconds: &u64| {
            endpoint.health_at(now + Duration::from_millis(*milliseconds)) == Health::Ejected
        };
        let length = (0..LONGEST_EJECTION.as_secs() * 2000).find(|at| !ejected(at));
        Duration::from_millis(length.unwrap())
    }

    #[test]
    fn failures_in_a_row_eject_longer_each_time() {
        let endpoint = endpoint();
        let mut now = Instant::now();
        let mut lengths = vec![];
        for _ in 0..10 {
            let length = ejection(&endpoint, now);
            lengths.push(length.as_secs());
            now += length;
        }
        assert_eq!(lengths, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        endpoint.connected();
        assert_eq!(endpoint.health_at(now), Health::Healthy);
        assert_eq!(ejection(&endpoint, now), Duration::ZERO);
    }

    #[test]
    fn failures_that_come_together_are_one() {
        let endpoint = endpoint();
        let now = Instant::now();
        (0..200).for_each(|_| endpoint.failed_at(now));
        assert_eq!(endpoint.health_at(now), Health::Ejected);
        assert_eq!(endpoint.health_at(now + FIRST_EJECTION), Health::Healthy);
    }

    #[test]
    fn a_success_between_failures_starts_the_count_over() {
        let endpoint = endpoint();
        for _ in 0..10 {
            endpoint.failed();
            endpoint.failed();
            endpoint.connected();
        }
        assert_eq!(endpoint.health(), Health::Healthy);
    }

    #[test]
    fn a_check_rules_over_ejection_and_ends_it_when_it_brings_up() {
        let endpoint = endpoint();
        let now = Instant::now();
        (0..3).for_each(|_| endpoint.failed_at(now));
        endpoint.checked(true);
        assert_eq!(endpoint.health_at(now), Health::Ejected, "the check has never seen it down");
        endpoint.checked(false);
        assert_eq!(endpoint.health_at(now), Health::Down);
        endpoint.checked(true);
        assert_eq!(endpoint.health_at(now), Health::Healthy);
    }

    #[test]
    fn what_is_lost_is_ejected_at_once() {
        let endpoint = endpoint();
        endpoint.lost();
        assert_eq!(endpoint.health(), Health::Ejected);
        let after = Instant::now() + FIRST_EJECTION;
        assert_eq!(endpoint.health_at(after), Health::Healthy);
    }

    #[test]
    fn an_endpoint_is_well_since_the_last_that_spoke_against_it() {
        let endpoint = endpoint();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let well = |seconds| endpoint.well_for(at(seconds)).map(|time| time.as_secs());
        assert!((99..=101).contains(&well(100).unwrap()));
        endpoint.failed_at(at(100));
        assert!((49..=51).contains(&well(150).unwrap()), "one failure ejects nobody");
        (0..2).for_each(|_| endpoint.failed_at(at(150)));
        assert_eq!(well(150), None, "ejected");
        assert!((8..=9).contains(&well(160).unwrap()), "since the ejection has ended");
        endpoint.connected();
        assert!((9..=11).contains(&well(160).unwrap()), "since the last failure");
        endpoint.checked(false);
        assert_eq!(well(1000), None, "down");
    }

    #[test]
    fn open_connections_count_until_they_are_dropped() {
        let endpoint = endpoint();
        let connections = [endpoint.connection(), endpoint.connection()];
        assert_eq!(endpoint.open(), 2);
        drop(connections);
        assert_eq!(endpoint.open(), 0);
    }

    #[test]
    fn dials_are_bounded_and_come_back() {
        let dials = Arc::<Dials>::default();
        let permits: Vec<_> = (0..MAX_DIALS).map_while(|_| dials.permit()).collect();
        assert_eq!(permits.len(), MAX_DIALS as usize);
        assert!(dials.permit().is_none());
        drop(permits);
        assert!(dials.permit().is_some());
    }

    #[test]
    fn endpoints_live_as_long_as_somebody_names_them() {
        let mut endpoints = Endpoints::default();
        let address = "10.0.0.1:50002".parse().unwrap();
        let held = endpoints.intern(address, None);
        held.failed();
        let connection = held.connection();
        let dials = endpoints.dials("route");
        let _permit = dials.permit();
        drop((held, dials));
        endpoints.purge();
        assert!(Arc::ptr_eq(&endpoints.intern(address, None), connection.endpoint()));
        assert_eq!(endpoints.dials.len(), 1, "a dial in progress keeps its count");
        drop(connection);
        endpoints.purge();
        assert_eq!(endpoints.living().count(), 0);
        assert!(endpoints.plain.is_empty());
    }

    #[test]
    fn a_gateways_marks_are_its_own() {
        let mut endpoints = Endpoints::default();
        let address = "10.0.0.1:8443".parse().unwrap();
        let east = endpoints.intern_gateway(address, &"east".into());
        assert!(Arc::ptr_eq(&east, &endpoints.intern_gateway(address, &"east".into())));
        let others =
            [endpoints.intern(address, None), endpoints.intern_gateway(address, &"south".into())];
        (0..FAILURES_TO_EJECT).for_each(|_| east.failed());
        assert_eq!(east.health(), Health::Ejected);
        assert!(others.iter().all(|other| other.health() == Health::Healthy));
    }

    #[test]
    fn another_check_makes_another_endpoint() {
        let mut endpoints = Endpoints::default();
        let address = "10.0.0.1:50002".parse().unwrap();
        let check = Check {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        let (plain, checked) =
            (endpoints.intern(address, None), endpoints.intern(address, Some(check)));
        checked.checked(false);
        assert_eq!((plain.health(), checked.health()), (Health::Healthy, Health::Down));
    }
}
