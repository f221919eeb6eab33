//! Asking for names before their time: for a client that is nobody's yet, because its pod is younger than the last answer.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::model::name::Name;

/// A name is asked for out of turn no more often than this: strangers must not make this gateway flood a DNS server.
const INTERVAL: Duration = Duration::from_secs(1);
/// Questions on their way. Who finds the queue full is told at once that nothing is known.
const QUEUE: usize = 64;

/// The way to the source, for who wants to know now.
#[derive(Debug, Clone)]
pub struct Again(mpsc::Sender<Request>);

/// Names, and who waits for them.
#[derive(Debug)]
pub struct Request {
    names: Vec<Name>,
    reply: oneshot::Sender<()>,
}

impl Again {
    /// A way to a source that is handed the other end.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, asked) = mpsc::channel(QUEUE);
        (Self(requests), asked)
    }

    /// Waits until the names have been answered and the owner has been told; not at all for those that were asked for lately. The
    /// caller has less patience than a DNS server, and gives up by dropping this.
    pub async fn ask(&self, names: Vec<Name>) {
        let (reply, answered) = oneshot::channel();
        if self.0.try_send(Request { names, reply }).is_ok() {
            // An error: the source has ended.
            let _ = answered.await;
        }
    }
}

/// Requests that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(HashSet<Name>, oneshot::Sender<()>)>);

impl Waiting {
    /// Takes a request up; the names that are to be asked for now. `last` is when a name was last asked for out of turn; `None` for
    /// one that is not followed.
    pub(super) fn take(
        &mut self,
        request: Request,
        last: impl Fn(&Name) -> Option<Option<Instant>>,
    ) -> Vec<Name> {
        let (mut left, mut due) = (HashSet::new(), Vec::new());
        for name in request.names {
            let Some(last) = last(&name) else { continue };
            if last.is_none_or(|at| at.elapsed() >= INTERVAL) {
                due.push(name.clone());
                left.insert(name);
            } else if self.0.iter().any(|(asked, _)| asked.contains(&name)) {
                left.insert(name);
            }
        }
        self.0.push((left, request.reply));
        due
    }

    /// A name has been answered.
    pub(super) fn heard(&mut self, name: &Name) {
        for (left, _) in &mut self.0 {
            left.remove(name);
        }
    }

    /// What was answered has been said: those are told who wait for nothing else.
    pub(super) fn said(&mut self) {
        for (_, reply) in self.0.extract_if(.., |(left, _)| left.is_empty()) {
            // Mostly it has given up.
            let _ = reply.send(());
        }
        self.0.retain(|(_, reply)| !reply.is_closed());
    }
}
