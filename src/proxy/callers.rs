//! Who a local client is, where its address alone does not tell: the user of its process, names asked for once more, and whether the
//! addresses that come can tell callers apart at all.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::model::client::Client;
use crate::model::name::Name;
use crate::reactor::Socket;
use crate::socket::owner;

/// So long a caller that nobody knows is kept waiting while its names are asked for once more. A sidecar's own patience for a
/// connect is longer, and a DNS server of the cluster answers in a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// Connections that are looked back on.
const MEMORY: usize = 200;
/// From fewer nothing is concluded.
const ENOUGH: usize = 20;
/// In ten connections so many come from strangers, when addresses are being rewritten.
const NEARLY_ALL: usize = 9;
/// Rewritten addresses are those of a few nodes or gateways.
const FEW: usize = 4;

/// Asks for names once more, and is done when what they stand for is in force.
pub type AskAgain = dyn Fn(Vec<Name>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What is known of callers, besides the table.
#[derive(Default)]
pub(super) struct Callers {
    pub(super) ask_again: OnceLock<Box<AskAgain>>,
    /// Sources of the last connections by egress, and whether each was an app's.
    seen: Mutex<VecDeque<(IpAddr, bool)>>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Callers").finish_non_exhaustive()
    }
}

impl Callers {
    /// Asks for names once more, if somebody can, and waits a little for the answer.
    pub(super) async fn ask_again(&self, names: Vec<Name>) {
        if let Some(ask_again) = self.ask_again.get() {
            // Late: it is not known, then.
            let _ = timeout(PATIENCE, ask_again(names)).await;
        }
    }

    /// A connection came by egress.
    pub(super) fn note(&self, client: &Client, is_known: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push_back((client.source.ip().to_canonical(), is_known));
        if seen.len() > MEMORY {
            seen.pop_front();
        }
    }

    /// The few addresses that nearly all connections by egress come from, none of them an app's: nodes or gateways which
    /// put their own address in place of the caller's (SNAT, masquerade). Empty while nothing speaks for it.
    pub(super) fn rewriting(&self) -> Vec<IpAddr> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut strangers: HashMap<IpAddr, usize> = HashMap::new();
        for (address, _) in seen.iter().filter(|(_, is_known)| !is_known) {
            *strangers.entry(*address).or_default() += 1;
        }
        let mut most: Vec<_> = strangers.into_iter().collect();
        most.sort_by_key(|(address, count)| (usize::MAX - count, *address));
        most.truncate(FEW);
        let of_few: usize = most.iter().map(|(_, count)| count).sum();
        if seen.len() < ENOUGH || of_few * 10 < seen.len() * NEARLY_ALL {
            return Vec::new();
        }
        // A single caller that should not be here is no more than that: those behind a rewriting node call again and again.
        most.into_iter().map(|(address, _)| address).collect()
    }
}

/// The client with the user that it is, where it comes from this machine.
pub(super) fn with_user(client: &Client, socket: Option<&Socket>) -> Client {
    let Some(socket) = socket else { return client.clone() };
    let on_this_machine = client.peer.ip().to_canonical().is_loopback();
    if !on_this_machine || client.peer != client.source || client.link.is_some() {
        return client.clone();
    }
    let user = socket.local_addr().and_then(|local| owner::user_of(client.peer, local));
    // Unknown: nobody's user.
    Client { user: user.ok().flatten(), ..client.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(callers: &Callers, address: &str, is_known: bool, times: usize) {
        let address: IpAddr = address.parse().unwrap();
        let client = Client::direct((address, 1).into());
        for _ in 0..times {
            callers.note(&client, is_known);
        }
    }

    #[test]
    fn a_few_strangers_that_nearly_everything_comes_from_rewrite_addresses() {
        let callers = Callers::default();
        noted(&callers, "10.0.0.1", false, 19);
        assert!(callers.rewriting().is_empty(), "too few");
        noted(&callers, "::ffff:10.0.0.2", false, 20);
        noted(&callers, "10.4.0.7", true, 4);
        let nodes: Vec<IpAddr> = ["10.0.0.2", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(callers.rewriting(), nodes);
        noted(&callers, "10.4.0.7", true, 1);
        assert!(callers.rewriting().is_empty(), "callers are told apart");
    }

    #[test]
    fn many_strangers_rewrite_nothing_and_the_past_is_forgotten() {
        let callers = Callers::default();
        for host in 0..100 {
            noted(&callers, &format!("10.0.1.{host}"), false, 1);
        }
        assert!(callers.rewriting().is_empty());
        noted(&callers, "10.0.0.1", false, MEMORY);
        assert_eq!(callers.rewriting().len(), 1);
        assert_eq!(callers.seen.lock().unwrap().len(), MEMORY);
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_asked_for_once_more_but_not_waited_for_long() {
        let callers = Callers::default();
        callers.ask_again(vec![]).await;
        let never: Box<AskAgain> = Box::new(|_| Box::pin(std::future::pending()));
        assert!(callers.ask_again.set(never).is_ok());
        let before = tokio::time::Instant::now();
        callers.ask_again(vec![]).await;
        assert_eq!(before.elapsed(), PATIENCE);
    }
}
