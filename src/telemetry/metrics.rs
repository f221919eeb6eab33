//! Prometheus metrics, `strait_` prefix, base units. No label ever comes from what a client sends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::model::ending::Ending;

use super::dns::Dns;
use super::links::Links;
use super::observed::Observed;
use super::process::ProcessCollector;
use super::series::{Series, Taken};

/// Half a millisecond, a hello from the same rack, up to the longest `helloTimeout` and `connectTotal` that make sense.
const SECONDS_TO_START: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// From a refusal up to a month. 180 s is when a Dapr sidecar gives up an idle connection, 3,600 s our own default.
const SECONDS_OF_LIFE: &[f64] = &[
    0.01,
    0.1,
    1.0,
    10.0,
    60.0,
    200.0,
    600.0,
    3_700.0,
    21_600.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
];

/// Name and help text of a metric.
#[derive(Clone, Copy)]
pub(super) struct About(pub(super) &'static str, pub(super) &'static str);

const BUILD_INFO: About = About("strait_build_info", "Always 1; the labels tell what runs.");
const HELLO_SECONDS: About = About("strait_hello_seconds", "Accept to the last byte of the hello.");
const CONNECT_SECONDS: About =
    About("strait_connect_seconds", "Route found to endpoint connected, failed attempts included.");
const CONNECTION_SECONDS: About =
    About("strait_connection_seconds", "Accept to the end, of every connection.");
const LIMIT_REFUSALS: About =
    About("strait_limit_refusals_total", "Connections refused because of a limit.");
const TABLE_ROUTES: About =
    About("strait_table_routes", "Names in the routing table, wildcards included.");
const TABLE_GENERATION: About =
    About("strait_table_generation", "Number of the routing table in force.");
const TABLE_CHANGED: About = About(
    "strait_table_changed_timestamp_seconds",
    "When the routing table in force was published.",
);
const CONFIG_REJECTED: About = About(
    "strait_config_rejected_total",
    "Configuration changes that were invalid and left the last good one in force.",
);
const DISCOVERY_UP: About =
    About("strait_discovery_up", "Whether the last attempt of the source succeeded: 1 or 0.");
const DISCOVERY_AGE: About = About(
    "strait_discovery_age_seconds",
    "Since what the source knows was last known to be true. Absent while nothing is known.",
);
const ENDPOINTS: About = About("strait_endpoints", "Endpoints by route and state.");
const CERTIFICATE_EXPIRY: About = About(
    "strait_certificate_expiry_timestamp_seconds",
    "When the certificate that links are opened and accepted with expires, and the revocation list.",
);
const DOCUMENTS_REJECTED: About = About(
    "strait_allowed_documents_rejected",
    "Values in the store of allowed apps that are no documents. What was there before is in force in their place.",
);
const LINES_DROPPED: About = About(
    "strait_log_lines_dropped_total",
    "Log lines lost because whoever reads stderr was too slow.",
);

/// What the scrape asks of the rest of the gateway.
type Observer = Box<dyn Fn(&mut Observed) + Send + Sync>;

/// All metrics of one gateway, in a registry of its own.
pub struct Metrics {
    registry: Registry,
    series: Series,
    hello_seconds: Histogram,
    connect_seconds: Histogram,
    connection_seconds: Histogram,
    limit_refusals: IntCounterVec,
    table_routes: IntGauge,
    table_generation: IntGauge,
    table_changed: Gauge,
    config_rejected: IntCounter,
    watch: Mutex<Watch>,
    /// What is counted of links.
    pub links: Links,
    /// What is counted of the name server.
    pub dns: Dns,
}

/// What is asked for at each scrape, and where the answers go. One lock: two scrapes at once would mix their answers.
struct Watch {
    observer: Option<Observer>,
    discovery_up: IntGaugeVec,
    discovery_age: GaugeVec,
    endpoints: IntGaugeVec,
    certificate_expiry: GaugeVec,
    documents_rejected: IntGauge,
    lines_dropped: IntCounter,
}

/// What an established connection counts into while it lives. While any clone is held, its series stay.
#[derive(Debug, Clone)]
pub struct RouteMeters {
    /// `connections_open{listener,route}`; raised by whoever takes the meters, lowered when the connection ends.
    pub open: IntGauge,
    /// `bytes_total{route,direction="up"}`: client to endpoint.
    pub bytes_up: IntCounter,
    /// `bytes_total{route,direction="down"}`: endpoint to client.
    pub bytes_down: IntCounter,
    series: Taken,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let registry = Registry::new();
        add(&registry, build_info());
        add(&registry, ProcessCollector::new());
        let of = &registry;
        Self {
            series: Series::new(of),
            hello_seconds: histogram(of, HELLO_SECONDS, SECONDS_TO_START),
            connect_seconds: histogram(of, CONNECT_SECONDS, SECONDS_TO_START),
            connection_seconds: histogram(of, CONNECTION_SECONDS, SECONDS_OF_LIFE),
            limit_refusals: add(of, valid(IntCounterVec::new(LIMIT_REFUSALS.opts(), &["limit"]))),
            table_routes: add(of, valid(IntGauge::with_opts(TABLE_ROUTES.opts()))),
            table_generation: add(of, valid(IntGauge::with_opts(TABLE_GENERATION.opts()))),
            table_changed: add(of, valid(Gauge::with_opts(TABLE_CHANGED.opts()))),
            config_rejected: add(of, valid(IntCounter::with_opts(CONFIG_REJECTED.opts()))),
            watch: Mutex::new(Watch::new(of)),
            links: Links::new(of),
            dns: Dns::new(of),
            registry,
        }
    }

    /// Meters of a connection that has found its route. A label that is not among the admitted ones is `other`.
    pub fn meters(&self, listener: &str, route: &str) -> RouteMeters {
        let (series, open, bytes_up, bytes_down) = self.series.take(listener, route);
        RouteMeters { open, bytes_up, bytes_down, series }
    }

    /// A connection ended. `route` is empty when none was found; else its meters, which are still held, so that a route that has
    /// left the table meanwhile does not become `other`.
    pub fn ended(
        &self,
        listener: &str,
        route: &str,
        meters: Option<&RouteMeters>,
        ending: Ending,
        lasted: Duration,
    ) {
        // Looking the labels up again is for the first connection that ends so.
        if !meters.is_some_and(|meters| meters.series.count(ending)) {
            self.series.ended(listener, route, ending);
        }
        self.connection_seconds.observe(lasted.as_secs_f64());
    }

    /// Accept to the hello's last byte.
    pub fn hello(&self, took: Duration) {
        self.hello_seconds.observe(took.as_secs_f64());
    }

    /// Route found to endpoint connected, failed attempts included.
    pub fn connected(&self, took: Duration) {
        self.connect_seconds.observe(took.as_secs_f64());
    }

    /// A connection was refused because of a limit, named as the setting is: `connections`.
    pub fn limit_refused(&self, limit: &'static str) {
        self.limit_refusals.with_label_values(&[limit]).inc();
    }

    /// A table came into force: its number of names, its generation and when.
    pub fn published(&self, routes: usize, generation: u64, at: SystemTime) {
        self.table_routes.set(i64::try_from(routes).unwrap_or(i64::MAX));
        self.table_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.table_changed.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// A change of the configuration was invalid and has no effect.
    pub fn config_rejected(&self) {
        self.config_rejected.inc();
    }

    /// Which routes have series of their own, at every publish: those that have them already and still exist, then the others in
    /// the order given, at most `limit`. Series of labels that are gone disappear once they have no open connection.
    pub fn admit_routes<'a>(&self, labels: impl IntoIterator<Item = &'a Arc<str>>, limit: usize) {
        self.series.admit_routes(labels, limit);
    }

    /// Which listeners exist, at every change of them: series of those that are gone disappear in the same way.
    pub fn admit_listeners<'a>(&self, labels: impl IntoIterator<Item = &'a str>) {
        self.series.admit_listeners(labels);
    }

    /// Hands in what tells the state of sources and endpoints at each scrape. The last one handed in counts.
    pub fn observe(&self, observer: impl Fn(&mut Observed) + Send + Sync + 'static) {
        self.lock().observer = Some(Box::new(observer));
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let watch = self.lock();
        watch.refresh(&self.series);
        // Told before the text is made, removed after: the last counts of a route that is gone are scraped once.
        let idle = self.series.idle();
        let mut text = Vec::new();
        // Cannot fail: it writes to memory, and the registry gathers no family without metrics.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        self.series.remove(&idle);
        String::from_utf8(text).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Watch {
    fn new(registry: &Registry) -> Self {
        let up = valid(IntGaugeVec::new(DISCOVERY_UP.opts(), &["source"]));
        let age = valid(GaugeVec::new(DISCOVERY_AGE.opts(), &["source"]));
        let endpoints = valid(IntGaugeVec::new(ENDPOINTS.opts(), &["route", "state"]));
        let expiry = valid(GaugeVec::new(CERTIFICATE_EXPIRY.opts(), &["role"]));
        Self {
            observer: None,
            discovery_up: add(registry, up),
            discovery_age: add(registry, age),
            endpoints: add(registry, endpoints),
            certificate_expiry: add(registry, expiry),
            documents_rejected: add(
                registry,
                valid(IntGauge::with_opts(DOCUMENTS_REJECTED.opts())),
            ),
            lines_dropped: add(registry, valid(IntCounter::with_opts(LINES_DROPPED.opts()))),
        }
    }

    fn refresh(&self, series: &Series) {
        let Some(observer) = &self.observer else { return };
        let mut told = Observed::new(series.admitted());
        observer(&mut told);
        self.discovery_up.reset();
        self.discovery_age.reset();
        self.endpoints.reset();
        self.certificate_expiry.reset();
        for (source, up, age) in told.sources() {
            self.discovery_up.with_label_values(&[source]).set(i64::from(up));
            if let Some(age) = age {
                self.discovery_age.with_label_values(&[source]).set(age.as_secs_f64());
            }
        }
        for (route, state, count) in told.endpoints() {
            self.endpoints.with_label_values(&[route, state]).set(count);
        }
        for &(role, at) in &told.expiries {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.certificate_expiry.with_label_values(&[role]).set(at.as_secs_f64());
        }
        self.documents_rejected.set(i64::try_from(told.documents_rejected).unwrap_or(i64::MAX));
        self.lines_dropped.reset();
        self.lines_dropped.inc_by(told.log_lines_dropped);
    }
}

fn build_info() -> IntGaugeVec {
    let info = valid(IntGaugeVec::new(BUILD_INFO.opts(), &["version"]));
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    info
}

fn histogram(registry: &Registry, about: About, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::from(about.opts()).buckets(buckets.to_vec());
    add(registry, valid(Histogram::with_opts(opts)))
}

impl About {
    pub(super) fn opts(self) -> Opts {
        Opts::new(self.0, self.1)
    }
}

/// Registers a collector and gives it back for use.
pub(super) fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    valid(registry.register(Box::new(collector.clone())));
    collector
}

/// Names, labels and buckets are constants of this module: they are valid for good, or every test that makes metrics fails.
#[expect(clippy::expect_used, reason = "the input is constant, so the result is too")]
pub(super) fn valid<T>(made: prometheus::Result<T>) -> T {
    made.expect("metric names, labels and buckets are valid constants")
}

#[cfg(test)]
mod tests {
    use super::super::observed::EndpointState;
    use super::*;

    fn labels(written: &[&str]) -> Vec<Arc<str>> {
        written.iter().map(|&label| label.into()).collect()
    }

    /// A whole connection that moves bytes.
    fn carry(metrics: &Metrics, listener: &str, route: &str, up: u64, down: u64) {
        let meters = metrics.meters(listener, route);
        meters.open.inc();
        metrics.hello(Duration::from_millis(3));
        metrics.connected(Duration::from_micros(700));
        meters.bytes_up.inc_by(up);
        meters.bytes_down.inc_by(down);
        meters.open.dec();
        metrics.ended(listener, route, Some(&meters), Ending::Completed, Duration::from_secs(90));
    }

    #[test]
    fn the_text_of_a_whole_scene() {
        let metrics = Metrics::new();
        metrics.admit_routes(&labels(&["shop/checkout", "shop/orders", "shop/late"]), 2);
        metrics.published(5, 7, UNIX_EPOCH + Duration::from_millis(1_700_000_000_500));
        metrics.config_rejected();
        metrics.observe(|observed| {
            observed.source("file", true, Some(Duration::from_millis(1500)));
            observed.source("dns", false, None);
            observed.endpoint("shop/checkout", EndpointState::Healthy);
            observed.endpoint("shop/checkout", EndpointState::Healthy);
            observed.endpoint("shop/checkout", EndpointState::Ejected);
            observed.endpoint("shop/late", EndpointState::Down);
            observed.log_lines_dropped = 4;
            observed.documents_rejected = 2;
        });
        carry(&metrics, "[::]:8443", "shop/checkout", 10, 200);
        carry(&metrics, "[::]:8443", "shop/late", 1, 2);
        let live = metrics.meters("[::]:50002", "shop/orders");
        live.open.inc();
        metrics.ended("[::]:8443", "shop/orders", None, Ending::Denied, Duration::from_millis(500));
        metrics.ended("[::]:8443", "", None, Ending::NoServerName, Duration::from_millis(250));
        metrics.limit_refused("connections");
        let text = metrics.text().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        let ours: String = text
            .split_inclusive('\n')
            .filter(|line| !line.contains(" process_") && !line.starts_with("process_"))
            .collect();
        assert_eq!(ours, include_str!("metrics.snapshot.txt"), "\n{ours}");
    }

    #[test]
    fn process_metrics_have_the_names_that_operators_know() {
        let text = Metrics::new().text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 500_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") > 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - value("process_start_time_seconds")).abs() < 600.0);
    }

    #[test]
    fn admitted_routes_keep_their_place() {
        let metrics = Metrics::new();
        metrics.admit_routes(&labels(&["a", "b"]), 2);
        metrics.admit_routes(&labels(&["c", "b", "a"]), 2);
        carry(&metrics, "in", "a", 1, 0);
        carry(&metrics, "in", "c", 1, 0);
        let text = metrics.text();
        assert!(text.contains(r#"strait_bytes_total{direction="up",route="a"} 1"#), "{text}");
        assert!(text.contains(r#"strait_bytes_total{direction="up",route="other"} 1"#), "{text}");
        metrics.admit_routes(&labels(&["c", "b"]), 2);
        carry(&metrics, "in", "c", 5, 0);
        assert!(metrics.text().contains(r#"strait_bytes_total{direction="up",route="c"} 5"#));
    }

    #[test]
    fn series_of_a_gone_route_stay_while_a_connection_lives_and_are_scraped_once_more() {
        let metrics = Metrics::new();
        metrics.admit_routes(&labels(&["gone"]), 10);
        let meters = metrics.meters("in", "gone");
        meters.open.inc();
        metrics.admit_routes(&labels(&["new"]), 10);
        assert!(
            metrics.text().contains(r#"strait_connections_open{listener="in",route="gone"} 1"#)
        );
        meters.bytes_down.inc_by(42);
        metrics.ended("in", "gone", Some(&meters), Ending::Completed, Duration::from_secs(1));
        meters.open.dec();
        drop(meters);
        let last = metrics.text();
        assert!(last.contains(r#"strait_bytes_total{direction="down",route="gone"} 42"#), "{last}");
        assert!(last.contains(
            r#"strait_connections_total{ending="completed",listener="in",route="gone"} 1"#
        ));
        let after = metrics.text();
        assert!(!after.contains("gone"), "{after}");
    }

    #[test]
    fn meters_that_are_taken_but_not_yet_open_keep_their_series() {
        let metrics = Metrics::new();
        metrics.admit_routes(&labels(&["gone"]), 10);
        let meters = metrics.meters("in", "gone");
        metrics.admit_routes(&labels(&[]), 10);
        let _ = (metrics.text(), metrics.text());
        meters.open.inc();
        assert!(
            metrics.text().contains(r#"strait_connections_open{listener="in",route="gone"} 1"#)
        );
    }

    #[test]
    fn configuration_churn_without_scrapes_leaks_nothing() {
        let metrics = Metrics::new();
        for round in 0..1_500 {
            let label = format!("route-{round}");
            metrics.admit_routes(&labels(&[&label]), 10);
            carry(&metrics, "in", &label, 1, 1);
        }
        let lines = metrics.text().lines().count();
        assert!(lines < 4_000, "{lines} lines");
        let lines = metrics.text().lines().count();
        assert!(lines < 150, "{lines} lines after a scrape");
    }

    #[test]
    fn series_of_a_gone_listener_go_with_its_last_connection() {
        let metrics = Metrics::new();
        metrics.admit_routes(&labels(&["a"]), 10);
        metrics.admit_listeners(["old", "kept"]);
        carry(&metrics, "old", "a", 1, 1);
        carry(&metrics, "kept", "a", 1, 1);
        metrics.ended("old", "", None, Ending::NotTls, Duration::ZERO);
        metrics.admit_listeners(["kept"]);
        let _ = metrics.text();
        let text = metrics.text();
        assert!(!text.contains("old"), "{text}");
        assert!(text.contains(r#"listener="kept""#), "{text}");
        assert!(text.contains(r#"strait_bytes_total{direction="up",route="a"} 2"#), "{text}");
    }
}
