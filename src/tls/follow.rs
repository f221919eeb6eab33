//! Files that change: read again when they do, and looked at for what will soon expire.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::task::spawn_blocking;

use crate::watch::Watch;

use super::facts::next_update;
use super::{CHAIN, Facts, Files, Judge, Material, REVOKED, Renewed, read};

/// What expires before that is told of: two weeks are enough for whoever renews by hand.
const NOTICE: Duration = Duration::from_hours(14 * 24);

/// Follows the files of a link.
pub struct Follower {
    looking: Looking,
    watch: Watch,
}

/// What a look needs, and moves to the thread that may block.
#[derive(Clone)]
struct Looking {
    files: Files,
    judge: Arc<Judge>,
    last: Material,
    fingerprint: u64,
}

impl Follower {
    /// From what was just read on; a change since then is seen by the first look, which comes at once.
    pub fn new(files: Files, judge: Arc<Judge>, first: Material, poll: Duration) -> Self {
        let watch = Watch::new(poll);
        watch.look_again();
        // No content has this fingerprint but by chance, and then the next change is seen.
        let looking = Looking { files, judge, last: first, fingerprint: 0 };
        Self { looking, watch }
    }

    /// Waits for a change and gives what is good afterwards. To be awaited to its end: a sign of a change is not seen twice.
    pub async fn changed(&mut self) -> Renewed {
        loop {
            self.watch.follow(self.looking.directories());
            self.watch.sign().await;
            let looking = self.looking.clone();
            // A panic in there has been reported by the panic hook; the next look may have more luck.
            if let Ok(Some((renewed, fingerprint))) = spawn_blocking(move || looking.look()).await {
                self.looking.last = renewed.material.clone();
                self.looking.fingerprint = fingerprint;
                return renewed;
            }
        }
    }
}

impl Looking {
    /// Before reading, so that a change in between is one to the next look.
    fn look(&self) -> Option<(Renewed, u64)> {
        let fingerprint = self.files.fingerprint();
        (fingerprint != self.fingerprint)
            .then(|| (self.files.renew(&self.last, &*self.judge), fingerprint))
    }

    fn directories(&self) -> Vec<PathBuf> {
        let folders = self.files.all().filter_map(|file| file.parent().map(PathBuf::from));
        let mut folders: Vec<_> = folders.collect();
        folders.dedup();
        folders
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Follower").field("files", &self.looking.files).finish_non_exhaustive()
    }
}

impl Files {
    /// All contents and modes in one number: equal numbers mean that nothing has changed.
    fn fingerprint(&self) -> u64 {
        let mut all = DefaultHasher::new();
        for path in self.all() {
            path.hash(&mut all);
            match read::read(&path) {
                Ok(bytes) => bytes.hash(&mut all),
                Err(error) => error.to_string().hash(&mut all),
            }
            let mode = std::fs::metadata(&path).map(|metadata| metadata.permissions());
            format!("{:?}", mode.ok()).hash(&mut all);
        }
        all.finish()
    }
}

/// When something of the gateway's own runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `certificate` or `crl`: the metric label.
    pub role: &'static str,
    /// The file that it is in.
    pub file: PathBuf,
    /// When.
    pub at: UnixTime,
}

impl Expiry {
    /// Whether it is time to tell the operator.
    pub fn is_near(&self, now: UnixTime) -> bool {
        self.at.as_secs() < now.as_secs().saturating_add(NOTICE.as_secs())
    }

    /// Whether it has happened.
    pub fn is_past(&self, now: UnixTime) -> bool {
        self.at < now
    }
}

/// When the gateway's own certificate chain expires, and its revocation lists: of each kind the first. Trust anchors are not
/// among them: the verifiers do not ask for their dates (RFC 5280 §6.1.1 d).
pub fn expiries(files: &Files, material: &Material) -> Vec<Expiry> {
    let chain = material.identity.cert.iter();
    let chain =
        chain.filter_map(|certificate| Facts::read(certificate)).map(|facts| facts.not_after);
    let lists = material.revoked.iter().filter_map(next_update);
    let first = [("certificate", CHAIN, chain.min()), ("crl", REVOKED, lists.min())];
    let told = first.into_iter().filter_map(|(role, file, at)| Some((role, file, at?)));
    told.map(|(role, file, at)| Expiry { role, file: files.directory.join(file), at }).collect()
}
