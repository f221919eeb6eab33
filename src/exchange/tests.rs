use super::proto::discover_response::Word;
use super::proto::exchange_client::ExchangeClient;
use super::*;
use crate::model::name::{Name, NamePattern};
use crate::model::snapshot::{
    Addresses, Allow, AllowRule, EndpointAt, EndpointSpec, Kind, Origin, RouteSpec, Routes,
};
use crate::routing::build::{Inputs, OwnListeners, build};
use crate::routing::endpoint::Endpoints;
use hyper_util::rt::TokioIo;
use std::path::Path;
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::Endpoint;
use tower::service_fn;

/// A cluster `east` whose exports the test changes.
struct East {
    live: Arc<Live<()>>,
    links: mpsc::Sender<Inquiry>,
    stop: CancellationToken,
}

fn allow(written: &str) -> Allow {
    let cluster = |cluster: &str| AllowRule::Cluster { cluster: cluster.into(), apps: vec![] };
    match written {
        "hidden" => Allow::Hidden,
        "any" => Allow::Rules(vec![AllowRule::Any]),
        "network" => Allow::Rules(vec![AllowRule::Network("10.0.0.0/8".parse().unwrap())]),
        clusters => Allow::Rules(clusters.split(',').map(cluster).collect()),
    }
}

/// Apps with an endpoint each, and who may call them.
fn routes(exports: &[(&str, &str)]) -> Routes {
    let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
    let route = |(number, (app, allowed)): (usize, &(&str, &str))| RouteSpec {
        label: (*app).into(),
        kind: Kind::App,
        names: vec![(
            NamePattern::Exact(Name::parse(&app.replace('/', "-")).unwrap()),
            origin.clone(),
        )],
        allow: allow(allowed),
        import: None,
        endpoints: vec![EndpointSpec {
            at: EndpointAt::parse(&format!("10.0.0.{number}:50002")).unwrap(),
            weight: 1,
            priority: 0,
            origin: origin.clone(),
        }],
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    };
    let routes = exports.iter().enumerate().map(route).collect();
    Routes { routes, cluster: "east".into(), ..Routes::default() }
}

impl East {
    fn start() -> Self {
        let live = Arc::new(Live::new(Arc::new(())));
        let (links, accepted) = mpsc::channel(1);
        let stop = CancellationToken::new();
        tokio::spawn(serve(Arc::clone(&live), accepted, stop.clone()));
        Self { live, links, stop }
    }

    fn export(&self, exports: &[(&str, &str)]) {
        let (routes, addresses, own) =
            (routes(exports), Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        let table = build(&inputs, &mut Endpoints::default()).unwrap();
        self.live.publish(table, Arc::new(()));
    }

    async fn link(&self, cluster: &str) -> ExchangeClient<tonic::transport::Channel> {
        let (near, far) = tokio::io::duplex(1 << 16);
        self.links.send(Inquiry { cluster: cluster.into(), stream: far }).await.unwrap();
        let mut near = Some(TokioIo::new(near));
        let connect = service_fn(move |_| {
            std::future::ready(near.take().ok_or_else(|| std::io::Error::other("once")))
        });
        let endpoint = Endpoint::from_static("http://exchange");
        ExchangeClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }

    async fn ask(&self, cluster: &str) -> Streaming<DiscoverResponse> {
        self.link(cluster).await.discover(DiscoverRequest {}).await.unwrap().into_inner()
    }
}

async fn word(said: &mut Streaming<DiscoverResponse>) -> Word {
    said.message().await.unwrap().unwrap().word.unwrap()
}

/// The next state: whose it is, and each app with its names and how many endpoints can be dialled.
async fn state(said: &mut Streaming<DiscoverResponse>) -> (String, Vec<String>) {
    loop {
        if let Word::State(state) = word(said).await {
            let app = |app: &proto::App| {
                format!("{} {} {}", app.app, app.names.join(","), app.healthy_endpoints)
            };
            return (state.cluster, state.apps.iter().map(app).collect());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_sees_what_it_may_call_and_no_more() {
    let east = East::start();
    east.export(&[
        ("shop/west", "west"),
        ("shop/south", "south"),
        ("shop/both", "south,west"),
        ("shop/any", "any"),
        ("shop/network", "network"),
        ("shop/imported", "hidden"),
    ]);
    let mut west = east.ask("west").await;
    let apps =
        ["shop/any shop-any 1", "shop/both shop-both 1", "shop/west shop-west 1"].map(String::from);
    assert_eq!(state(&mut west).await, ("east".to_owned(), apps.to_vec()));
    let mut south = east.ask("south").await;
    assert_eq!(state(&mut south).await.1[2], "shop/south shop-south 1");
    let mut north = east.ask("north").await;
    assert_eq!(state(&mut north).await.1, ["shop/any shop-any 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_said_at_once_and_what_does_not_every_quarter_of_a_second() {
    let east = East::start();
    let mut west = east.ask("west").await;
    assert!(timeout(HEARTBEAT * 4, west.message()).await.is_err(), "there is no table yet");
    east.export(&[("shop/a", "west")]);
    assert_eq!(state(&mut west).await.1, ["shop/a shop-a 1"]);
    let start = Instant::now();
    for _ in 0..8 {
        assert!(matches!(word(&mut west).await, Word::Heartbeat(_)));
    }
    assert_eq!(start.elapsed(), HEARTBEAT * 8);

    let now = Instant::now();
    let table = east.live.load();
    table.table.routes().next().unwrap().candidates[0].endpoint.checked(false);
    assert_eq!(state(&mut west).await.1, ["shop/a shop-a 0"]);
    east.export(&[("shop/a", "west"), ("shop/b", "west")]);
    assert_eq!(state(&mut west).await.1, ["shop/a shop-a 1", "shop/b shop-b 1"]);
    east.export(&[("shop/b", "west")]);
    assert_eq!(state(&mut west).await.1, ["shop/b shop-b 1"]);
    assert!(now.elapsed() <= std::time::Duration::from_millis(300), "{:?}", now.elapsed());
    // A table in which nothing differs for this cluster is no news.
    east.export(&[("shop/b", "west"), ("shop/c", "south")]);
    assert!(matches!(word(&mut west).await, Word::Heartbeat(_)));
    assert!(matches!(word(&mut west).await, Word::Heartbeat(_)));
}

#[tokio::test(start_paused = true)]
async fn the_streams_end_with_the_gateway() {
    let east = East::start();
    east.export(&[]);
    let mut west = east.ask("west").await;
    assert_eq!(state(&mut west).await.1, Vec::<String>::new());
    east.stop.cancel();
    while let Some(said) = west.message().await.unwrap() {
        assert!(matches!(said.word, Some(Word::Heartbeat(_))));
    }
    east.links.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_has_one_question() {
    let east = East::start();
    east.export(&[]);
    let mut client = east.link("west").await;
    let first = client.discover(DiscoverRequest {}).await.unwrap();
    let second = timeout(HEARTBEAT * 4, client.discover(DiscoverRequest {})).await;
    assert!(second.is_err(), "the second waits for the first");
    drop(first);
    assert!(client.discover(DiscoverRequest {}).await.is_ok());
}
