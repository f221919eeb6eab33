//! The egress addresses that go with a table: planned before it is built, so that none of them is taken for an endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::egress::ledger::{Ledger, Settled};
use crate::egress::plan::Wanted;
use crate::model::egress::{Holder, Space};
use crate::model::snapshot::{EgressListeners, RouteSpec, Routes};
use crate::routing::build::OwnListeners;
use crate::routing::table::Table;

/// The ledger, and what it said last.
#[derive(Debug, Default)]
pub(super) struct Egress {
    ledger: Arc<Mutex<Ledger>>,
    given: Arc<Given>,
    wake: Option<Instant>,
}

/// Addresses in use, and what is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Where each is listened at, what callers dial, and whose it is.
    addresses: Vec<(SocketAddr, SocketAddr, Holder)>,
    problems: Vec<String>,
}

impl Egress {
    /// Settles who has what with the routes of a configuration. May wait for a disk.
    pub(super) fn settling(&self, routes: Arc<Routes>) -> impl FnOnce() -> Settling + use<> {
        let ledger = Arc::clone(&self.ledger);
        move || {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            settle(&mut ledger, &routes, SystemTime::now())
        }
    }

    /// What was settled is in force: tells what is new about it.
    pub(super) fn in_force(&mut self, settling: Settling) {
        let Settling { given, next } = settling;
        let wait = next.map(|next| next.duration_since(SystemTime::now()).unwrap_or_default());
        self.wake = wait.map(|wait| Instant::now() + wait);
        for problem in given.problems.iter().filter(|it| !self.given.problems.contains(it)) {
            warn!("egress: {problem}");
        }
        if given.problems.is_empty() && !self.given.problems.is_empty() {
            info!("egress: every imported app has its addresses");
        }
        self.given = given;
    }

    /// Whether a settling comes to the same as what is in force; then it is noted.
    pub(super) fn is_known(&mut self, settling: &Settling) -> bool {
        let same = settling.given == self.given;
        if same {
            self.in_force(settling.clone());
        }
        same
    }

    /// When to settle anew though nothing else has changed.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }
}

/// What was settled.
#[derive(Debug, Clone)]
pub(super) struct Settling {
    pub(super) given: Arc<Given>,
    next: Option<SystemTime>,
}

impl Settling {
    /// The gateway's own listeners, these addresses included.
    pub(super) fn own(&self, others: &OwnListeners) -> OwnListeners {
        let egress = self.given.addresses.iter().map(|(bind, ..)| *bind);
        let bound = others.bound.iter().copied().chain(egress).collect();
        OwnListeners { bound, ..*others }
    }
}

impl Given {
    /// The table with these addresses.
    pub(super) fn join(&self, table: Table) -> Table {
        table.with_egress(self.addresses.iter().cloned(), self.problems.clone())
    }
}

/// A table with the egress addresses that its gateway would have by the lock as it is. Nothing is given, and nothing written.
pub fn looked_up(routes: &Routes, table: Table) -> Table {
    let now = SystemTime::now();
    let look = |egress: &EgressListeners, wanted: &[Wanted]| {
        Ledger::look(&egress.lock, wanted, &egress.space, now)
    };
    settled(routes, look).given.join(table)
}

fn settle(ledger: &mut Ledger, routes: &Routes, now: SystemTime) -> Settling {
    settled(routes, |egress, wanted| ledger.settle(&egress.lock, wanted, &egress.space, now))
}

fn settled(
    routes: &Routes,
    settle: impl FnOnce(&EgressListeners, &[Wanted]) -> Settled,
) -> Settling {
    let Some(egress) = &routes.egress else {
        return Settling { given: Arc::default(), next: None };
    };
    let wanted = |route: &RouteSpec| {
        let spec = route.import.as_ref()?.egress;
        Some(Wanted { holder: Arc::clone(&route.label), spec })
    };
    let wanted: Vec<_> = routes.routes.iter().filter_map(wanted).collect();
    let Settled { allocations, problems, trouble, next } = settle(egress, &wanted);
    let in_use = allocations.0.into_iter().filter(|(_, one)| one.resting.is_none());
    let ports: HashMap<_, _> = wanted.iter().map(|one| (&one.holder, one.spec.port)).collect();
    let addresses = in_use.filter_map(|(place, one)| {
        let own = ports.get(&one.holder).copied().flatten();
        let [bind, announce] =
            [Space::bind, Space::announce].map(|to| to(&egress.space, place, own));
        Some((bind?, announce?, one.holder))
    });
    let trouble = trouble.iter().map(ToString::to_string);
    let problems = trouble.chain(problems.iter().map(ToString::to_string)).collect();
    Settling { given: Arc::new(Given { addresses: addresses.collect(), problems }), next }
}
