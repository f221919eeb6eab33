//! Certificates as other gateways might have them, good and bad.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// What a chain ends in.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// What a certificate may say.
#[derive(Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) uris: &'a [&'a str],
    /// From and until when, in days from now.
    pub(crate) days: (i64, i64),
    pub(crate) serial: u64,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { uris: &[], days: (-1, 60), serial: 1 }
    }
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn pem(&self) -> String {
        self.root.pem()
    }

    pub(crate) fn issue(&self, wanted: &Wanted<'_>) -> Identity {
        let mut params = CertificateParams::default();
        let uris = wanted.uris.iter();
        params.subject_alt_names = uris.map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(wanted.days.0);
        params.not_after = now + Duration::days(wanted.days.1);
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Of a cluster in `example.org`, as it should be.
    pub(crate) fn gateway(&self, cluster: &str) -> Identity {
        let uri = format!("spiffe://example.org/cluster/{cluster}");
        self.issue(&Wanted { uris: &[&uri], ..Wanted::default() })
    }

    /// A list that revokes these, good for so many days from now.
    pub(crate) fn revoke(&self, serials: &[u64], days: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now - Duration::DAY,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(30),
            next_update: now + Duration::days(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A folder for `link.directory`, with this as the only authority.
    pub(crate) fn fill(&self, folder: &Path, identity: &Identity) {
        fs::create_dir_all(folder).unwrap();
        write(folder, "ca.crt", &self.pem());
        identity.write(folder);
    }
}

impl Identity {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// The key first: what is read in between does not belong together, and leaves what was there.
    pub(crate) fn write(&self, folder: &Path) {
        write(folder, "tls.key", &self.key.serialize_pem());
        write(folder, "tls.crt", &self.certificate.pem());
    }
}

/// By renaming, as whatever renews certificates does.
pub(crate) fn write(folder: &Path, file: &str, text: &str) {
    let beside = folder.join(format!(".{file}.new"));
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, Permissions::from_mode(0o600)).unwrap();
    fs::rename(beside, folder.join(file)).unwrap();
}
