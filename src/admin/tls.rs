//! TLS of the admin listener, and who clients are by their certificates.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{NoServerSessionStorage, ServerConnection, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// What a listener speaks TLS with.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    takes_certificates: bool,
}

/// What cannot be made TLS of.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl Tls {
    /// With a certificate of its own; clients may show one that these authorities have issued. Those whose issuer has no
    /// revocation list are not revoked.
    pub fn new(
        identity: &Arc<CertifiedKey>,
        clients: Option<&Arc<RootCertStore>>,
        revoked: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, Unusable> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Unusable(error.to_string()))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
                        .with_crls(revoked.iter().cloned())
                        .allow_unknown_revocation_status()
                        // Who shows none may have a token.
                        .allow_unauthenticated();
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|error| Unusable(error.to_string()))?,
                )
            }
        };
        let key = SingleCertAndKey::from(Arc::clone(identity));
        let mut config = builder.with_cert_resolver(Arc::new(key));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is resumed would be believed what may have been revoked since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), takes_certificates: clients.is_some() })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    pub(super) fn takes_certificates(&self) -> bool {
        self.takes_certificates
    }
}

/// What the client of a connection is called, if it has shown a certificate.
pub(super) fn client(connection: &ServerConnection) -> Option<Arc<str>> {
    let certificate = connection.peer_certificates()?.first()?;
    Some(name(certificate).into())
}

/// The first name in a certificate that people would know it by. One without any is called so: what counts is who has issued it.
fn name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return "(unnamed)".to_owned();
    };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names);
    let known = names.filter_map(|name| {
        use GeneralName::{DNSName, RFC822Name, URI};
        if let URI(name) | RFC822Name(name) | DNSName(name) = name { Some(*name) } else { None }
    });
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let first = known.chain(common).next().unwrap_or("(unnamed)");
    first.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn named(common: &str, alternatives: Vec<SanType>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        if !common.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = alternatives;
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        name(made.der())
    }

    #[test]
    fn a_client_is_called_by_the_first_name_that_people_know() {
        let mail = SanType::Rfc822Name("ops@example.org".try_into().unwrap());
        let ip = SanType::IpAddress("10.0.0.1".parse().unwrap());
        assert_eq!(named("deploy", vec![ip, mail]), "ops@example.org");
        assert_eq!(named("dep\nloy", vec![]), "dep\\nloy");
        assert_eq!(named("", vec![]), "(unnamed)");
        assert_eq!(name(&CertificateDer::from(vec![1, 2, 3])), "(unnamed)");
    }
}
