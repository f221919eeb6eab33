//! Links: mutual TLS from one gateway to another, with the cluster in the certificate, and what is said inside before the bytes.
//!
//! `preamble` and `reply` are the two headers, byte by byte in `ARCHITECTURE.md`; `trust` decides on certificates; `link` opens
//! and accepts.

mod current;
pub mod identity;
pub mod link;
pub mod preamble;
pub mod reply;
mod tickets;
mod trust;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};
use tokio::io::DuplexStream;

use crate::tls::Facts;

use identity::ClusterId;
use tickets::Tickets;
use trust::{Dialled, Dialling, Trust};

pub use current::Current;
pub use trust::Peer;

/// The one protocol of links (ALPN, RFC 7301). The far gateway terminates TLS for it alone.
pub const ALPN: &[u8] = b"strait/1";

/// Names of a cluster whose sessions are kept: a session is resumed under its own only (RFC 8446 §4.6.1). Beyond that the oldest
/// name is forgotten, and with one more in turn each of them is before it comes again. Apps of a cluster are hundreds.
const NAMES: usize = 1024;
/// Sessions of a name, of which rustls keeps no more: as many as links were opened at once. One takes 3 KiB.
const SESSIONS: usize = 8;

/// All that links need of certificates and clusters. Never changed: whatever changes makes another one, with ticket keys and
/// session stores of its own, so that no link resumes what was judged by other anchors, lists or clusters. A link that is open
/// does not hold it.
#[derive(Debug)]
pub struct Links {
    trust: Arc<Trust>,
    far: Arc<ServerConfig>,
    near: BTreeMap<Arc<str>, Near>,
}

/// How a cluster is dialled.
#[derive(Debug)]
struct Near {
    config: Arc<ClientConfig>,
    expected: Arc<Dialled>,
}

/// A link on which another gateway asks what is exported to its cluster. In memory: its socket stays with the core that has
/// accepted it.
#[derive(Debug)]
pub struct Inquiry {
    /// The cluster that asks: proven by certificate.
    pub cluster: Arc<str>,
    /// What it says and hears.
    pub stream: DuplexStream,
}

/// Why there can be no links with a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no link with {cluster} is possible: {message}")]
pub struct Unusable {
    /// The cluster's name, the own one where nothing is possible.
    pub cluster: Arc<str>,
    /// Why.
    pub message: String,
}

impl Links {
    /// What makes links between `own`, whose gateways show `identity`, and `peers`.
    pub fn new(
        own: &ClusterId,
        identity: &Arc<CertifiedKey>,
        peers: Vec<Peer>,
        revoked: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, Unusable> {
        let wrong = |error: Error| Unusable {
            cluster: Arc::clone(&own.cluster),
            message: error.to_string(),
        };
        let provider = Arc::new(provider());
        let identity = Arc::new(SingleCertAndKey::from(Arc::clone(identity)));
        let clusters: Vec<_> = peers.iter().map(|peer| Arc::clone(&peer.id.cluster)).collect();
        let trust = Arc::new(Trust::new(own.clone(), peers, revoked, Arc::clone(&provider))?);
        let far = far(&trust, &identity, &provider).map_err(wrong)?;
        let near = clusters.into_iter().map(|cluster| {
            let expected = Dialled { trust: Arc::clone(&trust), cluster: Arc::clone(&cluster) };
            Ok((cluster, Near::new(Arc::new(expected), &identity, &provider)?))
        });
        let near = near.collect::<Result<_, Error>>().map_err(wrong)?;
        Ok(Self { trust, far: Arc::new(far), near })
    }

    /// Whether a cluster can be dialled.
    pub fn knows(&self, cluster: &str) -> bool {
        self.near.contains_key(cluster)
    }
}

/// Says what is wrong with a chain as this gateway's own: other gateways would refuse it. Message and fix.
pub fn judge_own(
    own: &ClusterId,
    chain: &[CertificateDer<'static>],
) -> Result<(), (String, String)> {
    let fix = format!("a gateway's certificate has exactly one URI name: {own}");
    let facts = chain.first().and_then(Facts::read);
    let Some(facts) = facts else { return Err(("the certificate is garbled".to_owned(), fix)) };
    match &*facts.uris {
        [uri] if *uri == own.to_string() => Ok(()),
        [] => Err(("the certificate has no URI name".to_owned(), fix)),
        [uri] => Err((format!("the certificate is for {uri}"), fix)),
        [_, ..] => Err(("the certificate has more than one URI name".to_owned(), fix)),
    }
}

impl Near {
    fn new(
        expected: Arc<Dialled>,
        identity: &Arc<SingleCertAndKey>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let verifier = Arc::clone(&expected);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(identity));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption =
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(NAMES * SESSIONS)));
        // Early data could be replayed to the far side, and with it a call.
        config.enable_early_data = false;
        Ok(Self { config: Arc::new(config), expected })
    }
}

fn far(
    trust: &Arc<Trust>,
    identity: &Arc<SingleCertAndKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Dialling(Arc::clone(trust))))
        .with_cert_resolver(Arc::<SingleCertAndKey>::clone(identity));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = Arc::new(Tickets::new()?);
    // A link uses one up and brings one: rustls' client shows no ticket twice (RFC 8446 §C.4).
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

/// aws-lc-rs, with the hybrid post-quantum key exchange (draft-ietf-tls-ecdhe-mlkem) first: what crosses between clusters today
/// may be kept until somebody can compute the rest.
///
/// AES with 128 bits first, for its hash: a fifth of a resumed link's time was SHA-384, for which processors have no instructions. It
/// is Go's first choice too, and so what the sidecars inside a link have agreed on; no quantum computer is known to halve its
/// strength in practice (NIST IR 8547 keeps it). A gateway that offers only the one with 256 bits gets that.
fn provider() -> CryptoProvider {
    let kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { kx_groups, cipher_suites, ..aws_lc_rs::default_provider() }
}

#[cfg(test)]
mod tests;
