//! Which cluster a certificate names, and every reason why it proves none.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

/// A cluster as a certificate names it: `spiffe://<trust domain>/cluster/<name>` (SPIFFE-ID §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterId {
    /// The SPIFFE trust domain.
    pub trust_domain: Arc<str>,
    /// The cluster's name.
    pub cluster: Arc<str>,
}

impl ClusterId {
    /// Reads the URI, which is compared as it is written: two spellings of one id would be two certificates to a revoker.
    pub fn parse(uri: &str) -> Option<Self> {
        let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let cluster = path.strip_prefix("cluster/")?;
        let whole = !trust_domain.is_empty() && !cluster.is_empty() && !cluster.contains('/');
        whole.then(|| Self { trust_domain: trust_domain.into(), cluster: cluster.into() })
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "spiffe://{}/cluster/{}", self.trust_domain, self.cluster)
    }
}

/// Why a certificate proves no cluster that a link may be with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// None was shown.
    #[error("no certificate was shown")]
    NoCertificate,
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Garbled,
    /// No chain to a trust anchor of the cluster that it names.
    #[error("the certificate's issuer is not among the cluster's trust anchors")]
    UnknownIssuer,
    /// Its time is over, or that of a certificate of its chain.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come, or that of a certificate of its chain.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// The trust domain is not the named cluster's.
    #[error("the certificate is of another trust domain")]
    WrongTrustDomain,
    /// No URI name.
    #[error("the certificate has no URI name")]
    NoUri,
    /// More than one URI name.
    #[error("the certificate has more than one URI name")]
    SeveralUris,
    /// A URI name that names no cluster.
    #[error("the certificate's URI names no cluster")]
    NoCluster,
    /// A cluster that is not configured here.
    #[error("the certificate names a cluster that is not configured here")]
    UnknownCluster,
    /// A configured cluster, but not the one that was dialled.
    #[error("the certificate names another cluster than the one that was dialled")]
    OtherCluster,
    /// This cluster itself.
    #[error("the certificate names this very cluster")]
    OwnCluster,
    /// It stands in a revocation list, or a certificate of its chain does.
    #[error("the certificate is revoked")]
    Revoked,
    /// Whatever else the chain's verifier finds: a bad signature, a purpose that is not a link's.
    #[error("the certificate is not acceptable")]
    Unacceptable,
}

impl Reason {
    /// Every reason, for documentation and tests.
    pub const ALL: [Self; 14] = [
        Self::NoCertificate,
        Self::Garbled,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongTrustDomain,
        Self::NoUri,
        Self::SeveralUris,
        Self::NoCluster,
        Self::UnknownCluster,
        Self::OtherCluster,
        Self::OwnCluster,
        Self::Revoked,
        Self::Unacceptable,
    ];

    /// The metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Garbled => "garbled_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::NoUri => "no_uri",
            Self::SeveralUris => "several_uris",
            Self::NoCluster => "no_cluster",
            Self::UnknownCluster => "unknown_cluster",
            Self::OtherCluster => "other_cluster",
            Self::OwnCluster => "own_cluster",
            Self::Revoked => "revoked",
            Self::Unacceptable => "unacceptable_certificate",
        }
    }

    /// What the operator may do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "only a gateway with a certificate opens links: set `link` in the other cluster's configuration"
            }
            Self::Garbled => "look at the other cluster's tls.crt: openssl x509 -in tls.crt -text",
            Self::UnknownIssuer => {
                "put the other cluster's CA into ca.crt, or name it as clusters.NAME.trustBundle"
            }
            Self::Expired => "renew the other cluster's certificate, and look at both clocks",
            Self::NotYetValid => "look at both clusters' clocks",
            Self::WrongTrustDomain => {
                "set clusters.NAME.trustDomain if the other cluster has a trust domain of its own"
            }
            Self::NoUri | Self::SeveralUris | Self::NoCluster => {
                "a gateway's certificate has exactly one URI name: spiffe://TRUST-DOMAIN/cluster/NAME"
            }
            Self::UnknownCluster => {
                "add the cluster under `clusters`, by the name in its certificate"
            }
            Self::OtherCluster => {
                "look at clusters.NAME.gateways: the address leads to another cluster's gateway"
            }
            Self::OwnCluster => {
                "the address leads back to this cluster, or both clusters' configurations have the same name"
            }
            Self::Revoked => "give the other cluster a new certificate, or take it out of crl.pem",
            Self::Unacceptable => {
                "it needs both extended key usages, server and client authentication, and a chain that verifies"
            }
        }
    }

    /// The error by which a verifier refuses: where rustls has a name for the reason the alert tells it to the other side.
    pub(super) fn into_tls(self) -> Error {
        Error::InvalidCertificate(match self {
            Self::UnknownIssuer => CertificateError::UnknownIssuer,
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::NoCertificate
            | Self::Garbled
            | Self::WrongTrustDomain
            | Self::NoUri
            | Self::SeveralUris
            | Self::NoCluster
            | Self::UnknownCluster
            | Self::OtherCluster
            | Self::OwnCluster
            | Self::Unacceptable => CertificateError::Other(OtherError(Arc::new(self))),
        })
    }

    /// The reason in an error of a handshake; `None` when it is not about a certificate.
    pub(super) fn of_tls(error: &Error) -> Option<Self> {
        if let Error::InvalidCertificate(error) = error {
            return Some(Self::of_certificate(error));
        }
        (*error == Error::NoCertificatesPresented).then_some(Self::NoCertificate)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls adds errors; none of them is a reason of its own here"
    )]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // A signature that does not hold is that of another authority with the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::BadEncoding => Self::Garbled,
            CertificateError::Other(OtherError(error)) => {
                error.downcast_ref().copied().unwrap_or(Self::Unacceptable)
            }
            _ => Self::Unacceptable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_is_taken_literally() {
        let id = ClusterId::parse("spiffe://example.org/cluster/east").unwrap();
        assert_eq!((&*id.trust_domain, &*id.cluster), ("example.org", "east"));
        assert_eq!(id.to_string(), "spiffe://example.org/cluster/east");
        for uri in [
            "https://example.org/cluster/east",
            "SPIFFE://example.org/cluster/east",
            "spiffe:///cluster/east",
            "spiffe://example.org/cluster/",
            "spiffe://example.org/cluster/east/",
            "spiffe://example.org/cluster/east/x",
            "spiffe://example.org/clusters/east",
            "spiffe://example.org/ns/default/east",
            "spiffe://example.org",
            "",
        ] {
            assert_eq!(ClusterId::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn every_reason_has_a_label_and_survives_a_handshake() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::of_tls(&reason.into_tls()), Some(reason));
        }
        assert_eq!(Reason::of_tls(&Error::NoCertificatesPresented), Some(Reason::NoCertificate));
        assert_eq!(Reason::of_tls(&Error::DecryptError), None);
    }
}
