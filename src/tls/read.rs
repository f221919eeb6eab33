//! One file: read, bounded, judged.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::FileError;

/// Largest file. A bundle of all public authorities has a quarter of a MiB, a revocation list of a hundred thousand entries 4.
const MOST_BYTES: u64 = 16 << 20;

/// The certificate chain and its key, and a warning where the key lies open but may.
pub(super) fn identity(
    chain: &Path,
    key: &Path,
    allow_readable: bool,
) -> Result<(CertifiedKey, Option<FileError>), FileError> {
    let certificates = certificates(chain)?;
    let warning = permission(key, allow_readable)?;
    let bytes = content(key)?;
    let found =
        rustls_pemfile::private_key(&mut &*bytes).map_err(|error| unreadable(key, &error))?;
    let Some(found) = found else {
        return Err(told(key, "it holds no private key", "write the key of tls.crt there, as PEM"));
    };
    let provider = aws_lc_rs::default_provider();
    let identity = CertifiedKey::from_der(certificates, found, &provider);
    let identity = identity.map_err(|error| {
        if error == Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            let message = format!("it is not the key of {}", chain.display());
            return told(key, &message, "write certificate and key of the same pair");
        }
        told(key, &error.to_string(), "ECDSA (P-256, P-384), Ed25519 and RSA keys can be used")
    })?;
    Ok((identity, warning))
}

/// A file of trust anchors: all of them good, at least one.
pub(super) fn anchors(path: &Path) -> Result<Arc<RootCertStore>, FileError> {
    let mut anchors = RootCertStore::empty();
    for certificate in certificates(path)? {
        anchors.add(certificate).map_err(|error| {
            let message = format!("a certificate in it is no trust anchor: {error}");
            told(path, &message, "it holds certificates of authorities only, as PEM")
        })?;
    }
    Ok(Arc::new(anchors))
}

/// The revocation lists; none where there is no such file.
pub(super) fn revoked(
    path: &Path,
) -> Result<Option<Arc<[CertificateRevocationListDer<'static>]>>, FileError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let lists: Result<Vec<_>, _> = rustls_pemfile::crls(&mut &*bytes).collect();
    let lists = lists.map_err(|error| unreadable(path, &error))?;
    let fix = "write revocation lists there as PEM (BEGIN X509 CRL), or remove the file before the gateway starts";
    if lists.is_empty() {
        return Err(told(path, "it holds no revocation list", fix));
    }
    for list in &lists {
        webpki_reads(list).map_err(|message| told(path, &message, fix))?;
    }
    Ok(Some(lists.into()))
}

/// What there is to say when the revocation lists are no more.
pub(super) fn gone(path: &Path) -> FileError {
    let fix = "put it back; a list that revokes nothing lifts what it revoked";
    told(path, "it is gone, but what it revoked stays revoked", fix)
}

/// The bytes of a file, at most [`MOST_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Anything else may never end: a device, a pipe.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    if file.take(MOST_BYTES + 1).read_to_end(&mut bytes)? as u64 > MOST_BYTES {
        let message = format!("it has more than {MOST_BYTES} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Whether the verifiers will take a list: they refuse a whole set because of one that they cannot read.
fn webpki_reads(list: &CertificateRevocationListDer<'_>) -> Result<(), String> {
    let parsed =
        x509_parser::parse_x509_crl(list).map_err(|error| format!("a list is garbled: {error}"))?;
    if parsed.0.is_empty() { Ok(()) } else { Err("a list is followed by other bytes".to_owned()) }
}

fn certificates(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, FileError> {
    let bytes = content(path)?;
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut &*bytes).collect();
    let found = found.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        let fix = "write certificates there as PEM (BEGIN CERTIFICATE)";
        return Err(told(path, "it holds no certificate", fix));
    }
    Ok(found)
}

fn content(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path).map_err(|error| unreadable(path, &error))
}

/// Refuses a key that others on this host can read, unless that is allowed or Kubernetes' doing; then it is a warning.
fn permission(key: &Path, allow_readable: bool) -> Result<Option<FileError>, FileError> {
    let metadata = std::fs::metadata(key).map_err(|error| unreadable(key, &error))?;
    let mode = metadata.mode() & 0o777;
    if !is_open(&metadata) {
        return Ok(None);
    }
    let message = format!("others on this host can read the private key (mode {mode:04o})");
    if allow_readable {
        return Ok(None);
    }
    if is_kubernetes(key) {
        let fix = "set defaultMode: 0400 on the volume, or allowReadableKey: true beside `directory` if that is meant";
        return Ok(Some(told(key, &message, fix)));
    }
    Err(told(
        key,
        &message,
        "chmod 0600 it, or set allowReadableKey: true beside `directory` if that is meant",
    ))
}

/// Whether anybody but the owner may read it. A key of root's may be read by its group, as `PostgreSQL` has it and Debian's
/// `ssl-cert` needs it: who is in that group is root's decision.
fn is_open(metadata: &Metadata) -> bool {
    let others = if metadata.uid() == 0 { 0o004 } else { 0o044 };
    metadata.mode() & others != 0
}

/// Whether a file is reached through the `..data` link that Kubernetes makes in a volume. Its mode is then the volume's.
fn is_kubernetes(path: &Path) -> bool {
    let data =
        |path: &Path| path.components().any(|part| part == Component::Normal("..data".as_ref()));
    data(path) || std::fs::read_link(path).is_ok_and(|target| data(&target))
}

fn unreadable(path: &Path, error: &io::Error) -> FileError {
    let fix = if error.kind() == ErrorKind::NotFound {
        "the folder holds tls.crt, tls.key and ca.crt, as a Secret of cert-manager has them"
    } else if error.kind() == ErrorKind::PermissionDenied {
        "let the user that the gateway runs as read it"
    } else {
        "write it as PEM, whole"
    };
    told(path, &format!("it cannot be read: {error}"), fix)
}

fn told(path: &Path, message: &str, fix: &str) -> FileError {
    FileError { path: path.to_owned(), message: message.to_owned(), fix: fix.to_owned() }
}
