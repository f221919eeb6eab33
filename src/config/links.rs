//! What the configuration says of links, TLS connections from one cluster's gateway to another's.

use std::path::PathBuf;
use std::sync::Arc;

/// How gateways prove to each other who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The folder with `tls.crt`, `tls.key` and `ca.crt`, and `crl.pem` where there is one.
    pub directory: PathBuf,
    /// The trust domain of this cluster's own certificate.
    pub trust_domain: Arc<str>,
    /// Whether a key that others on this machine may read is taken all the same.
    pub allow_readable_key: bool,
    /// The clusters that a link may come from or lead to; never this one.
    pub peers: Vec<Peer>,
}

/// Another cluster, as links see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, which its certificate must have.
    pub cluster: Arc<str>,
    /// The trust domain of its certificate.
    pub trust_domain: Arc<str>,
    /// A file with the only certificates that may have issued its own; `None` for those of the folder.
    pub trust_bundle: Option<PathBuf>,
}
