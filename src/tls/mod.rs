//! Certificates, keys, trust anchors and revocation lists, as they lie on disk.
//!
//! Each part is good or is not, by itself: a bad one is told and the last good one stays. What is checked here is what a file
//! alone can show. Whether a certificate is to be believed is `cluster`'s question.

mod facts;
mod follow;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::CertifiedKey;

pub use facts::Facts;
pub use follow::{Expiry, Follower, expiries};

/// The certificate chain, the gateway's own certificate first (PEM).
const CHAIN: &str = "tls.crt";
/// Its private key (PEM: PKCS #8, PKCS #1 or SEC 1).
const KEY: &str = "tls.key";
/// The trust anchors (PEM).
const ANCHORS: &str = "ca.crt";
/// Revocation lists (PEM); the only file that need not be there.
const REVOKED: &str = "crl.pem";

/// Which files there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Holds `tls.crt`, `tls.key`, `ca.crt` and perhaps `crl.pem`, as a Secret of cert-manager has them.
    pub directory: PathBuf,
    /// Whether `ca.crt` is asked for.
    pub has_anchors: bool,
    /// Whether a private key that others on this host can read is taken all the same.
    pub allow_readable_key: bool,
    /// Files with trust anchors besides `ca.crt`.
    pub bundles: BTreeSet<PathBuf>,
}

/// What the files hold.
#[derive(Debug, Clone)]
pub struct Material {
    /// The gateway's own certificate and key; they belong together.
    pub identity: Arc<CertifiedKey>,
    /// The trust anchors of `ca.crt`; none where it is not asked for.
    pub anchors: Arc<RootCertStore>,
    /// The trust anchors of each other file.
    pub bundles: BTreeMap<PathBuf, Arc<RootCertStore>>,
    /// The revocation lists.
    pub revoked: Arc<[CertificateRevocationListDer<'static>]>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
}

/// Says what is wrong with a certificate as this gateway's own: its chain, the gateway's first. Message and fix.
pub type Judge = dyn Fn(&[CertificateDer<'static>]) -> Result<(), (String, String)> + Send + Sync;

/// What came of reading all files once more.
#[derive(Debug)]
pub struct Renewed {
    /// All that is good, and the last good of what is not.
    pub material: Material,
    /// What is not, and what the operator should know besides.
    pub problems: Vec<FileError>,
}

impl Files {
    /// Reads all files for the first time: all of them must be good. What comes besides is for the operator to know.
    pub fn load(&self, judge: &Judge) -> Result<Renewed, Vec<FileError>> {
        let mut problems = Vec::new();
        let identity = self.identity(judge, &mut problems).map_err(|error| problems.push(error));
        let told = problems.len() - usize::from(identity.is_err());
        let anchors = self.anchors().map_err(|error| problems.push(error));
        let mut bundles = BTreeMap::new();
        for path in &self.bundles {
            match read::anchors(path) {
                Ok(bundle) => drop(bundles.insert(path.clone(), bundle)),
                Err(error) => problems.push(error),
            }
        }
        let revoked = read::revoked(&self.revoked()).map_err(|error| problems.push(error));
        match (identity, anchors, revoked) {
            (Ok(identity), Ok(anchors), Ok(revoked)) if problems.len() == told => {
                let revoked = revoked.unwrap_or_else(|| Arc::new([]));
                Ok(Renewed { material: Material { identity, anchors, bundles, revoked }, problems })
            }
            _ => Err(problems),
        }
    }

    /// Reads all files again. What is not good leaves what `last` has.
    pub fn renew(&self, last: &Material, judge: &Judge) -> Renewed {
        let mut problems = Vec::new();
        let identity = self.identity(judge, &mut problems);
        let identity = or_last(identity, &last.identity, &mut problems);
        let anchors = or_last(self.anchors(), &last.anchors, &mut problems);
        let bundles = last
            .bundles
            .iter()
            .map(|(path, last)| (path.clone(), or_last(read::anchors(path), last, &mut problems)));
        let bundles = bundles.collect();
        // A list that disappears lifts nothing: that would let a revoked gateway in by deleting a file.
        let revoked = read::revoked(&self.revoked()).and_then(|revoked| match revoked {
            None if !last.revoked.is_empty() => Err(read::gone(&self.revoked())),
            None => Ok(Arc::clone(&last.revoked)),
            Some(revoked) => Ok(revoked),
        });
        let revoked = or_last(revoked, &last.revoked, &mut problems);
        Renewed { material: Material { identity, anchors, bundles, revoked }, problems }
    }

    /// Adds a warning where the key lies open and may.
    fn identity(
        &self,
        judge: &Judge,
        warnings: &mut Vec<FileError>,
    ) -> Result<Arc<CertifiedKey>, FileError> {
        let (chain, key) = (self.directory.join(CHAIN), self.directory.join(KEY));
        let (identity, warning) = read::identity(&chain, &key, self.allow_readable_key)?;
        judge(&identity.cert).map_err(|(message, fix)| FileError { path: chain, message, fix })?;
        warnings.extend(warning);
        Ok(Arc::new(identity))
    }

    fn anchors(&self) -> Result<Arc<RootCertStore>, FileError> {
        if self.has_anchors {
            read::anchors(&self.directory.join(ANCHORS))
        } else {
            Ok(Arc::new(RootCertStore::empty()))
        }
    }

    fn revoked(&self) -> PathBuf {
        self.directory.join(REVOKED)
    }

    /// Every file that there may be.
    fn all(&self) -> impl Iterator<Item = PathBuf> {
        let own = [CHAIN, KEY, ANCHORS, REVOKED].map(|name| self.directory.join(name));
        own.into_iter().chain(self.bundles.iter().cloned())
    }
}

impl Material {
    /// Whether it says the same as another: a file that is written again with what it had changes nothing. A certificate has one key.
    pub fn is_same(&self, other: &Self) -> bool {
        let anchors = |of: &Self| {
            let all = [&of.anchors].into_iter().chain(of.bundles.values());
            all.map(|anchors| anchors.roots.clone()).collect::<Vec<_>>()
        };
        self.identity.cert == other.identity.cert
            && self.revoked == other.revoked
            && anchors(self) == anchors(other)
    }

    /// The trust anchors of a file, of `ca.crt` without one.
    pub fn bundle(&self, path: Option<&Path>) -> Option<&Arc<RootCertStore>> {
        match path {
            None => Some(&self.anchors),
            Some(path) => self.bundles.get(path),
        }
    }
}

/// The trust anchors of a file of certificates (PEM): all of them good, at least one.
pub fn anchors(path: &Path) -> Result<Arc<RootCertStore>, FileError> {
    read::anchors(path)
}

fn or_last<T: Clone>(read: Result<T, FileError>, last: &T, problems: &mut Vec<FileError>) -> T {
    read.unwrap_or_else(|error| {
        problems.push(error);
        last.clone()
    })
}

#[cfg(test)]
mod tests;
