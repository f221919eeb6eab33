//! The source `exchange/<cluster>`: asks every gateway of another cluster, over a link, what that cluster exports to this one.
//!
//! Each gateway tells its whole state and then, at least every 250 ms, that it still holds. A gateway that misses three of these
//! words, or that no link leads to within 500 ms, is marked at once. While none of a cluster's gateways is heard, what they said last
//! stays, and its apps count as unhealthy.

mod ask;
mod translate;
mod watcher;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::model::offer::{Callee, Exported};
use crate::routing::table::Peer;
use crate::telemetry::metrics::Metrics;

use self::ask::Asked;
use self::watcher::Watcher;
use super::memory::recall_apps;
use super::{Said, Update};

/// Words of gateways on their way. One that finds the queue full waits: it says whole states.
const QUEUE: usize = 16;

/// Opens a link to a gateway of a cluster, for the exchange. Time is its caller's to limit.
pub type Dial = dyn Fn(Arc<str>, SocketAddr) -> Dialling + Send + Sync;
/// A link that is being opened.
pub type Dialling = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Undialled>> + Send>>;

/// How gateways are asked, and where it is counted what they must not say.
#[derive(Clone)]
pub struct Ways {
    /// Opens links.
    pub dial: Arc<Dial>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// What a link is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undialled {
    /// Whether something has answered there: then calls may get through all the same.
    pub answered: bool,
    /// Why, for the operator.
    pub why: String,
}

/// What a gateway has told, so far as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    apps: BTreeMap<Callee, Exported>,
    /// How many others it has named.
    ignored: usize,
}

/// What a source of this kind is called.
pub fn source(cluster: &str) -> Arc<str> {
    format!("exchange/{cluster}").into()
}

/// Asks all clusters of the table in force until `stop`. `folder` is where what they said before the restart may be kept.
pub async fn watch(
    mut peers: watch::Receiver<Arc<[Peer]>>,
    ways: Ways,
    folder: Option<PathBuf>,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) {
    let mut running: BTreeMap<Arc<str>, Running> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&peers.borrow_and_update());
        let gone = running
            .extract_if(.., |cluster, _| !wanted.iter().any(|peer| peer.cluster == *cluster));
        for (cluster, ended) in gone.collect::<Vec<_>>() {
            // First it ends, so that it says nothing after that.
            drop(ended);
            let _ = updates.send(Update { source: source(&cluster), said: Said::Gone }).await;
        }
        for peer in &*wanted {
            if let Some(running) = running.get(&peer.cluster) {
                running.peer.send_replace(peer.clone());
            } else {
                let (ways, folder) = (ways.clone(), folder.clone());
                let started = Running::start(peer.clone(), ways, folder, updates.clone());
                running.insert(Arc::clone(&peer.cluster), started);
            }
        }
        match stop.run_until_cancelled(peers.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// What follows one cluster, until this is dropped.
struct Running {
    peer: watch::Sender<Peer>,
    _task: AbortOnDropHandle<()>,
}

impl Running {
    fn start(
        peer: Peer,
        ways: Ways,
        folder: Option<PathBuf>,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        let (peer, followed) = watch::channel(peer);
        let task = tokio::spawn(follow(followed, ways, folder, updates));
        Self { peer, _task: AbortOnDropHandle::new(task) }
    }
}

/// Follows one cluster.
async fn follow(
    mut peer: watch::Receiver<Peer>,
    ways: Ways,
    folder: Option<PathBuf>,
    updates: mpsc::Sender<Update>,
) {
    let now = peer.borrow_and_update().clone();
    let source = source(&now.cluster);
    let mut watcher = Watcher::new(&now.cluster);
    if let Some(folder) = folder
        && let Some(remembered) = recall_apps(&folder, &source).await
    {
        let said = watcher.recall(remembered, &now.wanted);
        // Fails only where nobody listens any more.
        let _ = updates.send(Update { source: Arc::clone(&source), said }).await;
    }
    let (words, mut said) = mpsc::channel(QUEUE);
    let mut asking = Asking { ways, words, gateways: BTreeMap::new() };
    asking.follow(&now, &mut watcher);
    loop {
        let due = watcher.next_due();
        tokio::select! {
            Ok(()) = peer.changed() => {
                let now = peer.borrow_and_update().clone();
                asking.follow(&now, &mut watcher);
            }
            Some(Asked { gateway, word }) = said.recv() => watcher.hear(gateway, word),
            () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {}
            // Reserved before it is made: while the owner is busy building, one snapshot stands for many changes.
            Ok(permit) = updates.reserve(), if watcher.has_news() => {
                if let Some(said) = watcher.news() {
                    permit.send(Update { source: Arc::clone(&source), said });
                }
            }
            else => return,
        }
    }
}

/// The gateways that are asked, each by a task of its own.
struct Asking {
    ways: Ways,
    words: mpsc::Sender<Asked>,
    gateways: BTreeMap<SocketAddr, (Peer, AbortOnDropHandle<()>)>,
}

impl Asking {
    /// Asks those that are new, or new for other apps; lets those go that are not the cluster's any more.
    fn follow(&mut self, peer: &Peer, watcher: &mut Watcher) {
        self.gateways.retain(|address, (asked, _)| {
            let stays = peer.gateways.iter().any(|gateway| gateway.address == *address);
            stays && asked.wanted == peer.wanted
        });
        watcher.follow(&peer.gateways);
        for gateway in &peer.gateways {
            self.gateways.entry(gateway.address).or_insert_with(|| {
                let (ways, words) = (self.ways.clone(), self.words.clone());
                let asking = ask::ask(peer.clone(), gateway.address, ways, words);
                (peer.clone(), AbortOnDropHandle::new(tokio::spawn(asking)))
            });
        }
    }
}

#[cfg(test)]
mod tests;
