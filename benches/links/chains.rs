//! Certificates as gateways have them: what `strait certs` makes, and what cert-manager and SPIRE do.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SanType,
    SignatureAlgorithm,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// A kind of chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) label: &'static str,
    algorithm: &'static SignatureAlgorithm,
    has_intermediate: bool,
}

impl Kind {
    /// <https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificatePrivateKey>: RSA of 2,048 bits unless something else
    /// is asked for. <https://spiffe.io/docs/latest/deploying/spire_server/>: `ca_key_type` is ec-p256 for authorities and workloads.
    pub(crate) const ALL: [Self; 4] = [
        Self {
            label: "P-256, as of strait certs",
            algorithm: &PKCS_ECDSA_P256_SHA256,
            has_intermediate: false,
        },
        Self {
            label: "P-256, intermediate",
            algorithm: &PKCS_ECDSA_P256_SHA256,
            has_intermediate: true,
        },
        Self {
            label: "P-384, intermediate",
            algorithm: &PKCS_ECDSA_P384_SHA384,
            has_intermediate: true,
        },
        Self {
            label: "RSA-2048, intermediate",
            algorithm: &PKCS_RSA_SHA256,
            has_intermediate: true,
        },
    ];
}

/// An authority, and what its gateways show after their own certificates.
pub(crate) struct Authority {
    kind: Kind,
    anchor: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    intermediate: Option<CertificateDer<'static>>,
}

impl Authority {
    pub(crate) fn new(kind: Kind) -> Result<Self, rcgen::Error> {
        let (params, key) = (authority("root"), KeyPair::generate_for(kind.algorithm)?);
        let anchor = params.self_signed(&key)?.der().clone();
        let root = Issuer::new(params, key);
        if !kind.has_intermediate {
            return Ok(Self { kind, anchor, issuer: root, intermediate: None });
        }
        let (params, key) = (authority("intermediate"), KeyPair::generate_for(kind.algorithm)?);
        let intermediate = Some(params.signed_by(&key, &root)?.der().clone());
        Ok(Self { kind, anchor, issuer: Issuer::new(params, key), intermediate })
    }

    pub(crate) fn anchors(&self) -> Arc<RootCertStore> {
        let mut anchors = RootCertStore::empty();
        anchors.add(self.anchor.clone()).expect("a certificate of our own");
        Arc::new(anchors)
    }

    /// For a gateway of this cluster.
    pub(crate) fn issue(&self, cluster: &str) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://example.org/cluster/{cluster}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(self.kind.algorithm)?;
        let own = params.signed_by(&key, &self.issuer)?.der().clone();
        let chain = [own].into_iter().chain(self.intermediate.clone()).collect();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let identity = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        Ok(Arc::new(identity.expect("a key of our own")))
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
