//! The record of a connection: one log line and one count, whatever becomes of it.

use std::borrow::Cow;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Level;

use crate::config::{ConnectionLog, OnRevoke, Settings};
use crate::model::app::AppId;
use crate::model::client::{Client, Side};
use crate::model::ending::{Alert, Ending};
use crate::model::name::CanonicalName;
use crate::reactor::{self, Socket};
use crate::routing::endpoint::OpenConnection;
use crate::routing::holds::Stay;
use crate::routing::order::{Order, Standing};
use crate::routing::table::{At, Decision};
use crate::telemetry::links::{Direction, OpenLink};
use crate::telemetry::metrics::RouteMeters;
use crate::telemetry::refusals::Refusal;

use super::Shared;
use super::admission::{Limit, Permit};
use super::awaited::Awaited;
use super::connection;
use super::engine::{Carried, Finish};
use super::id::ConnectionId;
use super::link::Leg;
use super::listener::Listening;
use super::places::Place;
use super::refuse::{self, Refused};
use super::relay::End;

/// What is known of a connection. Written once: when it is told how the connection ended, or else, as after a panic, on drop.
///
/// Nothing in it is a client's raw bytes: a name is here only when it is canonical, everything else is our own text.
#[derive(Debug)]
pub(super) struct Record {
    shared: Arc<Shared>,
    listening: Arc<Listening>,
    id: ConnectionId,
    accepted: Instant,
    client: Client,
    log: ConnectionLog,
    name: Option<Box<str>>,
    route: Option<(Arc<str>, RouteMeters)>,
    /// The app of this cluster that it was taken for.
    caller: Option<AppId>,
    /// Where it was led by permission of this cluster: that may be taken back.
    permitted: bool,
    /// Its own order of clusters.
    order: Option<Arc<Order>>,
    /// The cluster that it was put on a link to.
    via: Option<Arc<str>>,
    /// A name of the import that has endpoints which go before this one.
    home: Option<Box<str>>,
    attempts: u32,
    hello: Option<Duration>,
    connect: Option<Duration>,
    written: bool,
    pub(super) held: Held,
}

/// What a connection holds beside its sockets: free again once its record is written and gone.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Its places under the limits.
    pub(super) permit: Option<Permit>,
    /// Its share of the endpoint's load.
    pub(super) load: Option<OpenConnection>,
    /// Its link.
    pub(super) link: Option<OpenLink>,
    /// Its place among those on which its cluster asks.
    pub(super) inquiry: Option<Place>,
    /// It is open.
    pub(super) open: Option<TaskTrackerToken>,
    /// Came by a name, to what that led to.
    pub(super) stay: Option<Stay>,
}

/// How it ended.
#[derive(Debug)]
struct Outcome {
    ending: Ending,
    alert: Option<Alert>,
    reason: Option<Cow<'static, str>>,
    hint: Option<&'static str>,
    limit: Option<Limit>,
    /// No byte ever came, as of load balancers' probes.
    silent: bool,
    bytes_up: u64,
    bytes_down: u64,
}

impl Record {
    /// Opens the record of an accepted connection.
    pub(super) fn new(
        shared: Arc<Shared>,
        listening: Arc<Listening>,
        peer: SocketAddr,
        accepted: Instant,
        settings: &Settings,
    ) -> Self {
        Self {
            id: shared.ids.next(),
            shared,
            listening,
            accepted,
            client: Client::direct(peer),
            log: settings.log,
            name: None,
            route: None,
            caller: None,
            permitted: false,
            order: None,
            via: None,
            home: None,
            attempts: 0,
            hello: None,
            connect: None,
            written: false,
            held: Held::default(),
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The id that another gateway gave it: one connection has the same in both logs.
    pub(super) fn adopt(&mut self, id: ConnectionId) {
        self.id = id;
    }

    /// As whom it was admitted, and to what.
    pub(super) fn decided(&mut self, decision: &Decision) {
        self.caller.clone_from(&decision.caller);
        self.permitted = decision.side == Side::Local && decision.route.import.is_some();
        self.order.clone_from(&decision.order);
    }

    /// Whether what it was admitted by does not hold any more, and the operator wants its like closed.
    fn is_forbidden(&self) -> bool {
        if !self.permitted {
            return false;
        }
        let generation = self.shared.live.load();
        let at = match &self.listening.tenure {
            Some(tenure) => At::Egress(tenure.bind),
            None => At::Name(self.name()),
        };
        generation.settings.on_revoke == OnRevoke::Close
            && !generation.table.still_admits(
                at,
                &self.client,
                self.caller.as_ref(),
                self.via.as_ref(),
            )
    }

    /// Who it is, as far as a PROXY header or a link told.
    pub(super) fn client(&mut self, client: Client) {
        self.client = client;
    }

    /// The hello is whole.
    pub(super) fn hello(&mut self, name: Option<&CanonicalName>) {
        let took = self.accepted.elapsed();
        self.shared.metrics.hello(took);
        self.hello = Some(took);
        self.name = name.map(|name| name.as_str().into());
    }

    /// What applies from the decision on.
    pub(super) fn settings(&mut self, settings: &Settings) {
        self.log = settings.log;
    }

    /// The name's route. The connection is one of its open ones until it ends.
    pub(super) fn route(&mut self, label: &Arc<str>) {
        let meters = self.shared.metrics.meters(&self.listening.label, label);
        meters.open.inc();
        self.route = Some((Arc::clone(label), meters));
    }

    /// The counters of the route's bytes up and down.
    pub(super) fn counters(&self) -> Option<(IntCounter, IntCounter)> {
        let (_, meters) = self.route.as_ref()?;
        Some((meters.bytes_up.clone(), meters.bytes_down.clone()))
    }

    /// Whether it is at an endpoint that others go before, and may come back to one of those. Remembers by which name to ask.
    pub(super) fn is_away(&mut self, decision: &Decision) -> bool {
        let Decision { route, side, .. } = decision;
        let second = |load: &OpenConnection| route.is_second(decision.standing(), load.endpoint());
        let away = self.held.load.as_ref().is_some_and(second) && route.failback(*side).is_some();
        let names = route.import.as_ref().map(|import| &*import.names).unwrap_or_default();
        self.home = names.first().filter(|_| away).map(|name| name.as_str().into());
        self.home.is_some()
    }

    /// Where endpoints that were tried are counted.
    pub(super) fn attempts(&mut self) -> &mut u32 {
        &mut self.attempts
    }

    /// An endpoint is connected, whose load this is until the end.
    pub(super) fn connected(&mut self, load: OpenConnection) {
        let took = self.accepted.elapsed().saturating_sub(self.hello.unwrap_or_default());
        self.shared.metrics.connected(took);
        self.connect = Some(took);
        self.held.load = Some(load);
    }

    /// It goes over a link to this cluster, or over none.
    pub(super) fn linked(&mut self, cluster: Option<Arc<str>>) {
        if cluster.is_some() || self.via.is_some() {
            let open = |cluster: &Arc<str>| self.shared.metrics.links.open(cluster, Direction::Out);
            self.held.link = cluster.as_ref().map(open);
            self.via = cluster;
        }
    }

    /// Whether it has to end because its address or its name is to be another app's, or because it is not permitted any more.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_of_another_app() || self.is_forbidden()
    }

    fn is_of_another_app(&self) -> bool {
        let name = self.held.stay.as_ref().is_some_and(Stay::is_revoked);
        name || self.listening.is_revoked()
    }

    /// The listener that it came to.
    pub(super) fn listening(&self) -> Arc<Listening> {
        Arc::clone(&self.listening)
    }

    /// The client as the socket shows it.
    pub(super) fn peer(&self) -> SocketAddr {
        self.client.peer
    }

    /// Who the client is.
    pub(super) fn who(&self) -> &Client {
        &self.client
    }

    /// The name that it asked for.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The endpoint that it is connected to, as the log has it.
    pub(super) fn endpoint(&self) -> String {
        let at = self.held.load.as_ref().map(|load| load.endpoint().address);
        match (&self.via, at) {
            (Some(cluster), Some(at)) => format!("{cluster}, {at}"),
            (None, Some(at)) => at.to_string(),
            (_, None) => String::new(),
        }
    }

    /// Whether an endpoint that the import prefers has been well for its `failback`, and for `share` of that again: so they who
    /// went elsewhere come back one by one. Asks the table in force, whose endpoints may be others than at the connection's begin.
    pub(super) fn is_due_back(&self, share: f64) -> bool {
        let generation = self.shared.live.load();
        let found = self.home.as_ref().and_then(|name| generation.table.lookup(name));
        let Some((found, load)) = found.zip(self.held.load.as_ref()) else { return false };
        let now = std::time::Instant::now();
        let standing = Standing { side: Side::Local, order: self.order.as_deref() };
        let well = found.route.preferable(standing, load.endpoint(), now);
        let wait = found.route.failback(Side::Local);
        wait.zip(well).is_some_and(|(wait, well)| well >= wait.mul_f64(1.0 + share))
    }

    /// It was refused. `spoke`: at least a byte came.
    pub(super) fn refused(&mut self, refused: &Refused, spoke: bool) {
        if let Some(limit) = refused.limit {
            self.shared.metrics.limit_refused(limit.label());
        }
        self.ended(&Outcome {
            alert: refused.alert,
            reason: Some(refused.reason.clone()),
            hint: refused.hint,
            limit: refused.limit,
            silent: !spoke && refused.ending == Ending::ClientGone,
            ..Outcome::plain(refused.ending)
        });
    }

    /// It was relayed to its end.
    pub(super) fn relayed(&mut self, end: End, bytes_up: u64, bytes_down: u64) {
        let ending = match end {
            End::Finished => Ending::Completed,
            End::ResetByClient => Ending::ResetByClient,
            End::ResetByEndpoint => Ending::ResetByEndpoint,
            End::Idle => Ending::IdleTimeout,
            End::Stopped if self.is_revoked() => Ending::Revoked,
            End::Silent => Ending::ConnectFailed,
            End::Quiet | End::Stopped => Ending::Drained,
            End::Fault => Ending::Internal,
        };
        let mut outcome = Outcome { bytes_up, bytes_down, ..Outcome::plain(ending) };
        if end == End::Quiet {
            outcome.reason = Some("closed between two calls".into());
        } else if ending == Ending::Revoked && !self.is_of_another_app() {
            outcome.reason = Some("the caller may not call it any more".into());
        }
        self.ended(&outcome);
    }

    /// Logs and counts, the first time.
    fn ended(&mut self, outcome: &Outcome) {
        if mem::replace(&mut self.written, true) {
            return;
        }
        let lasted = self.accepted.elapsed();
        // Over a limit they come by the thousand, and all for the same reason.
        let told = outcome.limit.map_or(Some(0), |limit| self.shared.complaints.due(limit));
        if let Some(unlogged) = told {
            self.write(outcome, lasted, unlogged);
        }
        let (label, meters) = match &self.route {
            Some((label, meters)) => (&**label, Some(meters)),
            None => ("", None),
        };
        self.shared.metrics.ended(&self.listening.label, label, meters, outcome.ending, lasted);
        if let Some(meters) = meters {
            meters.open.dec();
        }
        if outcome.ending.is_refusal() && told.is_some() {
            self.shared.refusals.note(Refusal {
                at: SystemTime::now(),
                client: self.client.source,
                name: self.name.take(),
                ending: outcome.ending,
                hint: outcome.hint,
            });
        }
    }

    /// `unlogged` are refusals for the same limit before this one that nothing was told of.
    fn write(&self, outcome: &Outcome, lasted: Duration, unlogged: u64) {
        if !self.is_wanted(outcome.ending) {
            return;
        }
        // A macro for each level: an event's level is part of its static metadata.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "strait::connection",
                    $level,
                    id = %self.id,
                    listener = &*self.listening.label,
                    client = %self.client.source,
                    peer = (self.client.peer != self.client.source)
                        .then(|| tracing::field::display(self.client.peer)),
                    cluster = self.client.link.as_ref().map(|link| &*link.cluster),
                    caller = self.calling().map(tracing::field::display),
                    name = self.name.as_deref(),
                    route = self.route.as_ref().map(|(label, _)| &**label),
                    via = self.via.as_deref(),
                    endpoint = self.held.load.as_ref().map(|load| tracing::field::display(load.endpoint().address)),
                    ending = outcome.ending.label(),
                    reason = outcome.reason.as_deref(),
                    hint = outcome.hint,
                    limit = outcome.limit.map(Limit::label),
                    unlogged = (unlogged > 0).then_some(unlogged),
                    alert = outcome.alert.map(Alert::label),
                    bytes_up = outcome.bytes_up,
                    bytes_down = outcome.bytes_down,
                    attempts = self.attempts,
                    hello_ms = self.hello.map(milliseconds),
                    connect_ms = self.connect.map(milliseconds),
                    total_ms = milliseconds(lasted),
                )
            };
        }
        match level(outcome) {
            Level::ERROR => line!(Level::ERROR),
            Level::WARN => line!(Level::WARN),
            Level::INFO => line!(Level::INFO),
            Level::DEBUG | Level::TRACE => line!(Level::DEBUG),
        }
    }

    /// The app that calls: known by its address, or claimed by the cluster that the link is of.
    fn calling(&self) -> Option<&AppId> {
        let claimed = self.client.link.as_ref().and_then(|link| link.app.as_ref());
        claimed.or(self.caller.as_ref())
    }

    fn is_wanted(&self, ending: Ending) -> bool {
        match self.log {
            ConnectionLog::All => true,
            ConnectionLog::Refusals => ending.is_refusal(),
            ConnectionLog::None => false,
        }
    }
}

impl Finish for Record {
    fn finish(mut self: Box<Self>, carried: Carried) {
        self.relayed(carried.end, carried.up, carried.down);
    }

    fn is_revoked(&self) -> bool {
        Self::is_revoked(self)
    }

    fn unanswered(self: Box<Self>, carried: Carried, client: Socket, awaited: Box<Awaited>) {
        reactor::spawn(connection::go_on(self, Leg::Plain(client), *awaited, &carried));
    }

    fn is_due_back(&self, share: f64) -> bool {
        Self::is_due_back(self, share)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            // The task panicked, or it was dropped with its whole core.
            let panicked = std::thread::panicking();
            let ending = if panicked { Ending::Internal } else { Ending::Drained };
            self.ended(&Outcome::plain(ending));
        }
    }
}

impl Outcome {
    fn plain(ending: Ending) -> Self {
        let hint = refuse::hint(ending);
        let (bytes_up, bytes_down) = (0, 0);
        Self {
            ending,
            alert: None,
            reason: None,
            hint,
            limit: None,
            silent: false,
            bytes_up,
            bytes_down,
        }
    }
}

/// For people: microseconds are as fine as it gets, and seconds would be written as `7.8e-5`.
fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// Warnings are for what the operator can mend; what strangers do to an open port is no more than information.
fn level(outcome: &Outcome) -> Level {
    match outcome.ending {
        Ending::Internal => Level::ERROR,
        Ending::UnknownCaller
        | Ending::RefusedByFar
        | Ending::LinkRefused
        | Ending::NoHealthyEndpoint
        | Ending::ConnectFailed
        | Ending::Revoked
        | Ending::Overloaded
        | Ending::Loop => Level::WARN,
        Ending::ClientGone if outcome.silent => Level::DEBUG,
        Ending::Completed
        | Ending::ClientGone
        | Ending::BadProxyHeader
        | Ending::HelloTimeout
        | Ending::NotTls
        | Ending::MalformedHello
        | Ending::NoServerName
        | Ending::UnknownName
        | Ending::Denied
        | Ending::ResetByClient
        | Ending::ResetByEndpoint
        | Ending::IdleTimeout
        | Ending::Drained => Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Mutex;

    use tokio_util::sync::CancellationToken;

    use crate::routing::endpoint::Endpoints;
    use crate::routing::live::Live;
    use crate::telemetry::metrics::Metrics;

    /// What a gateway and its log hold after `connection` was recorded.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shared(log: ConnectionLog) -> Arc<Shared> {
        let settings = Arc::new(Settings { log, ..Settings::default() });
        Arc::new(Shared::new(
            Arc::new(Live::new(settings)),
            Arc::new(Metrics::new()),
            Arc::default(),
        ))
    }

    /// Lets `tell` fill the record of a connection; the log lines that come of it, from `level` up.
    fn logged(level: Level, log: ConnectionLog, tell: impl FnOnce(&mut Record)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let shared = shared(log);
            let listening =
                Listening::new("[::]:8443".parse().unwrap(), &[], CancellationToken::new());
            let peer = "192.0.2.1:4711".parse().unwrap();
            let settings = Arc::clone(&shared.live.load().settings);
            tell(&mut Record::new(shared, Arc::new(listening), peer, Instant::now(), &settings));
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn one_line_tells_a_connection() {
        let lines = logged(Level::INFO, ConnectionLog::All, |record| {
            record.client(Client {
                source: "198.51.100.7:5".parse().unwrap(),
                ..record.client.clone()
            });
            record.hello(Some(&CanonicalName::parse(b"Checkout.Shop.example").unwrap()));
            record.route(&"shop/checkout".into());
            *record.attempts() += 2;
            let endpoint = Endpoints::default().intern("10.0.0.7:50002".parse().unwrap(), None);
            record.connected(endpoint.connection());
            record.relayed(End::ResetByClient, 1514, 4000);
        });
        assert_eq!(lines.lines().count(), 1, "{lines}");
        for field in [
            " INFO strait::connection",
            "listener=\"[::]:8443\"",
            "client=198.51.100.7:5",
            "peer=192.0.2.1:4711",
            "name=\"checkout.shop.example\"",
            "route=\"shop/checkout\"",
            "endpoint=10.0.0.7:50002",
            "ending=\"reset_by_client\"",
            "bytes_up=1514 bytes_down=4000 attempts=2",
        ] {
            assert!(lines.contains(field), "{field} in {lines}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let refused = Refused::new(Ending::Loop, "it leads back");
        let lines =
            logged(Level::INFO, ConnectionLog::Refusals, |record| record.refused(&refused, true));
        assert!(lines.contains(" WARN strait::connection"), "{lines}");
        assert!(
            lines.contains("reason=\"it leads back\" hint=\"an endpoint of the route"),
            "{lines}"
        );
        assert!(lines.contains("alert=\"internal_error\""), "{lines}");
    }

    #[test]
    fn the_setting_filters() {
        let completed = |record: &mut Record| record.relayed(End::Finished, 0, 0);
        let refused = Refused::new(Ending::UnknownName, "no route");
        let refused = |record: &mut Record| record.refused(&refused, true);
        assert_eq!(logged(Level::INFO, ConnectionLog::Refusals, completed), "");
        assert_ne!(logged(Level::INFO, ConnectionLog::Refusals, refused), "");
        assert_eq!(logged(Level::INFO, ConnectionLog::None, refused), "");
    }

    #[test]
    fn a_probe_without_a_byte_is_for_debugging() {
        let gone = Refused::new(Ending::ClientGone, "closed");
        let probe = |record: &mut Record| record.refused(&gone, false);
        assert_eq!(logged(Level::INFO, ConnectionLog::All, probe), "");
        assert!(
            logged(Level::DEBUG, ConnectionLog::All, probe).contains("DEBUG strait::connection")
        );
        let half = |record: &mut Record| record.refused(&gone, true);
        assert!(logged(Level::INFO, ConnectionLog::All, half).contains("client_gone"));
    }

    #[tokio::test]
    async fn a_panic_loses_its_connection_only_and_is_recorded() {
        let shared = shared(ConnectionLog::All);
        shared.metrics.admit_listeners(["[::]:8443"]);
        let (there, open) = (Arc::clone(&shared), shared.shutdown.connection());
        let connection = async move {
            let _open = open;
            let listening =
                Listening::new("[::]:8443".parse().unwrap(), &[], CancellationToken::new());
            let peer = "192.0.2.1:4711".parse().unwrap();
            let settings = Arc::clone(&there.live.load().settings);
            let _record = Record::new(there, Arc::new(listening), peer, Instant::now(), &settings);
            panic!("as a fault of ours would");
        };
        let ended = tokio::spawn(connection).await;
        assert!(ended.is_err());
        assert_eq!(shared.shutdown.open_connections(), 0);
        let text = shared.metrics.text();
        assert!(
            text.contains("ending=\"internal\",listener=\"[::]:8443\",route=\"\"} 1"),
            "{text}"
        );
    }
}
