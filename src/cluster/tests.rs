//! Gateways of two clusters over loopback, with certificates of every kind.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{AlertDescription, NamedGroup, RootCertStore};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::identity::Reason;
use super::link::{Arrived, LinkError, LinkStream, Unaccepted};
use super::preamble::Preamble;
use super::reply::{Code, Refusal};
use super::*;
use crate::model::app::AppId;
use crate::proxy_protocol::Addresses;
use crate::reactor::Socket;

/// Far beyond what a loaded machine needs; a test that fails takes so long, one that passes does not.
const BOUND: Duration = Duration::from_secs(30);

const HOUR: time::Duration = time::Duration::HOUR;

/// An authority that can revoke.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// What a certificate says.
struct Wanted<'a> {
    uris: &'a [&'a str],
    from: OffsetDateTime,
    until: OffsetDateTime,
    serial: u64,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

const WEST: &str = "spiffe://example.org/cluster/west";
const EAST: &str = "spiffe://example.org/cluster/east";

fn wanted<'a>(uris: &'a [&'a str]) -> Wanted<'a> {
    let now = OffsetDateTime::now_utc();
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Wanted { uris, from: now - HOUR, until: now + HOUR, serial: 7, usages }
}

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn issue(&self, wanted: &Wanted<'_>) -> Arc<CertifiedKey> {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            wanted.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        (params.not_before, params.not_after) = (wanted.from, wanted.until);
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.extended_key_usages = wanted.usages.clone();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Arc::new(CertifiedKey::from_der(vec![certificate], key, &provider()).unwrap())
    }

    /// A list that is valid for an hour, or for none.
    fn revoke(&self, serial: u64, expired: bool) -> CertificateRevocationListDer<'static> {
        let now = OffsetDateTime::now_utc();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now - HOUR,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - HOUR * 2,
            next_update: if expired { now - HOUR } else { now + HOUR },
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

fn id(uri: &str) -> ClusterId {
    ClusterId::parse(uri).unwrap()
}

fn peer(uri: &str, authority: &Authority) -> Peer {
    Peer { id: id(uri), anchors: authority.roots() }
}

fn links(own: &str, identity: &Arc<CertifiedKey>, peers: Vec<Peer>) -> Links {
    Links::new(&id(own), identity, peers, &[]).unwrap()
}

/// West and east under one authority.
fn both(authority: &Authority) -> (Links, Links) {
    let (west, east) = (authority.issue(&wanted(&[WEST])), authority.issue(&wanted(&[EAST])));
    let west = links(WEST, &west, vec![peer(EAST, authority)]);
    (west, links(EAST, &east, vec![peer(WEST, authority)]))
}

fn preamble() -> Preamble {
    let ends = Addresses {
        source: "192.0.2.1:1000".parse().unwrap(),
        destination: "198.51.100.2:8443".parse().unwrap(),
    };
    let app = AppId::parse("shop/frontend").ok();
    Preamble { ends, unique_id: b"id".to_vec(), app, traceparent: None, plain: false }
}

async fn sockets() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    (Socket::from_std(near.into_std().unwrap()).unwrap(), Socket::from_std(far).unwrap())
}

/// A link to `east` for an app of its.
async fn connect(near: &Links, socket: Socket, first: &[u8]) -> Result<LinkStream, LinkError> {
    let mut stream = near.open(socket, &"east".into(), "orders.example").await?;
    stream.ask(first).await?;
    Ok(stream)
}

/// What both sides come to when `near` dials `east`; the far side accepts what it can.
async fn dial(
    near: &Links,
    far: &Links,
) -> (Result<LinkStream, LinkError>, Result<Arrived, Unaccepted>) {
    let (dialling, accepting) = sockets().await;
    let first = preamble::encode(&preamble());
    let accepted = async {
        let mut arrived = far.accept(accepting, Bytes::new()).await?;
        arrived.stream.accept().await.unwrap();
        Ok(arrived)
    };
    let dialled = connect(near, dialling, &first);
    let both = async { tokio::join!(dialled, accepted) };
    Box::pin(timeout(BOUND, both)).await.expect("both sides end")
}

/// A link that both sides take.
async fn linked(near: &Links, far: &Links) -> (LinkStream, Arrived) {
    let (near, far) = dial(near, far).await;
    (near.unwrap(), far.unwrap())
}

/// The reason for which the far side refuses.
async fn refused_by_far(near: &Links, far: &Links) -> Reason {
    let error = dial(near, far).await.1.unwrap_err().error;
    let LinkError::Certificate(reason) = error else { panic!("{error:?}") };
    reason
}

/// The reason for which the near side refuses.
async fn refused_by_near(near: &Links, far: &Links) -> Reason {
    let error = dial(near, far).await.0.unwrap_err();
    let LinkError::Certificate(reason) = error else { panic!("{error:?}") };
    reason
}

#[tokio::test]
async fn what_is_said_before_the_bytes_arrives() {
    let (west, east) = both(&Authority::new());
    let (mut near, mut far) = linked(&west, &east).await;
    assert_eq!((&*far.cluster, far.preamble), ("west", preamble()));
    for _ in 0..3 {
        near.write_all(b"up").await.unwrap();
        far.stream.write_all(b"down").await.unwrap();
        let (mut up, mut down) = ([0; 2], [0; 4]);
        far.stream.read_exact(&mut up).await.unwrap();
        near.read_exact(&mut down).await.unwrap();
        assert_eq!((&up, &down), (b"up", b"down"));
    }
    // Half-close: the other direction goes on.
    near.shutdown().await.unwrap();
    assert_eq!(far.stream.read(&mut [0; 9]).await.unwrap(), 0);
    far.stream.write_all(b"still").await.unwrap();
    far.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"still");
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_broke() {
    let (west, east) = both(&Authority::new());
    let (near, mut far) = linked(&west, &east).await;
    drop(near);
    let error = far.stream.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn key_exchange_is_post_quantum_and_the_version_1_3() {
    let (west, east) = both(&Authority::new());
    let (near, _far) = linked(&west, &east).await;
    let session = near.session();
    let group = session.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(session.alpn_protocol(), Some(ALPN));
}

#[tokio::test]
async fn a_second_link_resumes_and_a_change_forgets() {
    let authority = Authority::new();
    let (west, east) = both(&authority);
    let (mut first, mut far) = linked(&west, &east).await;
    // The ticket came before the reply.
    assert!(!first.is_resumed());
    let (second, far_second) = linked(&west, &east).await;
    assert!(second.is_resumed() && far_second.stream.is_resumed());
    assert_eq!(&*far_second.cluster, "west", "a resumed link's cluster is known");
    // The far side has other settings: its tickets are no longer known, and the link is a full one.
    let renewed = authority.issue(&wanted(&[EAST]));
    let east = links(EAST, &renewed, vec![peer(WEST, &authority)]);
    let (third, _far) = linked(&west, &east).await;
    assert!(!third.is_resumed());
    // What is open is left alone.
    first.write_all(b"up").await.unwrap();
    far.stream.read_exact(&mut [0; 2]).await.unwrap();
}

#[tokio::test]
async fn the_apps_of_a_cluster_resume_however_many_they_are() {
    let (west, east) = both(&Authority::new());
    for resumes in [false, true] {
        for app in 0..200 {
            let (dialling, accepting) = sockets().await;
            let name = format!("app-{app}.example");
            let near = async {
                let mut stream = west.open(dialling, &"east".into(), &name).await.unwrap();
                stream.ask(&preamble::encode(&preamble())).await.unwrap();
                stream.is_resumed()
            };
            let far = async {
                let mut arrived = east.accept(accepting, Bytes::new()).await.unwrap();
                arrived.stream.accept().await.unwrap();
            };
            let both = async { tokio::join!(near, far) };
            let both = Box::pin(timeout(BOUND, both)).await;
            assert_eq!(both.unwrap().0, resumes, "{name}");
        }
    }
}

#[tokio::test]
async fn no_ticket_is_good_for_early_data() {
    let authority = Authority::new();
    let (west, east) = both(&authority);
    let mut config = ClientConfig::clone(&west.near.get("east").unwrap().config);
    assert!(!config.enable_early_data);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let (near, far) = sockets().await;
    let name: ServerName<'static> = "orders.example".try_into().unwrap();
    let client = async {
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut stream = connector.connect(name.clone(), near).await.unwrap();
        stream.write_all(&preamble::encode(&preamble())).await.unwrap();
        stream.read_exact(&mut [0; 10]).await.unwrap();
    };
    let server = async { east.accept(far, Bytes::new()).await.unwrap().stream.accept().await };
    let both = async { tokio::join!(client, server) };
    Box::pin(timeout(BOUND, both)).await.unwrap().1.unwrap();
    let other = "others.example".try_into().unwrap();
    let [resuming, full] = [name, other].map(|name| {
        let mut next = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        assert!(next.early_data().is_none());
        let mut hello = Vec::new();
        next.write_tls(&mut hello).unwrap();
        hello.len()
    });
    // With a ticket, in which the near side's chain is.
    assert!(resuming > full + 400, "{resuming}, {full}");
}

#[tokio::test]
async fn the_far_side_refuses_with_a_reason_each() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let east = authority.issue(&wanted(&[EAST]));
    let far = links(EAST, &east, vec![peer(WEST, &authority)]);
    let now = OffsetDateTime::now_utc();
    let expired = Wanted { until: now - HOUR, from: now - HOUR * 2, ..wanted(&[WEST]) };
    let future = Wanted { from: now + HOUR, until: now + HOUR * 2, ..wanted(&[WEST]) };
    let server = Wanted { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..wanted(&[WEST]) };
    for (identity, reason) in [
        (stranger.issue(&wanted(&[WEST])), Reason::UnknownIssuer),
        (Authority::named("other").issue(&wanted(&[WEST])), Reason::UnknownIssuer),
        (authority.issue(&expired), Reason::Expired),
        (authority.issue(&future), Reason::NotYetValid),
        (authority.issue(&wanted(&["spiffe://other.org/cluster/west"])), Reason::WrongTrustDomain),
        (authority.issue(&wanted(&[])), Reason::NoUri),
        (authority.issue(&wanted(&[WEST, WEST])), Reason::SeveralUris),
        (authority.issue(&wanted(&["spiffe://example.org/ns/shop/orders"])), Reason::NoCluster),
        (authority.issue(&wanted(&["spiffe://example.org/cluster/north"])), Reason::UnknownCluster),
        (authority.issue(&wanted(&[EAST])), Reason::OwnCluster),
        (authority.issue(&server), Reason::Unacceptable),
    ] {
        // The near side takes itself for what it is not; its own view does not matter here.
        let near = links(WEST, &identity, vec![peer(EAST, &authority)]);
        assert_eq!(refused_by_far(&near, &far).await, reason);
    }
}

#[tokio::test]
async fn the_near_side_wants_the_cluster_that_it_dialled() {
    let authority = Authority::new();
    let west = authority.issue(&wanted(&[WEST]));
    let north = "spiffe://example.org/cluster/north";
    let near = links(WEST, &west, vec![peer(EAST, &authority), peer(north, &authority)]);
    for (uris, reason) in [
        (&[north][..], Reason::OtherCluster),
        (&[WEST], Reason::OwnCluster),
        (&[], Reason::NoUri),
        (&[EAST, "https://east.example"], Reason::SeveralUris),
        (&["spiffe://other.org/cluster/east"], Reason::WrongTrustDomain),
    ] {
        let far = links(EAST, &authority.issue(&wanted(uris)), vec![peer(WEST, &authority)]);
        assert_eq!(refused_by_near(&near, &far).await, reason);
    }
    let far = links(EAST, &Authority::new().issue(&wanted(&[EAST])), vec![peer(WEST, &authority)]);
    assert_eq!(refused_by_near(&near, &far).await, Reason::UnknownIssuer);
}

#[tokio::test]
async fn one_cluster_s_authority_cannot_name_another() {
    let (own, other) = (Authority::new(), Authority::new());
    let east = own.issue(&wanted(&[EAST]));
    let north = "spiffe://north.org/cluster/north";
    let far = links(EAST, &east, vec![peer(WEST, &own), peer(north, &other)]);
    let posing = links(WEST, &other.issue(&wanted(&[WEST])), vec![peer(EAST, &own)]);
    assert_eq!(refused_by_far(&posing, &far).await, Reason::UnknownIssuer);
    let itself = links(north, &other.issue(&wanted(&[north])), vec![peer(EAST, &own)]);
    assert_eq!(&*linked(&itself, &far).await.1.cluster, "north");
}

#[tokio::test]
async fn who_is_revoked_is_refused_on_either_side_by_an_expired_list_too() {
    let authority = Authority::new();
    let (west, east) = both(&authority);
    for expired in [false, true] {
        let list = [authority.revoke(7, expired)];
        let revoked = Wanted { serial: 8, ..wanted(&[EAST]) };
        let far =
            Links::new(&id(EAST), &authority.issue(&revoked), vec![peer(WEST, &authority)], &list);
        assert_eq!(refused_by_far(&west, &far.unwrap()).await, Reason::Revoked);
        let revoked = Wanted { serial: 8, ..wanted(&[WEST]) };
        let near =
            Links::new(&id(WEST), &authority.issue(&revoked), vec![peer(EAST, &authority)], &list);
        assert_eq!(refused_by_near(&near.unwrap(), &east).await, Reason::Revoked);
    }
    // A list of another authority says nothing of these.
    let list = [Authority::named("other").revoke(7, false)];
    let far = Links::new(
        &id(EAST),
        &authority.issue(&wanted(&[EAST])),
        vec![peer(WEST, &authority)],
        &list,
    );
    linked(&west, &far.unwrap()).await;
}

#[tokio::test]
async fn a_link_that_resumes_is_judged_again() {
    let authority = Authority::new();
    let (west, east) = both(&authority);
    drop(linked(&west, &east).await);
    let resumed = linked(&west, &east).await.1;
    assert!(resumed.stream.is_resumed());
    let (end, rest) = resumed.stream.certificates().unwrap();
    let at = |hours: u64| {
        rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
            rustls::pki_types::UnixTime::now().as_secs() + hours * 3600,
        ))
    };
    let judge = |hours| east.trust.prove(trust::Role::Client, end, rest, at(hours));
    assert_eq!(judge(0).as_deref(), Ok("west"));
    assert_eq!(judge(2), Err(Reason::Expired), "known, but its time is over");
}

#[tokio::test]
async fn who_shows_no_certificate_is_told() {
    let (_, east) = both(&Authority::new());
    let expected = Dialled { trust: Arc::clone(&east.trust), cluster: "east".into() };
    // Believes everybody: only what the far side does is looked at.
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(expected)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let (near, far) = sockets().await;
    let name = "orders.example".try_into().unwrap();
    let client = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
        stream.read(&mut [0; 1]).await
    };
    let both = async { tokio::join!(client, east.accept(far, Bytes::new())) };
    let (client, far) = Box::pin(timeout(BOUND, both)).await.unwrap();
    let alert = client.unwrap_err().downcast::<Error>().unwrap();
    assert_eq!(alert, Error::AlertReceived(AlertDescription::CertificateRequired));
    assert!(matches!(far.unwrap_err().error, LinkError::Certificate(Reason::NoCertificate)));
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Dialled);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[tokio::test]
async fn a_refusal_comes_instead_of_bytes() {
    let (west, east) = both(&Authority::new());
    let (dialling, accepting) = sockets().await;
    let first = preamble::encode(&preamble());
    let refusal = Refusal::new(Code::Denied, "export of shop/orders");
    let refuse = async {
        let arrived = east.accept(accepting, Bytes::new()).await.unwrap();
        arrived.stream.refuse(refusal.clone()).await
    };
    let dialled = connect(&west, dialling, &first);
    let (dialled, _socket) = tokio::join!(dialled, refuse);
    assert!(matches!(dialled.unwrap_err(), LinkError::Refused(read) if read == refusal));
}

#[tokio::test]
async fn what_is_no_preamble_is_answered_with_a_refusal() {
    let (west, east) = both(&Authority::new());
    let (dialling, accepting) = sockets().await;
    let dialled = connect(&west, dialling, b"\x16\x03\x01");
    let (dialled, accepted) = tokio::join!(dialled, east.accept(accepting, Bytes::new()));
    assert!(matches!(accepted.unwrap_err().error, LinkError::Preamble(_)));
    let expected = Refusal::new(Code::BadPreamble, "");
    assert!(matches!(dialled.unwrap_err(), LinkError::Refused(read) if read == expected));
}

#[test]
fn a_certificate_of_one_s_own_that_others_would_refuse_is_told() {
    let authority = Authority::new();
    let judge = |uris: &[&str]| judge_own(&id(WEST), &authority.issue(&wanted(uris)).cert);
    assert_eq!(judge(&[WEST]), Ok(()));
    for uris in [&[][..], &[EAST], &[WEST, EAST]] {
        let (_, fix) = judge(uris).unwrap_err();
        assert!(fix.contains(WEST), "{fix}");
    }
}
