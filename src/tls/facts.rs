//! What stands in a certificate or a revocation list, as far as it matters here.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// What a certificate says of itself. Nothing of it is proven before its chain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its URI names (RFC 5280 §4.2.1.6).
    pub uris: Vec<String>,
    /// From when it is valid.
    pub not_before: UnixTime,
    /// Until when, that second included.
    pub not_after: UnixTime,
}

impl Facts {
    /// Reads a certificate; `None` when it is garbled.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
        let uris = names.iter().filter_map(|name| {
            if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
        });
        let validity = certificate.validity();
        Some(Self {
            uris: uris.collect(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Whether it is valid at that time.
    pub fn holds(&self, now: UnixTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// When the next one of a revocation list is due.
pub(super) fn next_update(list: &CertificateRevocationListDer<'_>) -> Option<UnixTime> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    list.next_update().map(|due| time(due.timestamp()))
}

/// Times before 1970 are as good as 1970: long past.
fn time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
