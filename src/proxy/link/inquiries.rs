//! Links on which other gateways ask what is exported to their cluster: so many of each cluster, handed to who answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::duplex;
use tokio::sync::mpsc;

use crate::cluster::Inquiry;
use crate::model::ending::Ending;

use super::super::admission::Limit;
use super::super::places::{Place, Places};
use super::super::refuse::Refused;
use super::Leg;

/// Most of one cluster at a time. Each of its gateways has one here, and one more for a moment when it begins anew.
const MOST: usize = 64;

/// Bytes on their way to who answers: a state of many apps goes in pieces.
const INSIDE: usize = 16 << 10;

/// Where such links go.
#[derive(Debug)]
pub(in crate::proxy) struct Inquiries {
    answering: mpsc::Sender<Inquiry>,
    /// Clusters are proven, so there are no more of them than were ever configured.
    open: Mutex<BTreeMap<Arc<str>, Places>>,
}

impl Inquiries {
    pub(in crate::proxy) fn new(answering: mpsc::Sender<Inquiry>) -> Self {
        Self { answering, open: Mutex::default() }
    }

    /// Hands over an inquiry; what its link is to be joined with, and its place among those of its cluster.
    pub(in crate::proxy) fn enter(&self, cluster: Arc<str>) -> Result<(Leg, Place), Refused> {
        let over = || Refused::overloaded(Limit::Exchange, Limit::Exchange.reason());
        let place = self.places(&cluster).take(MOST).ok_or_else(over)?;
        let (here, stream) = duplex(INSIDE);
        let handed = self.answering.try_send(Inquiry { cluster, stream });
        let busy = |_| Refused::new(Ending::Overloaded, "nobody answers what other gateways ask");
        handed.map(|()| (Leg::Inside(here), place)).map_err(busy)
    }

    fn places(&self, cluster: &Arc<str>) -> Places {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.entry(Arc::clone(cluster)).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_so_many_links_and_takes_none_of_anothers() {
        let (answering, mut asked) = mpsc::channel(2 * MOST);
        let inquiries = Inquiries::new(answering);
        let enter = |cluster: &str| inquiries.enter(cluster.into());
        let mut west: Vec<_> = (0..MOST).map(|_| enter("west").unwrap()).collect();
        let refused = enter("west").unwrap_err();
        assert_eq!((refused.ending, refused.limit), (Ending::Overloaded, Some(Limit::Exchange)));
        assert!(enter("east").is_ok());
        west.pop();
        assert!(enter("west").is_ok(), "one has ended");
        let handed = std::iter::from_fn(|| asked.try_recv().ok());
        let of_west = handed.filter(|inquiry| &*inquiry.cluster == "west").count();
        assert_eq!(of_west, MOST + 1, "who was refused is not answered");
    }
}
