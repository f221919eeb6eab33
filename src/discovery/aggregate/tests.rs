use super::debounce::{AT_MOST, QUIET};
use super::*;
use crate::discovery::Snapshot;
use crate::model::app::AppId;
use crate::model::egress::EgressSpec;
use crate::model::offer::{Callee, Offer, Offers, Presence, Reach};
use crate::model::snapshot::{
    Allow, Answer, EndpointAt, EndpointSpec, GatewaySpec, ImportSpec, Kind, NamespaceImport,
    Offering, Origin, PeerSpec, RouteSpec,
};
use crate::routing::build::OwnListeners;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];

fn name(written: &str) -> Name {
    Name::parse(written).unwrap()
}

fn addresses(known: &[(&str, &[&str])]) -> Addresses {
    let parse = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
    Addresses(known.iter().map(|(host, list)| (name(host), parse(list))).collect())
}

fn update(source: &str, said: Said) -> Update {
    Update { source: source.into(), said }
}

fn origin() -> Origin {
    Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 }
}

fn routes() -> Arc<Routes> {
    let endpoint = |host: &&str| EndpointSpec {
        at: EndpointAt::Host(name(host), 50002),
        weight: 1,
        priority: 0,
        origin: origin(),
    };
    let route = RouteSpec {
        label: "shop/checkout".into(),
        kind: Kind::App,
        names: vec![],
        allow: Allow::Open,
        import: None,
        endpoints: NAMES.iter().map(endpoint).collect(),
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    };
    Arc::new(Routes { routes: vec![route], ..Routes::default() })
}

/// An owner whose tables are empty, and which tells what they would have been made of.
struct Bench {
    handle: Handle<u8>,
    live: Arc<Live<u8>>,
    made_of: Arc<Mutex<Addresses>>,
    /// How many tables were made beside one with the same names.
    beside: Arc<AtomicUsize>,
    published: Arc<AtomicUsize>,
    _stop: tokio_util::sync::DropGuard,
}

/// Addresses in 192.0.2.0/24 make no table, those in 198.51.100.0/24 a panic.
fn bench() -> Bench {
    let made_of = Arc::new(Mutex::new(Addresses::default()));
    let published = Arc::new(AtomicUsize::new(0));
    let (log, count) = (Arc::clone(&made_of), Arc::clone(&published));
    let beside = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&beside);
    let build = move |inputs: &Inputs<'_>, before: Option<&Table>, _: &mut Endpoints| {
        counted.fetch_add(usize::from(before.is_some()), Ordering::Relaxed);
        let all: Vec<IpAddr> = inputs.addresses.0.values().flatten().copied().collect();
        let within = |prefix: &str| all.iter().any(|ip| ip.to_string().starts_with(prefix));
        assert!(!within("198.51.100."), "a panic that the test asked for");
        if within("192.0.2.") {
            let text = "a.example".to_owned();
            let (message, fix) = ("two apps, one address".to_owned(), String::new());
            return Err(vec![BuildError { origin: origin(), text, message, fix }]);
        }
        *log.lock().unwrap() = inputs.addresses.clone();
        Ok(Table::default())
    };
    let live = Arc::new(Live::new(Arc::new(0)));
    let stop = CancellationToken::new();
    let told = Box::new(move |_: &Arc<Generation<u8>>| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let handle = start_with(Arc::new(build), Arc::clone(&live), told, stop.clone());
    Bench { handle, live, made_of, beside, published, _stop: stop.drop_guard() }
}

impl Bench {
    async fn configure(&self) -> u64 {
        let own = OwnListeners::default();
        self.handle.configure(routes(), Arc::new(1), own).await.unwrap()
    }

    async fn say(&self, said: Said) {
        self.handle.updates().send(update("dns", said)).await.unwrap();
    }

    /// Paused time moves only when every task waits: afterwards all that was said is built, also after many builds.
    async fn at_rest(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    fn made_of(&self) -> Addresses {
        self.made_of.lock().unwrap().clone()
    }

    fn status(&self) -> SourceStatus {
        self.handle.sources().remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_built_at_once_with_what_is_known() {
    let bench = bench();
    let known = addresses(&[("a.example", &["10.0.0.1"])]);
    bench.say(Said::from(known.clone())).await;
    bench.at_rest().await;
    assert_eq!(bench.live.load().number, 0, "no configuration, no table");
    let before = Instant::now();
    assert_eq!(bench.configure().await, 1);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(bench.made_of(), known);
    assert_eq!((*bench.live.load().settings, bench.live.load().number), (1, 1));
    assert_eq!(**bench.handle.hosts().borrow(), NAMES.iter().map(|host| name(host)).collect());
}

#[tokio::test(start_paused = true)]
async fn the_same_again_makes_no_generation() {
    let bench = bench();
    let (routes, settings) = (routes(), Arc::new(1));
    let configure = || {
        let (routes, settings) = (Arc::clone(&routes), Arc::clone(&settings));
        bench.handle.configure(routes, settings, OwnListeners::default())
    };
    assert_eq!(configure().await.unwrap(), 1);
    assert_eq!(configure().await.unwrap(), 1);
    bench.say(Said::from(addresses(&[("a.example", &["10.0.0.1", "10.0.0.2"])]))).await;
    bench.at_rest().await;
    bench.say(Said::from(addresses(&[("a.example", &["10.0.0.2", "10.0.0.1"])]))).await;
    bench.at_rest().await;
    bench
        .say(Said::from(addresses(&[("a.example", &["10.0.0.1", "10.0.0.2"]), ("no.route", &[])])))
        .await;
    bench.at_rest().await;
    assert_eq!(bench.live.load().number, 2, "order and names without a route change nothing");
    assert_eq!(bench.published.load(Ordering::Relaxed), 2);
}

/// The same routes, of which the one is an import from east, and what is offered in a namespace.
fn imported() -> Arc<Routes> {
    let mut routes = Routes::clone(&routes());
    let import = ImportSpec {
        allow: Allow::Open,
        own: false,
        gateways: vec![GatewaySpec {
            cluster: "east".into(),
            at: EndpointAt::Host(name("gateway.example"), 8443),
            priority: 0,
            offering: Offering::Unknown,
        }],
        quiet_close: true,
        failback: Duration::ZERO,
        egress: EgressSpec::default(),
        plaintext: false,
        answer: Answer::Linked,
    };
    routes.routes[0].import = Some(import.clone());
    routes.namespaces = vec![NamespaceImport { namespace: "lab".into(), import, origin: origin() }];
    routes.peers =
        vec![PeerSpec { cluster: "east".into(), gateways: vec![], wanted: Arc::default() }];
    Arc::new(routes)
}

fn offers(apps: &[&str]) -> Said {
    let presence = Arc::<Presence>::default();
    let offer = |app: &&str| {
        let reach = Arc::new(Reach::new(&presence, 1));
        (Callee::App(AppId::parse(app).unwrap()), Offer { names: vec![name("far.example")], reach })
    };
    let apps = apps.iter().map(offer).collect();
    let offers = Offers { cluster: "east".into(), apps, ignored: 0 };
    Said::Snapshot(Snapshot::Offers(Arc::new(offers)))
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_brings_no_name_leaves_the_names_as_they_are() {
    let bench = bench();
    let configure = |routes| bench.handle.configure(routes, Arc::new(1), OwnListeners::default());
    configure(imported()).await.unwrap();
    for (apps, beside) in [
        (&["shop/checkout"][..], 1),
        (&[], 2),
        (&["shop/checkout", "lab/new"], 2),
        (&["lab/new"], 3),
    ] {
        let before = bench.live.load().number;
        bench.say(offers(apps)).await;
        bench.at_rest().await;
        assert_eq!(bench.live.load().number, before + 1, "{apps:?}");
        assert_eq!(bench.beside.load(Ordering::Relaxed), beside, "{apps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn updates_are_gathered_until_it_is_quiet() {
    let bench = bench();
    bench.configure().await;
    let start = Instant::now();
    for last in 1..=4 {
        bench.say(Said::from(addresses(&[("a.example", &[&format!("10.0.0.{last}")])]))).await;
        tokio::time::sleep(QUIET / 2).await;
    }
    while bench.live.load().number == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bench.made_of(), addresses(&[("a.example", &["10.0.0.4"])]));
    assert_eq!(bench.live.load().number, 2);
    assert!(start.elapsed() >= QUIET / 2 * 3 + QUIET, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_pauses_does_not_hold_the_table_back() {
    let bench = bench();
    bench.configure().await;
    let start = Instant::now();
    for last in (1..=250).cycle() {
        bench.say(Said::from(addresses(&[("a.example", &[&format!("10.0.0.{last}")])]))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if bench.live.load().number > 1 {
            break;
        }
    }
    assert!(start.elapsed() >= AT_MOST && start.elapsed() < AT_MOST + QUIET);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changes_without_rest_makes_two_tables_a_second() {
    let bench = bench();
    bench.configure().await;
    let start = Instant::now();
    let last = loop {
        let last = start.elapsed().as_millis() / 50 % 250 + 1;
        let known = addresses(&[("a.example", &[&format!("10.0.0.{last}")])]);
        bench.say(Said::from(known.clone())).await;
        if start.elapsed() >= Duration::from_secs(10) {
            break known;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let tables = bench.live.load().number - 1;
    assert!((15..=21).contains(&tables), "{tables}");
    bench.at_rest().await;
    assert_eq!(bench.made_of(), last, "the final state is reached");
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_what_nothing_empties() {
    let bench = bench();
    bench.configure().await;
    let known = addresses(&[("a.example", &["10.0.0.1"])]);
    bench.say(Said::from(known.clone())).await;
    bench.at_rest().await;
    let heard = bench.status().last_ok;
    bench.say(Said::Failed("SERVFAIL".into())).await;
    bench.at_rest().await;
    assert_eq!((bench.made_of(), bench.live.load().number), (known, 2));
    let status = bench.status();
    assert_eq!((status.up, status.last_ok, status.spoken), (false, heard, true));
    assert_eq!(status.last_error.as_deref(), Some("SERVFAIL"));
    bench.say(Said::from(addresses(&[]))).await;
    bench.at_rest().await;
    assert_eq!((bench.made_of(), bench.live.load().number), (addresses(&[]), 3));
    assert!(bench.status().up);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_in_force_but_no_word_of_the_source() {
    let bench = bench();
    bench.configure().await;
    bench.handle.expect("dns");
    let known = addresses(&[("a.example", &["10.0.0.1"])]);
    let as_of = std::time::SystemTime::now() - Duration::from_hours(1);
    bench.say(Said::Remembered(known.clone().into(), as_of)).await;
    bench.at_rest().await;
    assert_eq!(bench.made_of(), known);
    let status = bench.status();
    assert_eq!((status.up, status.spoken, status.remembered), (false, false, Some(as_of)));
    assert!(status.age() >= Some(Duration::from_hours(1)));
    bench.say(Said::Failed("SERVFAIL".into())).await;
    bench.handle.settled().await;
    let status = bench.status();
    assert_eq!((status.up, status.remembered), (false, Some(as_of)), "an outage is no news");
    bench.say(Said::Unchanged).await;
    bench.at_rest().await;
    let status = bench.status();
    assert_eq!((status.up, status.remembered, bench.made_of()), (true, None, known));
    assert!(status.age() < Some(Duration::from_mins(1)));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_table_changes_nothing_and_is_healed_by_what_does() {
    let bench = bench();
    bench.configure().await;
    let good = addresses(&[("a.example", &["10.0.0.1"])]);
    bench.say(Said::from(good.clone())).await;
    bench.at_rest().await;
    for (bad, error) in [
        ("192.0.2.1", "strait.yaml:1:1: a.example: two apps, one address"),
        ("198.51.100.1", "panicked"),
    ] {
        bench.say(Said::from(addresses(&[("a.example", &[bad])]))).await;
        bench.at_rest().await;
        assert_eq!((bench.made_of(), bench.live.load().number), (good.clone(), 2));
        let status = bench.status();
        assert!(!status.up && status.last_error.unwrap().contains(error));
        let own = OwnListeners::default();
        let refused = bench.handle.configure(routes(), Arc::new(2), own).await;
        assert!(refused.is_err(), "{bad}");
        assert_eq!(*bench.live.load().settings, 1);
    }
    bench.say(Said::from(addresses(&[("b.example", &["10.0.0.1"])]))).await;
    bench.at_rest().await;
    assert_eq!(bench.live.load().number, 3);
    assert!(bench.status().up);
}

#[tokio::test(start_paused = true)]
async fn settled_means_that_every_announced_source_has_spoken_and_is_in_force() {
    let bench = bench();
    bench.handle.settled().await;
    bench.handle.expect("dns");
    bench.handle.expect("consul");
    bench.configure().await;
    let settled = tokio::spawn({
        let (handle, live) = (bench.handle.clone(), Arc::clone(&bench.live));
        async move {
            handle.settled().await;
            live.load().number
        }
    });
    bench.say(Said::from(addresses(&[("a.example", &["10.0.0.1"])]))).await;
    bench.at_rest().await;
    assert!(!settled.is_finished(), "consul is silent");
    let failed = update("consul", Said::Failed("connection refused".into()));
    bench.say(Said::from(addresses(&[("a.example", &["10.0.0.2"])]))).await;
    bench.handle.updates().send(failed).await.unwrap();
    assert_eq!(settled.await.unwrap(), 2);
}

#[tokio::test]
async fn after_the_stop_a_configuration_is_not_taken() {
    let stop = CancellationToken::new();
    let live = Arc::new(Live::new(Arc::new(0)));
    let handle = start_with(
        Arc::new(|_: &Inputs<'_>, _: Option<&Table>, _: &mut Endpoints| Ok(Table::default())),
        live,
        Box::new(|_| ()),
        stop.clone(),
    );
    stop.cancel();
    let answer = handle.configure(routes(), Arc::new(1), OwnListeners::default()).await;
    assert!(matches!(answer, Err(ConfigureError::Stopping)));
}

/// What happens in the property below, each after a pause.
#[derive(Debug, Clone)]
enum Step {
    Say(&'static str, Said),
    Configure,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let list = prop::collection::vec((1u8..4).prop_map(|last| [10, 0, 0, last].into()), 0..3);
    let host = prop::sample::select(&NAMES[..]).prop_map(name);
    let known = prop::collection::hash_map(host, list, 0..3).prop_map(Addresses);
    let said = prop_oneof![
        4 => known.prop_map(Said::from),
        1 => Just(Said::Unchanged),
        1 => Just(Said::Failed("down".into())),
    ];
    let source = prop::sample::select(vec!["dns", "consul", "kubernetes"]);
    let step = prop_oneof![
        6 => (source, said).prop_map(|(source, said)| Step::Say(source, said)),
        1 => Just(Step::Configure),
    ];
    prop::collection::vec((step, prop::sample::select(vec![0, 1, 30, 60, 250])), 1..25)
}

/// The naive model: the last snapshot of each source, joined.
fn joined(last: &BTreeMap<&str, Addresses>) -> Addresses {
    let mut joined = BTreeMap::<Name, BTreeSet<IpAddr>>::new();
    for (host, list) in last.values().flat_map(|known| &known.0) {
        joined.entry(host.clone()).or_default().extend(list);
    }
    Addresses(joined.into_iter().map(|(host, set)| (host, set.into_iter().collect())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_interleaving_ends_in_the_last_snapshots(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = bench();
            bench.configure().await;
            let mut last = BTreeMap::new();
            for (step, pause) in steps {
                match step {
                    Step::Say(source, said) => {
                        if let Said::Snapshot(Snapshot::Addresses(known)) = &said {
                            last.insert(source, known.clone());
                        }
                        bench.handle.updates().send(update(source, said)).await.unwrap();
                    }
                    Step::Configure => {
                        bench.configure().await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            bench.at_rest().await;
            assert_eq!(bench.made_of(), joined(&last));
            assert_eq!(bench.live.load().number, bench.published.load(Ordering::Relaxed) as u64);
        });
    }
}
