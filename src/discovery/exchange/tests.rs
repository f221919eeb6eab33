use super::*;
use crate::discovery::Snapshot;
use crate::exchange::proto::discover_response::Word;
use crate::exchange::proto::exchange_server::{Exchange, ExchangeServer};
use crate::exchange::proto::{App, DiscoverRequest, DiscoverResponse, Heartbeat, State};
use crate::exchange::{HEARTBEAT, MOST_APPS};
use crate::model::offer::{Offers, Wanted};
use crate::routing::endpoint::{Endpoint, Endpoints, Health};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// What a made-up gateway does when it is dialled.
#[derive(Debug, Clone)]
enum Does {
    /// Says these words, one every heartbeat, and then heartbeats.
    Says(Vec<Word>),
    /// Says these, and then nothing.
    FallsSilent(Vec<Word>),
    /// Accepts a link that never is one.
    Hangs,
    /// Refuses, having been reached.
    Refuses,
    /// Says what is no HTTP/2.
    Babbles,
    /// What is not there refuses the connection.
    IsDown,
}

/// The gateways of `east`, and who asks them.
struct Bench {
    does: Arc<Mutex<HashMap<u16, Does>>>,
    dialled: Arc<Mutex<Vec<u16>>>,
    endpoints: Vec<Arc<Endpoint>>,
    metrics: Arc<Metrics>,
    peers: watch::Sender<Arc<[Peer]>>,
    updates: mpsc::Receiver<Update>,
    _stop: tokio_util::sync::DropGuard,
}

struct Fake(Does);

#[tonic::async_trait]
impl Exchange for Fake {
    type DiscoverStream = ReceiverStream<Result<DiscoverResponse, Status>>;

    async fn discover(
        &self,
        _: Request<DiscoverRequest>,
    ) -> Result<Response<Self::DiscoverStream>, Status> {
        let (words, said) = mpsc::channel(1);
        let (list, goes_on) = match &self.0 {
            Does::Says(list) => (list.clone(), true),
            Does::FallsSilent(list) => (list.clone(), false),
            Does::Hangs | Does::Refuses | Does::Babbles | Does::IsDown => unreachable!(),
        };
        tokio::spawn(async move {
            let beats = std::iter::repeat_with(|| Word::Heartbeat(Heartbeat {}));
            let beats = beats.take(if goes_on { usize::MAX } else { 0 });
            for word in list.into_iter().chain(beats) {
                if words.send(Ok(DiscoverResponse { word: Some(word) })).await.is_err() {
                    return;
                }
                tokio::time::sleep(HEARTBEAT).await;
            }
            words.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

fn undialled(answered: bool, why: &str) -> Result<Box<dyn Stream>, Undialled> {
    Err(Undialled { answered, why: why.to_owned() })
}

async fn dialled(does: Does) -> Result<Box<dyn Stream>, Undialled> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    match does {
        Does::Hangs => std::future::pending().await,
        Does::Refuses => return undialled(true, "unknown issuer"),
        Does::IsDown => return undialled(false, "connection refused"),
        Does::Babbles => {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = far.write_all(&[0xff; 4096]).await;
                let mut rest = Vec::new();
                let _ = far.read_to_end(&mut rest).await;
            });
        }
        Does::Says(_) | Does::FallsSilent(_) => {
            let service = ExchangeServer::new(Fake(does));
            let once = tokio_stream::once(Ok::<_, std::io::Error>(far));
            // It ends when whoever asks does.
            let links = once.chain(tokio_stream::pending());
            let server = tonic::transport::Server::builder();
            tokio::spawn(server.serve_with_incoming(service, links));
        }
    }
    Ok(Box::new(near))
}

fn wanted() -> Arc<Wanted> {
    let apps = BTreeSet::from([crate::model::app::AppId::parse("shop/orders").unwrap()]);
    Arc::new(Wanted { apps, namespaces: BTreeSet::from(["lab".into()]), ..Wanted::default() })
}

/// Gateways at the ports 1, 2 and so on.
fn bench(gateways: &[Does]) -> Bench {
    bench_in(gateways, None)
}

fn bench_in(gateways: &[Does], folder: Option<PathBuf>) -> Bench {
    let does: HashMap<u16, Does> = (1..).zip(gateways.iter().cloned()).collect();
    let (cluster, mut known) = (Arc::<str>::from("east"), Endpoints::default());
    let address = |port: u16| SocketAddr::from(([203, 0, 113, 1], port));
    let ports = 1..=u16::try_from(gateways.len()).unwrap();
    let endpoints: Vec<_> =
        ports.map(|port| known.intern_gateway(address(port), &cluster)).collect();
    let peer = Peer { cluster, gateways: endpoints.clone(), wanted: wanted() };
    let (does, dialled) = (Arc::new(Mutex::new(does)), Arc::new(Mutex::new(Vec::new())));
    let (now, log) = (Arc::clone(&does), Arc::clone(&dialled));
    let dial = move |_, at: SocketAddr| -> Dialling {
        log.lock().unwrap().push(at.port());
        let does = now.lock().unwrap().get(&at.port()).cloned().unwrap_or(Does::IsDown);
        Box::pin(self::dialled(does))
    };
    let (peers, followed) = watch::channel(Arc::from([peer]));
    let metrics = Arc::new(Metrics::new());
    let ways = Ways { dial: Arc::new(dial), metrics: Arc::clone(&metrics) };
    let (tell, updates) = mpsc::channel(16);
    let stop = CancellationToken::new();
    tokio::spawn(watch(followed, ways, folder, tell, stop.clone()));
    Bench { does, dialled, endpoints, metrics, peers, updates, _stop: stop.drop_guard() }
}

impl Bench {
    fn gateway(&self, port: u16, does: Does) {
        self.does.lock().unwrap().insert(port, does);
    }

    async fn hears(&mut self) -> Said {
        let update = self.updates.recv().await.unwrap();
        assert_eq!(&*update.source, "exchange/east");
        update.said
    }

    async fn hears_offers(&mut self) -> Arc<Offers> {
        loop {
            if let Said::Snapshot(Snapshot::Offers(offers)) = self.hears().await {
                return offers;
            }
        }
    }

    async fn hears_failure(&mut self) -> String {
        loop {
            if let Said::Failed(why) = self.hears().await {
                return why;
            }
        }
    }

    fn health(&self, port: usize) -> Health {
        self.endpoints[port - 1].health()
    }
}

fn app(app: &str, healthy_endpoints: u32) -> App {
    App { app: app.to_owned(), names: vec![app.replace('/', ".")], healthy_endpoints }
}

fn state(apps: &[(&str, u32)]) -> Word {
    let apps = apps.iter().map(|(name, healthy)| app(name, *healthy)).collect();
    Word::State(State { cluster: "east".to_owned(), apps })
}

fn told(offers: &Offers) -> Vec<String> {
    let told = offers.apps.iter();
    told.map(|(app, offer)| format!("{app} {}", offer.reach.healthy())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_exported_is_a_snapshot_and_health_is_a_mark() {
    let words = [state(&[("shop/orders", 2), ("shop/other", 1)]), state(&[("shop/orders", 0)])];
    let mut bench = bench(&[Does::Says(words.to_vec())]);
    let offers = bench.hears_offers().await;
    assert_eq!((told(&offers), offers.ignored), (vec!["shop/orders 2".to_owned()], 1));
    let (_, offer) = offers.apps.first_key_value().unwrap();
    assert!(offer.reach.is_there());
    let start = Instant::now();
    while offer.reach.is_there() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(start.elapsed() <= HEARTBEAT + Duration::from_millis(10), "{:?}", start.elapsed());
    // One app fewer is ignored, which is told; from then on only that it is as it was, once a second.
    assert_eq!(bench.hears_offers().await.ignored, 0);
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(bench.hears().await, Said::Unchanged);
    }
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    assert_eq!(bench.dialled.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_comes_or_goes_is_a_new_snapshot_and_the_marks_of_others_stay() {
    let (one, both) = (state(&[("lab/a", 1)]), state(&[("lab/a", 1), ("lab/b", 1)]));
    let mut bench = bench(&[Does::Says(vec![one.clone(), both, one])]);
    let first = bench.hears_offers().await;
    let second = bench.hears_offers().await;
    assert_eq!(told(&second), ["lab/a 1", "lab/b 1"]);
    let a = Callee::parse("lab/a").unwrap();
    assert!(Arc::ptr_eq(&first.apps[&a].reach, &second.apps[&a].reach));
    assert_eq!(told(&*bench.hears_offers().await), ["lab/a 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_falls_silent_is_lost_after_three_heartbeats_and_its_apps_with_it() {
    let mut bench = bench(&[Does::FallsSilent(vec![state(&[("lab/a", 1)])])]);
    let offers = bench.hears_offers().await;
    let heard = Instant::now();
    bench.gateway(1, Does::IsDown);
    let reach = Arc::clone(&offers.apps[&Callee::parse("lab/a").unwrap()].reach);
    while reach.is_there() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The timer counts in milliseconds.
    assert!((750..=755).contains(&heard.elapsed().as_millis()), "{:?}", heard.elapsed());
    assert_eq!(bench.health(1), Health::Down);
    // It is dialled again at once, so one may stand for the other.
    let why = bench.hears_failure().await;
    assert!(why.contains("nothing said for 750 ms") || why.contains("connection refused"), "{why}");
    assert_eq!(told(&offers), ["lab/a 1"], "what it said last stays");
    bench.gateway(1, Does::Says(vec![state(&[("lab/a", 1)])]));
    while bench.hears().await != Said::Unchanged {}
    assert!(reach.is_there() && bench.health(1) == Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_does_not_come_about_marks_the_gateway_at_once() {
    let mut bench = bench(&[Does::Hangs]);
    let start = Instant::now();
    assert_eq!(bench.hears_failure().await, "203.0.113.1:1: no link within 500 ms");
    assert_eq!((start.elapsed().as_millis(), bench.health(1)), (500, Health::Down));
    bench.gateway(1, Does::Refuses);
    assert_eq!(bench.hears_failure().await, "203.0.113.1:1: unknown issuer");
    assert_eq!(bench.health(1), Health::Healthy, "something answers: calls may get through");
}

#[tokio::test(start_paused = true)]
async fn while_one_gateway_is_heard_the_cluster_is_there() {
    let says = || Does::Says(vec![state(&[("lab/a", 1)])]);
    let mut bench = bench(&[Does::FallsSilent(vec![state(&[("lab/a", 1)])]), says()]);
    let offers = bench.hears_offers().await;
    let reach = Arc::clone(&offers.apps[&Callee::parse("lab/a").unwrap()].reach);
    bench.gateway(1, Does::IsDown);
    let start = Instant::now();
    while bench.health(1) == Health::Healthy {
        assert!(reach.is_there());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(start.elapsed() <= Duration::from_millis(760), "{:?}", start.elapsed());
    assert!(reach.is_there() && bench.health(2) == Health::Healthy);
    assert_eq!(bench.hears().await, Said::Unchanged, "the source is as well as before");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_down_is_dialled_with_growing_pauses() {
    let bench = bench(&[Does::IsDown]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let dialled = bench.dialled.lock().unwrap().len();
    assert!((14..=20).contains(&dialled), "{dialled}");
}

#[tokio::test(start_paused = true)]
async fn lies_and_noise_are_refused_and_change_nothing() {
    let lies = State { cluster: "west".to_owned(), apps: vec![app("lab/a", 9)] };
    let million = State { cluster: "east".to_owned(), apps: vec![app("lab/a", 9); 1_000_000] };
    let many = State { cluster: "east".to_owned(), apps: vec![App::default(); MOST_APPS + 1] };
    for (does, why) in [
        (Does::Says(vec![Word::State(lies)]), "speaks for another cluster, \"west\""),
        (Does::Says(vec![Word::State(million)]), "decoded message length too large"),
        (Does::Says(vec![Word::State(many)]), "names 10001 apps"),
        (Does::Babbles, ""),
    ] {
        let mut bench = bench(&[Does::FallsSilent(vec![state(&[("lab/a", 1)])])]);
        let offers = bench.hears_offers().await;
        bench.gateway(1, does);
        let mut told = bench.hears_failure().await;
        if told.contains("750 ms") {
            told = bench.hears_failure().await;
        }
        assert!(told.contains(why), "{told}");
        bench.gateway(1, Does::IsDown);
        let counted = "strait_exchange_refused_total{cluster=\"east\"}";
        assert_eq!(bench.metrics.text().contains(counted), !why.is_empty(), "{why}");
        assert_eq!(self::told(&offers), ["lab/a 1"]);
        let more = timeout(Duration::from_mins(1), bench.hears_offers()).await;
        assert!(more.is_err(), "{why}: {more:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_from_which_nothing_is_imported_any_more_is_forgotten() {
    let mut bench = bench(&[Does::Says(vec![state(&[("lab/a", 1)])])]);
    bench.hears_offers().await;
    let peer = bench.peers.borrow()[0].clone();
    // Other imports: what is said is judged anew.
    let wanted = Arc::new(Wanted::default());
    bench.peers.send_replace(Arc::from([Peer { wanted, ..peer }]));
    assert_eq!(told(&*bench.hears_offers().await), Vec::<String>::new());
    bench.peers.send_replace(Arc::from([]));
    while bench.hears().await != Said::Gone {}
    let more = timeout(Duration::from_mins(1), bench.updates.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn what_was_offered_before_the_restart_stands_until_the_cluster_speaks() {
    use crate::state::{Folder, Kept};
    let folder = tempfile::tempdir().unwrap();
    let as_of = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
    let kept = serde_json::json!({ "apps": {
        "lab/a": { "names": ["a.lab.example"], "healthyEndpoints": 2 },
        "other/a": { "names": ["a.other.example"], "healthyEndpoints": 2 },
    }});
    let kept = Kept { snapshot: kept, as_of };
    Folder::new(folder.path()).keep("exchange/east", &kept).unwrap();
    let mut bench = bench_in(&[Does::Refuses], Some(folder.path().to_owned()));
    let Said::Remembered(Snapshot::Offers(offers), told_as_of) = bench.hears().await else {
        panic!("it is not remembered");
    };
    assert_eq!((told(&offers), told_as_of), (vec!["lab/a 2".to_owned()], as_of));
    assert_eq!(bench.hears_failure().await, "203.0.113.1:1: unknown issuer");
    let reach = &offers.apps.first_key_value().unwrap().1.reach;
    assert!(reach.is_there(), "nobody has said that it is not");
    bench.gateway(1, Does::IsDown);
    while reach.is_there() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.gateway(1, Does::Says(vec![state(&[("lab/a", 1)])]));
    assert_eq!(told(&*bench.hears_offers().await), ["lab/a 1"]);
    assert!(reach.is_there(), "its mark is the same");
}
