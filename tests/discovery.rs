//! From a DNS server's answers to the table in force, through the real resolver, owner and builder.

#[path = "common/dns.rs"]
mod dns_server;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use strait::discovery::aggregate::{self, Handle};
use strait::discovery::{SourceStatus, dns};
use strait::model::name::NamePattern;
use strait::model::snapshot::{Allow, EndpointAt, EndpointSpec, Kind, Origin, RouteSpec, Routes};
use strait::routing::build::OwnListeners;
use strait::routing::live::Live;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use dns_server::{DnsServer, Reply};

const HOST: &str = "checkout-dapr.shop.svc.cluster.local";
/// Whatever happens at all happens within this: tests wait for it to be seen, never for the time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control path with one route, to [`HOST`].
struct Bench {
    live: Arc<Live<()>>,
    handle: Handle<()>,
    settings: watch::Sender<dns::Settings>,
    _stop: DropGuard,
}

fn routes(host: &str) -> Arc<Routes> {
    let origin = Origin { file: Path::new("strait.yaml").into(), line: 1, column: 1 };
    let at = EndpointAt::parse(&format!("{host}:50002")).unwrap();
    let route = RouteSpec {
        label: "shop/checkout".into(),
        kind: Kind::App,
        names: vec![(NamePattern::parse("checkout.shop.mesh.example").unwrap(), origin.clone())],
        allow: Allow::Open,
        import: None,
        endpoints: vec![EndpointSpec { at, weight: 1, priority: 0, origin }],
        check: None,
        send_proxy: false,
        quiet_close: true,
        plaintext: false,
    };
    Arc::new(Routes { routes: vec![route], ..Routes::default() })
}

async fn start(servers: &[SocketAddr]) -> Bench {
    let live = Arc::new(Live::new(Arc::new(())));
    let stop = CancellationToken::new();
    let handle = aggregate::start(Arc::clone(&live), Box::new(|_| ()), stop.clone());
    handle.expect(dns::SOURCE);
    let own = OwnListeners::default();
    handle.configure(routes(HOST), Arc::new(()), own).await.unwrap();
    let wanted = dns::Settings { servers: servers.to_vec(), allow_local: false };
    let (settings, watched) = watch::channel(wanted);
    let (_, again) = dns::Again::new();
    tokio::spawn(dns::watch(watched, handle.hosts(), None, again, handle.updates(), stop.clone()));
    Bench { live, handle, settings, _stop: stop.drop_guard() }
}

impl Bench {
    /// What the route leads to.
    fn endpoints(&self) -> Vec<IpAddr> {
        let generation = self.live.load();
        let found = generation.table.lookup("checkout.shop.mesh.example").unwrap();
        let candidates = found.route.candidates.iter();
        let mut all: Vec<_> = candidates.map(|candidate| candidate.endpoint.address.ip()).collect();
        all.sort_unstable();
        all
    }

    async fn leads_to(&self, list: &[&str]) {
        let list: Vec<IpAddr> = list.iter().map(|address| address.parse().unwrap()).collect();
        until(|| self.endpoints() == list, || format!("{:?}, not {list:?}", self.endpoints()))
            .await;
    }

    fn status(&self) -> SourceStatus {
        self.handle.sources().remove(0)
    }

    async fn fails_with(&self, why: &str) {
        let says = |status: SourceStatus| {
            !status.up && status.last_error.is_some_and(|error| error.contains(why))
        };
        until(|| says(self.status()), || format!("{:?}, not {why}", self.status())).await;
    }
}

async fn until(condition: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "still {}", otherwise());
}

#[tokio::test]
async fn a_headless_name_is_followed_as_its_addresses_change() {
    let server = DnsServer::start().await;
    server.addresses(HOST, &["10.0.0.1"]);
    let bench = start(&[server.address]).await;
    bench.handle.settled().await;
    assert_eq!(bench.endpoints(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    for list in [&["10.0.0.1", "10.0.0.2", "fd00::1"][..], &["10.0.0.2"], &[], &["10.0.0.3"]] {
        server.addresses(HOST, list);
        bench.leads_to(list).await;
    }
    server.set(HOST, Reply::Code(ResponseCode::NXDomain));
    bench.leads_to(&[]).await;
    assert!(bench.status().up, "no such name is an answer, not an outage");
}

#[tokio::test]
async fn the_same_answer_again_makes_no_generation() {
    let server = DnsServer::start().await;
    server.addresses(HOST, &["10.0.0.1", "10.0.0.2"]);
    let bench = start(&[server.address]).await;
    bench.leads_to(&["10.0.0.1", "10.0.0.2"]).await;
    let (number, asked) = (bench.live.load().number, server.asked(HOST));
    server.addresses(HOST, &["10.0.0.2", "10.0.0.1"]);
    let heard = bench.status().last_ok;
    until(|| server.asked(HOST) >= asked + 4, || format!("asked {} times", server.asked(HOST)))
        .await;
    until(|| bench.status().last_ok > heard, || format!("{:?}", bench.status())).await;
    assert_eq!(bench.live.load().number, number);
}

#[tokio::test]
async fn an_outage_keeps_the_last_good_addresses_and_their_age_rises() {
    let server = DnsServer::start().await;
    server.addresses(HOST, &["10.0.0.1"]);
    let bench = start(&[server.address]).await;
    bench.leads_to(&["10.0.0.1"]).await;
    server.set(HOST, Reply::Code(ResponseCode::ServFail));
    bench.fails_with("Server Failure").await;
    let last_good = bench.status().last_ok.unwrap();
    for (reply, why) in [(Reply::Garbage, ""), (Reply::Code(ResponseCode::Refused), "Refused")] {
        let asked = server.asked(HOST);
        server.set(HOST, reply);
        until(|| server.asked(HOST) > asked + 1, || format!("asked {} times", server.asked(HOST)))
            .await;
        bench.fails_with(why).await;
        assert_eq!(bench.endpoints(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(bench.status().last_ok, Some(last_good));
    }
    let outage = Instant::now();
    server.addresses(HOST, &["10.0.0.2"]);
    bench.leads_to(&["10.0.0.2"]).await;
    until(|| bench.status().up, || format!("{:?}", bench.status())).await;
    assert!(bench.status().last_ok.unwrap() > outage);
}

#[tokio::test]
async fn an_outage_at_the_start_is_an_answer_but_no_empty_one() {
    let server = DnsServer::start().await;
    server.set(HOST, Reply::Silence);
    let bench = start(&[server.address]).await;
    bench.handle.settled().await;
    let status = bench.status();
    assert!(!status.up && status.last_ok.is_none(), "{status:?}");
    server.addresses(HOST, &["10.0.0.1"]);
    bench.leads_to(&["10.0.0.1"]).await;
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let server = DnsServer::start().await;
    let list: Vec<String> = (1..=250).map(|last| format!("10.0.0.{last}")).collect();
    let parsed = list.iter().map(|address| address.parse().unwrap()).collect();
    server.set(HOST, Reply::OnlyOverTcp(parsed));
    let bench = start(&[server.address]).await;
    bench.leads_to(&list.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn an_alias_is_followed() {
    let server = DnsServer::start().await;
    server.set(HOST, Reply::Alias("elsewhere.example"));
    server.addresses("elsewhere.example", &["10.0.0.1"]);
    let bench = start(&[server.address]).await;
    bench.leads_to(&["10.0.0.1"]).await;
    server.addresses("elsewhere.example", &["10.0.0.2"]);
    bench.leads_to(&["10.0.0.2"]).await;
}

#[tokio::test]
async fn a_server_that_cannot_answer_does_not_hide_one_that_can() {
    for broken in
        [Reply::Code(ResponseCode::Refused), Reply::Code(ResponseCode::ServFail), Reply::Silence]
    {
        let (first, second) = (DnsServer::start().await, DnsServer::start().await);
        first.set(HOST, broken);
        second.addresses(HOST, &["10.0.0.1"]);
        let bench = start(&[first.address, second.address]).await;
        bench.leads_to(&["10.0.0.1"]).await;
        assert!(bench.status().up);
    }
}

#[tokio::test]
async fn other_servers_take_over_without_a_restart() {
    let (one, other) = (DnsServer::start().await, DnsServer::start().await);
    one.addresses(HOST, &["10.0.0.1"]);
    other.addresses(HOST, &["10.0.0.2"]);
    let bench = start(&[one.address]).await;
    bench.leads_to(&["10.0.0.1"]).await;
    bench.settings.send_modify(|settings| settings.servers = vec![other.address]);
    bench.leads_to(&["10.0.0.2"]).await;
}

#[tokio::test]
async fn names_follow_the_configuration() {
    let server = DnsServer::start().await;
    server.addresses(HOST, &["10.0.0.1"]);
    server.addresses("other.example", &["10.0.0.2"]);
    let bench = start(&[server.address]).await;
    bench.leads_to(&["10.0.0.1"]).await;
    let own = OwnListeners::default();
    bench.handle.configure(routes("other.example"), Arc::new(()), own).await.unwrap();
    bench.leads_to(&["10.0.0.2"]).await;
}
