//! Certificates as Dapr's sentry issues them: one root for all clusters, the app in a SPIFFE URI, host names not compared.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::DemoError;

/// The root that all clusters share: all that Dapr clusters need to have in common.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// An app's certificate and key.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What all names in certificates begin with, those of sidecars and those of gateways.
pub(super) const TRUST_DOMAIN: &str = "demo.strait";

/// The SPIFFE id of an app, written `namespace/app`.
pub(super) fn spiffe_id(app: &str) -> String {
    let (namespace, id) = app.split_once('/').unwrap_or(("default", app));
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/{id}")
}

/// The SPIFFE id in a certificate that a trusted root signed.
///
/// Looks for the encoded URI name (RFC 5280 §4.2.1.6: context tag 6, a length, the text) instead of parsing the whole
/// certificate: the demo's root signs nothing but what the demo asks for, so no other field can pose as that name.
pub(super) fn presented_id(certificate: &CertificateDer<'_>) -> Option<String> {
    const URI_NAME: u8 = 0x86;
    let bytes = certificate.as_ref();
    let names = bytes.iter().enumerate().filter(|&(_, &byte)| byte == URI_NAME);
    names
        .filter_map(|(at, _)| {
            let length = usize::from(*bytes.get(at + 1)?);
            std::str::from_utf8(bytes.get(at + 2..at + 2 + length)?).ok()
        })
        .find(|name| name.starts_with("spiffe://"))
        .map(str::to_owned)
}

impl Authority {
    /// Makes the root.
    pub(super) fn new() -> Result<Self, DemoError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).map_err(tls_error)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(Self { issuer: Issuer::new(params, key), roots: Arc::new(roots), provider })
    }

    /// Issues an app's certificate, good for both sides of a call.
    pub(super) fn issue(&self, app: &str) -> Result<Identity, DemoError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(spiffe_id(app).try_into()?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(Identity { certificate, key })
    }

    /// TLS of an app that is called: any caller under the root, as a sidecar has it.
    pub(super) fn server(&self, identity: &Identity) -> Result<Arc<ServerConfig>, DemoError> {
        let clients = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
        );
        let clients = clients.build().map_err(tls_error)?;
        ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let chain = vec![identity.certificate.clone()];
                builder
                    .with_client_cert_verifier(clients)
                    .with_single_cert(chain, identity.key.clone_key())
            })
            .map(Arc::new)
            .map_err(tls_error)
    }

    /// TLS of a caller that wants to reach `app` and nobody else.
    pub(super) fn client(
        &self,
        identity: &Identity,
        app: &str,
    ) -> Result<Arc<ClientConfig>, DemoError> {
        let verifier = OnlyApp {
            id: spiffe_id(app),
            roots: Arc::clone(&self.roots),
            provider: Arc::clone(&self.provider),
        };
        ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let chain = vec![identity.certificate.clone()];
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_client_auth_cert(chain, identity.key.clone_key())
            })
            .map(Arc::new)
            .map_err(tls_error)
    }
}

fn tls_error(error: impl std::fmt::Display) -> DemoError {
    DemoError::Tls(error.to_string())
}

/// Accepts one app's certificate from a trusted root, under whatever host name: the rule by which sidecars know each other.
#[derive(Debug)]
struct OnlyApp {
    id: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OnlyApp {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if presented_id(certificate).as_deref() == Some(self.id.as_str()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_whose_it_is() {
        let authority = Authority::new().unwrap();
        let identity = authority.issue("shop/checkout").unwrap();
        assert_eq!(
            presented_id(&identity.certificate).as_deref(),
            Some("spiffe://demo.strait/ns/shop/checkout")
        );
    }

    #[test]
    fn only_the_wanted_app_under_the_root_is_accepted() {
        let (ours, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
        let verifier = OnlyApp {
            id: spiffe_id("shop/checkout"),
            roots: Arc::clone(&ours.roots),
            provider: Arc::clone(&ours.provider),
        };
        let accepts = |authority: &Authority, app: &str| {
            let identity = authority.issue(app).unwrap();
            let host = ServerName::try_from("any.example").unwrap();
            let now = UnixTime::now();
            verifier.verify_server_cert(&identity.certificate, &[], &host, &[], now).is_ok()
        };
        assert!(accepts(&ours, "shop/checkout"));
        assert!(!accepts(&ours, "shop/orders"));
        assert!(!accepts(&foreign, "shop/checkout"));
    }
}
