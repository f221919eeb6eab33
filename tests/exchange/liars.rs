//! A gateway that proves to be of its cluster, and says what it should not: none of it is believed, it is counted, and what other
//! clusters say stays as it was.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use strait::cluster::preamble::{self, Progress};
use strait::cluster::reply::{self, Reply};
use strait::exchange::proto::discover_response::Word;
use strait::exchange::proto::{self, DiscoverResponse, Heartbeat, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Context, Poll, Service, http};
use tonic::transport::Server;

use super::common::app::{self, App};
use super::common::authority::Authority;
use super::common::gateway::Gateway;
use super::common::{measured, wait_until};
use super::grpc::{Accepted, Host};
use super::questions::{ask, listens, said, some};
use super::{Folders, source};

/// South's app, which is to be called all the while.
const TOOLS: &str = "tools.lab.mesh.example";

/// Twice what the program holds at work, not optimized. A million apps that were read would take as much again.
const MOST_RESIDENT: u64 = 64 << 20;

/// West, which imports from east, the liar, and from south.
struct World {
    west: Gateway,
    _south: Gateway,
    _east: Host,
    _app: App,
    authority: Authority,
    name_server: SocketAddr,
}

impl World {
    fn start(lie: State) -> Self {
        let (folders, authority) = (Folders::of(&["west", "east", "south"]), Authority::new());
        let app = App::start(&authority, "tools", &[TOOLS]);
        let south = folders.exporter("south", app.address, &[("lab/tools", "west")]);
        let south = Gateway::with_config(&south.replace("west: {}, south: {}", "west: {}"));
        let host = Host::new();
        let east = liar(&host, &folders.certificates("east"), lie);
        let imports = "[{ app: \"shop/*\", clusters: [east], allow: any }, \
                       { app: lab/tools, clusters: [south], allow: any }]";
        let clusters = [("east", east), ("south", south.ingress())];
        let dns = "  dns: { address: \"127.0.0.1:0\", zone: mesh.example, announce: [127.0.0.1] }\n  admin:";
        let west = folders.importer(&clusters, imports).replace("  admin:", dns);
        let west = Gateway::with_config(&west);
        let name_server = listens(&west);
        Self { west, _south: south, _east: host, _app: app, authority, name_server }
    }

    fn refused(&self) -> u64 {
        self.west.metric("strait_exchange_refused_total", &["cluster=\"east\""])
    }

    /// What south tells is known, and its app called.
    fn nothing_else_is_touched(&self) {
        wait_until("south is heard", || source(&self.west, "south")["up"] == true);
        let call = || app::call(self.west.ingress(), TOOLS, &self.authority.client());
        wait_until("south's app is called", || call().as_deref() == Ok("tools"));
        assert_eq!(ask(self.name_server, TOOLS, "A"), some(&["127.0.0.1"]));
    }
}

#[test]
fn who_speaks_for_another_cluster_or_of_a_million_apps_is_not_believed_and_counted() {
    let orders = || app_of("shop/orders", &["orders.shop.mesh.example"]);
    let long = app_of(&"a".repeat(5 << 20), &[]);
    let lies = [
        ("another cluster", State { cluster: "south".into(), apps: vec![orders()] }),
        ("10001 apps", State { cluster: "east".into(), apps: vec![orders(); 10_001] }),
        // Two octets each, and much more once they are read.
        (
            "1000000 apps",
            State { cluster: "east".into(), apps: vec![proto::App::default(); 1_000_000] },
        ),
        // Longer than any message may be.
        ("too large", State { cluster: "east".into(), apps: vec![long] }),
    ];
    for (why, lie) in lies {
        let world = World::start(lie);
        wait_until("it is counted", || world.refused() > 0);
        world.nothing_else_is_touched();
        let told = source(&world.west, "east");
        assert_eq!(told["up"], false, "{told}");
        assert!(told.to_string().contains(why), "{why}: {told}");
        let name = "orders.shop.mesh.example";
        assert_eq!(ask(world.name_server, name, "A"), said("Non-Existent Domain", &[]));
        // Whatever it says again, and it does time and again.
        let before = world.refused();
        wait_until("it has said it again", || world.refused() > before + 2);
        let most = world.west.most_resident();
        measured(&format!("a gateway that lies ({why}): resident {} KiB at most", most >> 10));
        assert!(most < MOST_RESIDENT, "{most}");
        world.nothing_else_is_touched();
    }
}

#[test]
fn what_is_said_of_apps_and_names_of_others_counts_for_nothing() {
    let apps = vec![
        app_of("shop/orders", &["orders.shop.mesh.example", "bank.example", TOOLS]),
        app_of("lab/tools", &[TOOLS]),
        app_of("shop/gateway", &["exchange.south.strait.internal"]),
    ];
    let world = World::start(State { cluster: "east".into(), apps });
    wait_until("east is heard", || source(&world.west, "east")["up"] == true);
    world.nothing_else_is_touched();
    let told = source(&world.west, "east");
    assert_eq!((&told["apps"], &told["ignored"]), (&1.into(), &2.into()), "{told}");
    wait_until("its own app is known", || {
        ask(world.name_server, "orders.shop.mesh.example", "A") == some(&["127.0.0.1"])
    });
    assert_eq!(ask(world.name_server, "bank.example", "A"), said("Query Refused", &[]));
    let own = "exchange.south.strait.internal";
    assert_eq!(ask(world.name_server, own, "A"), said("Query Refused", &[]));
    world.nothing_else_is_touched();
}

fn app_of(app: &str, names: &[&str]) -> proto::App {
    let names = names.iter().map(ToString::to_string).collect();
    proto::App { app: app.to_owned(), names, healthy_endpoints: 1 }
}

/// A message as gRPC frames it: not compressed, its length, its octets.
fn framed(word: Word) -> Bytes {
    let message = DiscoverResponse { word: Some(word) }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// Says one thing to all who ask, and then only that it is alive. In octets that are made once: making a million apps of them takes
/// longer than anybody would wait for.
#[derive(Clone)]
struct Liar(Bytes);

impl Service<http::Request<Body>> for Liar {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let (words, said) = mpsc::channel(1);
        let mut word = self.0.clone();
        tokio::spawn(async move {
            while words.send(word).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(250)).await;
                word = framed(Word::Heartbeat(Heartbeat {}));
            }
        });
        let frames = ReceiverStream::new(said).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
        let response = http::Response::builder().header("content-type", "application/grpc");
        ready(Ok(response.body(Body::new(StreamBody::new(frames))).unwrap()))
    }
}

/// Starts a gateway that has a cluster's certificates and nothing else of a gateway.
fn liar(host: &Host, certificates: &Path, lie: State) -> SocketAddr {
    let (acceptor, lie) = (acceptor(certificates), framed(Word::State(lie)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    host.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let (send, links) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(link) = link(&acceptor, stream).await {
                    let _ = send.send(link).await;
                }
            }
        });
        let links = ReceiverStream::new(links).map(Ok::<_, std::io::Error>);
        Server::builder().serve_with_incoming(Liar(lie), links).await.unwrap();
    });
    address
}

fn acceptor(certificates: &Path) -> TlsAcceptor {
    let read = |file: &str| CertificateDer::pem_file_iter(certificates.join(file)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read("ca.crt").map(Result::unwrap));
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.join("tls.key")).unwrap();
    let chain = read("tls.crt").map(Result::unwrap).collect();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"strait/1".to_vec()];
    Arc::new(config).into()
}

/// Takes a link as a gateway does: handshake, preamble, reply.
async fn link(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<Accepted> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let mut bytes = Vec::new();
    while let Progress::NeedMore(missing) = preamble::parse(&bytes) {
        let known = bytes.len();
        bytes.resize(known + missing, 0);
        stream.read_exact(&mut bytes[known..]).await.ok()?;
    }
    stream.write_all(&reply::encode(&Reply::Accepted)).await.ok()?;
    Some(Accepted::of(stream))
}
