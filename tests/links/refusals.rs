//! What is refused, by whom, and how both sides tell it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
};
use serde_json::Value;

use super::certificates::{Ca, Identity, Wanted, write};
use super::common::gateway::Gateway;
use super::common::{PATIENCE, measured, wait_for, wait_until};
use super::{Apps, EXPORT, FRONTEND, IMPORT, NOBODY, ORDERS, Pair};

/// Takes every certificate: it is the gateway that is to judge.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A link as somebody makes it who is no Strait.
pub(crate) type Handmade = StreamOwned<ClientConnection, TcpStream>;

/// Begins a link for the app with this certificate, or without one, and sends `first` on it.
pub(crate) fn handmade(
    gateway: SocketAddr,
    identity: Option<&Identity>,
    first: &[u8],
) -> io::Result<Handmade> {
    handmade_for(ORDERS, gateway, identity, first)
}

/// The same for another name.
pub(crate) fn handmade_for(
    name: &'static str,
    gateway: SocketAddr,
    identity: Option<&Identity>,
    first: &[u8],
) -> io::Result<Handmade> {
    let config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match identity {
        Some(identity) => config.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"strait/1".to_vec()];
    let stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name).unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut link = StreamOwned::new(tls, stream);
    link.write_all(first)?;
    link.flush()?;
    Ok(link)
}

/// East with certificates of an authority that the test has.
struct East {
    ca: Ca,
    folder: tempfile::TempDir,
    gateway: Gateway,
}

fn east(apps: &Apps) -> East {
    let (ca, folder) = (Ca::new("links"), tempfile::tempdir().unwrap());
    ca.fill(folder.path(), &ca.gateway("east"));
    let config = super::east(folder.path(), apps.orders.address, EXPORT);
    East { ca, folder, gateway: Gateway::with_config(&config) }
}

fn refused(gateway: &Gateway, direction: &str, reason: &str) -> u64 {
    let labels = [&*format!("direction=\"{direction}\""), &*format!("reason=\"{reason}\"")];
    gateway.metric("strait_links_refused_total", &labels)
}

#[test]
fn the_far_side_refuses_each_wrong_certificate_by_its_reason() {
    let apps = Apps::start();
    let East { ca, folder, gateway } = east(&apps);
    write(folder.path(), "crl.pem", &ca.revoke(&[77], 30));
    let west = "spiffe://example.org/cluster/west";
    let of = |uris: &[&str]| ca.issue(&Wanted { uris, ..Wanted::default() });
    let during = |days| ca.issue(&Wanted { uris: &[west], days, ..Wanted::default() });
    let revoked = ca.issue(&Wanted { uris: &[west], serial: 77, ..Wanted::default() });
    wait_until("the revocation list is in force", || {
        let _ = handmade(gateway.ingress(), Some(&revoked), b"")
            .and_then(|mut link| link.read(&mut [0]));
        refused(&gateway, "in", "revoked") > 0
    });
    let cases = [
        ("no_certificate", None),
        ("unknown_issuer", Some(Ca::new("links").gateway("west"))),
        ("expired", Some(during((-30, -1)))),
        ("not_yet_valid", Some(during((1, 30)))),
        ("wrong_trust_domain", Some(of(&["spiffe://example.com/cluster/west"]))),
        ("no_uri", Some(of(&[]))),
        ("several_uris", Some(of(&[west, "spiffe://example.org/cluster/east"]))),
        ("no_cluster", Some(of(&["spiffe://example.org/ns/shop/west"]))),
        ("unknown_cluster", Some(of(&["spiffe://example.org/cluster/north"]))),
        ("own_cluster", Some(of(&["spiffe://example.org/cluster/east"]))),
    ];
    for (reason, identity) in cases {
        let answer = handmade(gateway.ingress(), identity.as_ref(), b"")
            .and_then(|mut link| link.read(&mut [0]));
        assert!(answer.is_err(), "{reason}: {answer:?}");
        wait_until(reason, || refused(&gateway, "in", reason) == 1);
    }
    let records = gateway.records();
    let told = records.iter().filter(|record| record["ending"] == "link_refused");
    for record in told {
        assert!(record["reason"].is_string() && record["hint"].is_string(), "{record}");
    }
    assert_eq!(apps.orders.accepted(), 0, "nobody got through");
}

/// Something that answers as the gateway of a cluster, with this certificate, and speaks a protocol.
fn impostor(identity: &Identity, protocol: &str) -> SocketAddr {
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_single_cert(identity.chain(), identity.key())
        .unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || StreamOwned::new(tls, stream).read_to_end(&mut Vec::new()));
        }
    });
    address
}

fn west(ca: &Ca, folder: &Path, gateway: SocketAddr) -> Gateway {
    ca.fill(folder, &ca.gateway("west"));
    Gateway::with_config(&super::west(folder, gateway, IMPORT))
}

#[test]
fn the_near_side_refuses_a_gateway_that_is_not_of_the_cluster_it_dialled() {
    let apps = Apps::start();
    let ca = Ca::new("links");
    let of = |uris: &[&str]| ca.issue(&Wanted { uris, ..Wanted::default() });
    let east = "spiffe://example.org/cluster/east";
    let cases = [
        ("other_cluster", of(&["spiffe://example.org/cluster/south"])),
        ("no_uri", of(&[])),
        ("several_uris", of(&[east, "spiffe://example.org/cluster/south"])),
        ("own_cluster", of(&["spiffe://example.org/cluster/west"])),
        ("unknown_issuer", Ca::new("links").gateway("east")),
        ("expired", ca.issue(&Wanted { uris: &[east], days: (-30, -1), ..Wanted::default() })),
    ];
    for (reason, identity) in cases {
        let folder = tempfile::tempdir().unwrap();
        let west = west(&ca, folder.path(), impostor(&identity, "strait/1"));
        assert_eq!(apps.call(&west).unwrap_err(), "InternalError", "{reason}");
        let record = west.record("link_refused");
        let text = record["reason"].as_str().unwrap();
        assert!(text.starts_with("east, 127.0.0.1:"), "{record}");
        // Another configured cluster would be `other_cluster`; one that is not configured is unknown, whatever was dialled.
        let counted = refused(&west, "out", reason) + refused(&west, "out", "unknown_cluster");
        assert_eq!(counted, 1, "{reason}: {record}");
        assert!(record["hint"].is_string(), "{record}");
    }
}

/// Each has an authority and a trust domain of its own, and no authority can name a gateway of the other cluster.
#[test]
fn clusters_that_trust_each_other_s_authority_trust_it_for_that_cluster_alone() {
    const EAST: &str = "spiffe://east.example/cluster/east";
    let (apps, folders) = (Apps::start(), tempfile::tempdir().unwrap());
    let (of_west, of_east) = (Ca::new("west"), Ca::new("east"));
    let [west, east] = ["west", "east"].map(|cluster| folders.path().join(cluster));
    let named_east = |ca: &Ca| ca.issue(&Wanted { uris: &[EAST], ..Wanted::default() });
    of_west.fill(&west, &of_west.gateway("west"));
    of_east.fill(&east, &named_east(&of_east));
    write(&west, "bundle.pem", &of_east.pem());
    write(&east, "bundle.pem", &of_west.pem());
    let trust = |domain: &str, folder: &Path| {
        format!("{{ trustDomain: {domain}, trustBundle: {}/bundle.pem", folder.display())
    };
    let text = super::east(&east, apps.orders.address, EXPORT)
        .replace("trustDomain: example.org", "trustDomain: east.example")
        .replace("west: {", &format!("west: {}", trust("example.org", &east)));
    let far = Gateway::with_config(&text);
    let importer = |gateway| {
        let text = super::west(&west, gateway, IMPORT);
        let trusted = text.replace("east: {", &format!("east: {},", trust("east.example", &west)));
        Gateway::with_config(&trusted)
    };
    assert_eq!(apps.call(&importer(far.ingress())).unwrap(), "orders");
    let answer = handmade(far.ingress(), Some(&of_east.gateway("west")), b"")
        .and_then(|mut link| link.read(&mut [0]));
    assert!(answer.is_err(), "east's authority names west: {answer:?}");
    wait_until("the far side refuses", || refused(&far, "in", "unknown_issuer") == 1);
    let near = importer(impostor(&named_east(&of_west), "strait/1"));
    assert_eq!(apps.call(&near).unwrap_err(), "InternalError", "west's authority names east");
    wait_until("the near side refuses", || refused(&near, "out", "unknown_issuer") > 0);
}

#[test]
fn what_answers_and_is_no_gateway_is_told_so() {
    let apps = Apps::start();
    let (ca, folder) = (Ca::new("links"), tempfile::tempdir().unwrap());
    // As a sidecar that the name leads to without its gateway.
    let west = west(&ca, folder.path(), impostor(&ca.gateway("east"), "h2"));
    assert_eq!(apps.call(&west).unwrap_err(), "InternalError");
    let record = west.record("link_refused");
    assert!(record["reason"].as_str().unwrap().contains("does not speak strait/1"), "{record}");
}

#[test]
fn a_gateway_that_is_not_there_is_a_failed_connect() {
    let apps = Apps::start();
    let (ca, folder) = (Ca::new("links"), tempfile::tempdir().unwrap());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let west = west(&ca, folder.path(), free);
    assert_eq!(apps.call(&west).unwrap_err(), "InternalError");
    // The exchange has found that out before.
    west.record("no_healthy_endpoint");
}

#[test]
fn a_gateway_that_accepts_and_says_nothing_is_given_up_after_half_a_second() {
    let apps = Apps::start();
    let (ca, folder) = (Ca::new("links"), tempfile::tempdir().unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let west = west(&ca, folder.path(), silent.local_addr().unwrap());
    assert_eq!(apps.call(&west).unwrap_err(), "InternalError");
    west.record("no_healthy_endpoint");
    let told = west.status()["sources"].to_string();
    assert!(told.contains("no link within 500 ms"), "{told}");
}

/// What `LINK_TIME` of the near side says, and what a loaded machine may add to it.
const LINK_TIME: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn a_call_gives_up_a_link_that_does_not_come_about_in_half_a_second() {
    let pair = Pair::start();
    let source = || pair.west.status()["sources"].to_string();
    // Of some rounds one has to be in time: on a busy machine the exchange may miss three heartbeats before the call is there, and
    // then no link is tried.
    let took = wait_for("a call that is there first", || {
        wait_until("east is heard", || {
            source().contains("\"up\":true") && pair.apps.call(&pair.west).is_ok()
        });
        // Its kernel goes on accepting.
        pair.east.signal(Signal::STOP);
        let asked = Instant::now();
        assert_eq!(pair.apps.call(&pair.west).unwrap_err(), "InternalError");
        let took = asked.elapsed();
        pair.east.signal(Signal::CONT);
        let told = |record: &Value| record["reason"].to_string().contains("no link in time");
        let record = pair.west.records().into_iter().find(told)?;
        assert_eq!(record["ending"], "connect_failed", "{record}");
        Some(took)
    });
    measured(&format!("a gateway that hangs: a call gives up its link after {took:?}"));
    assert!((LINK_TIME..LINK_TIME + SLACK).contains(&took), "{took:?}");
}

/// What near and far say when the far cluster refuses a call.
fn refused_by_far(export: &str, source: std::net::IpAddr) -> (Pair, String, serde_json::Value) {
    let pair = Pair::with(export, IMPORT);
    let alert = pair.apps.call_from(source, &pair.west).unwrap_err();
    let record = pair.west.record("refused_by_far");
    (pair, alert, record)
}

#[test]
fn the_far_cluster_has_the_last_word_and_the_near_one_tells_it() {
    let rule = "the far gateway refuses: denied by the export of shop/orders";
    let export =
        "exports: [{ app: shop/orders, allow: [{ cluster: west, apps: [shop/frontend] }] }]\n";
    let (pair, alert, record) = refused_by_far(export, NOBODY);
    assert_eq!(pair.east.record("denied")["id"], record["id"]);
    assert_eq!(
        (&*alert, record["reason"].as_str()),
        ("AccessDenied", Some(&*format!("east: {rule}")))
    );
    assert_eq!(pair.apps.call_from(FRONTEND, &pair.west).unwrap(), "orders");

    // What is not exported to it at all, west does not ask for.
    for export in ["", "exports: [{ app: shop/orders, allow: [{ network: 10.0.0.0/8 }] }]\n"] {
        let pair = Pair::with(export, IMPORT);
        assert_eq!(pair.apps.call(&pair.west).unwrap_err(), "InternalError");
        pair.west.record("no_healthy_endpoint");
        let told = pair.west.status()["routes"].to_string();
        assert!(told.contains("the cluster does not export it to this one"), "{told}");
    }
}

#[test]
fn a_far_app_that_is_gone_is_told_as_that() {
    let pair = Pair::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    pair.east.rewrite_all(&super::east(&pair.folders.of("east"), free, EXPORT));
    wait_until("east has the other endpoint", || {
        pair.east.status()["generation"].as_u64() >= Some(2)
    });
    assert_eq!(pair.apps.call(&pair.west).unwrap_err(), "InternalError");
    let record = pair.west.record("refused_by_far");
    assert_eq!(record["reason"], "east: the far gateway refuses: connect_failed");
    pair.east.record("connect_failed");
    assert_eq!(pair.east.status()["cluster"], "east");
}

#[test]
fn a_caller_that_the_import_does_not_admit_never_reaches_a_link() {
    let import = "imports: [{ app: shop/orders, clusters: [east], allow: [shop/frontend] }]\n";
    let pair = Pair::with(EXPORT, import);
    assert_eq!(pair.apps.call(&pair.west).unwrap_err(), "AccessDenied");
    pair.west.record("unknown_caller");
    assert_eq!(pair.apps.call_from(FRONTEND, &pair.west).unwrap(), "orders");
    assert_eq!(
        pair.east.records().iter().filter(|record| record["ending"] != "completed").count(),
        0
    );
}

/// West, which calls east first and then south, where the app is.
struct Three {
    _folders: tempfile::TempDir,
    _south: Gateway,
    west: Gateway,
}

fn three(apps: &Apps, first: impl FnOnce(&Ca, &Path) -> SocketAddr) -> Three {
    let (ca, folders) = (Ca::new("links"), tempfile::tempdir().unwrap());
    let of = |cluster: &str| folders.path().join(cluster);
    for cluster in ["west", "east", "south"] {
        ca.fill(&of(cluster), &ca.gateway(cluster));
    }
    let south = super::east(&of("south"), apps.orders.address, EXPORT);
    let south = Gateway::with_config(&south.replace("cluster: east", "cluster: south"));
    let import = "imports: [{ app: shop/orders, clusters: [east, south], allow: any }]\n";
    let config = super::west(&of("west"), first(&ca, &of("east")), import);
    let south_too = format!("] }}, south: {{ gateways: [\"{}\"] }} }}\n", south.ingress());
    let west = Gateway::with_config(&config.replace("] } }\n", &south_too));
    Three { _folders: folders, _south: south, west }
}

#[test]
fn a_refused_call_goes_to_the_next_cluster_if_that_may_do() {
    let apps = Apps::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut east = None;
    let three = three(&apps, |_, folder| {
        let gateway = Gateway::with_config(&super::east(folder, free, EXPORT));
        east.insert(gateway).ingress()
    });
    assert_eq!(apps.call(&three.west).unwrap(), "orders");
    let record = three.west.record("completed");
    assert_eq!((&record["via"], &record["attempts"]), (&"south".into(), &2.into()));
    east.unwrap().record("connect_failed");
}

#[test]
fn what_may_have_arrived_is_said_again_elsewhere_only_if_it_is_a_lone_hello() {
    let apps = Apps::start();
    // Takes what comes on a link, and says nothing to it but the end.
    let three = three(&apps, |ca, _| {
        let identity = ca.gateway("east");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        config.alpn_protocols = vec![b"strait/1".to_vec()];
        ends_links(config)
    });
    assert_eq!(apps.call(&three.west).unwrap(), "orders");
    let two = [super::hello::hello(ORDERS.as_bytes()), b"\x17\x03\x03\0\x01e".to_vec()].concat();
    let mut stream = TcpStream::connect(three.west.ingress()).unwrap();
    stream.write_all(&two).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let record = three.west.record("connect_failed");
    assert_eq!(record["attempts"], 1, "{record}");
}

/// Accepts links, reads a preamble and more, and ends them.
fn ends_links(config: ServerConfig) -> SocketAddr {
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = StreamOwned::new(tls, stream).read(&mut [0; 4096]);
        }
    });
    address
}
