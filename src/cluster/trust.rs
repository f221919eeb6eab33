//! Which certificates prove which cluster: the one place that says so, for handshakes and for resumed links alike.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, DnsName, ServerName, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use crate::tls::Facts;

use super::Unusable;
use super::identity::{ClusterId, Reason};

/// Most chains that are remembered as proven. A cluster has a few gateways, each with one chain at a time.
const MOST_PROVEN: usize = 1024;

/// Another cluster that links may be with.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What its certificates must name.
    pub id: ClusterId,
    /// What their chains must lead to.
    pub anchors: Arc<RootCertStore>,
}

/// Decides on certificates. Never changed: other anchors, revocation lists or clusters make another one, which remembers nothing.
pub(super) struct Trust {
    own: ClusterId,
    peers: BTreeMap<Arc<str>, Judge>,
    provider: Arc<CryptoProvider>,
    /// Chains that were verified by these very anchors and lists, so that a link that resumes costs no signature check.
    proven: Mutex<HashMap<Vec<u8>, Proof>>,
}

/// On which side of a link the other gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It has dialled.
    Client,
    /// It was dialled.
    Server,
}

/// One cluster and the verifiers of its chains.
struct Judge {
    id: ClusterId,
    as_client: Arc<dyn ClientCertVerifier>,
    as_server: Arc<WebPkiServerVerifier>,
}

/// What a chain was found to prove, and while it does.
#[derive(Debug, Clone)]
struct Proof {
    cluster: Arc<str>,
    from: UnixTime,
    until: UnixTime,
}

impl Trust {
    pub(super) fn new(
        own: ClusterId,
        peers: Vec<Peer>,
        revoked: &[CertificateRevocationListDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Unusable> {
        let judges = peers.into_iter().map(|peer| {
            let cluster = Arc::clone(&peer.id.cluster);
            Ok((cluster, Judge::new(peer, revoked, &provider)?))
        });
        let peers = judges.collect::<Result<_, Unusable>>()?;
        Ok(Self { own, peers, provider, proven: Mutex::default() })
    }

    /// The cluster that a certificate proves with the rest of its chain.
    pub(super) fn prove(
        &self,
        role: Role,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<str>, Reason> {
        let key = key(role, end, rest);
        if let Some(proof) = self.proven().get(&key).filter(|proof| proof.holds(now)) {
            return Ok(Arc::clone(&proof.cluster));
        }
        let facts = Facts::read(end).ok_or(Reason::Garbled)?;
        let judge = self.named(&facts)?;
        judge.verify(role, end, rest, now)?;
        let cluster = Arc::clone(&judge.id.cluster);
        let proof = Proof::new(Arc::clone(&cluster), &facts, rest, now);
        let mut proven = self.proven();
        if proven.len() >= MOST_PROVEN {
            proven.clear();
        }
        proven.insert(key, proof);
        Ok(cluster)
    }

    /// Who decides on the cluster that a certificate claims to be of.
    fn named(&self, facts: &Facts) -> Result<&Judge, Reason> {
        let uri = match &*facts.uris {
            [] => return Err(Reason::NoUri),
            [uri] => uri,
            [_, ..] => return Err(Reason::SeveralUris),
        };
        let id = ClusterId::parse(uri).ok_or(Reason::NoCluster)?;
        if id == self.own {
            return Err(Reason::OwnCluster);
        }
        match self.peers.get(&id.cluster) {
            Some(judge) if judge.id == id => Ok(judge),
            None if self.knows(&id.trust_domain) => Err(Reason::UnknownCluster),
            Some(_) | None => Err(Reason::WrongTrustDomain),
        }
    }

    fn knows(&self, trust_domain: &str) -> bool {
        let peers = self.peers.values().map(|judge| &judge.id);
        peers.chain([&self.own]).any(|id| &*id.trust_domain == trust_domain)
    }

    fn proven(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Proof>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Trust").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Judge {
    /// A certificate whose issuer has no list among these is not revoked: a list of one authority would otherwise shut out the
    /// clusters of every other. An expired list stays in force, rustls' default here: what it revokes has not become good.
    fn new(
        peer: Peer,
        revoked: &[CertificateRevocationListDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Unusable> {
        let Peer { id, anchors } = peer;
        let wrong = |error: rustls::client::VerifierBuilderError| Unusable {
            cluster: Arc::clone(&id.cluster),
            message: error.to_string(),
        };
        let roots = Arc::clone(&anchors);
        let as_client = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .with_crls(revoked.iter().cloned())
            .allow_unknown_revocation_status();
        let as_server = WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(provider))
            .with_crls(revoked.iter().cloned())
            .allow_unknown_revocation_status();
        let as_client = as_client.build().map_err(wrong)?;
        let as_server = as_server.build().map_err(wrong)?;
        Ok(Self { id, as_client, as_server })
    }

    /// Chain, validity and revocation, by rustls' own verifiers.
    fn verify(
        &self,
        role: Role,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Reason> {
        let verified = match role {
            Role::Client => self.as_client.verify_client_cert(end, rest, now).map(drop),
            Role::Server => self.verify_server(end, rest, now),
        };
        verified.map_err(|error| Reason::of_tls(&error).unwrap_or(Reason::Unacceptable))
    }

    /// The verifier of servers compares host names last, when all else is proven, and gateways have none: who they are is their
    /// URI. Only that final mismatch is passed over.
    fn verify_server(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        match self.as_server.verify_server_cert(end, rest, &nobody(), &[], now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ))
            | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A host name that no certificate has to bear (RFC 6761 §6.4).
fn nobody() -> ServerName<'static> {
    match DnsName::try_from("link.invalid") {
        Ok(name) => ServerName::DnsName(name),
        Err(_) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    }
}

impl Proof {
    /// Holds while each certificate of the chain does that holds now. One that did not was not needed.
    fn new(cluster: Arc<str>, facts: &Facts, rest: &[CertificateDer<'_>], now: UnixTime) -> Self {
        let rest = rest.iter().filter_map(Facts::read).filter(|facts| facts.holds(now));
        let whole = Self { cluster, from: facts.not_before, until: facts.not_after };
        rest.fold(whole, |proof, facts| Self {
            from: proof.from.max(facts.not_before),
            until: proof.until.min(facts.not_after),
            ..proof
        })
    }

    fn holds(&self, now: UnixTime) -> bool {
        self.from <= now && now <= self.until
    }
}

/// The whole chain, each certificate behind its length: compared, not hashed, so that nothing has to be believed of a hash.
fn key(role: Role, end: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut key = vec![match role {
        Role::Client => 0,
        Role::Server => 1,
    }];
    for certificate in [end].into_iter().chain(rest) {
        key.extend(certificate.len().to_be_bytes());
        key.extend_from_slice(certificate);
    }
    key
}

/// Links are TLS 1.3 only, so nobody comes here; but if anybody did, nothing would be proven.
fn not_spoken() -> Error {
    Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
}

/// What the far side asks of who dials.
#[derive(Debug)]
pub(super) struct Dialling(pub(super) Arc<Trust>);

impl ClientCertVerifier for Dialling {
    /// None: a gateway has one certificate, it needs no hint which of them to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.0.prove(Role::Client, end, rest, now) {
            Ok(_cluster) => Ok(ClientCertVerified::assertion()),
            Err(reason) => Err(reason.into_tls()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What the near side asks of whom it dials: to be of this cluster.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) trust: Arc<Trust>,
    pub(super) cluster: Arc<str>,
}

impl Dialled {
    /// Whether a chain proves the cluster that was dialled.
    pub(super) fn judge(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Reason> {
        let proven = self.trust.prove(Role::Server, end, rest, now)?;
        if proven == self.cluster { Ok(()) } else { Err(Reason::OtherCluster) }
    }
}

impl ServerCertVerifier for Dialled {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(end, rest, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(reason) => Err(reason.into_tls()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}
