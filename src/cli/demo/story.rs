//! What happens in the demo: who calls whom, what changes on the way, and how each call should end.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::DemoError;
use super::caller::{Caller, Outcome};
use super::certificates::{Authority, spiffe_id};
use super::cluster::{Cluster, Layout, name_of};
use super::folder::Folder;

const WEST: Layout = Layout {
    name: "west",
    address: Ipv4Addr::new(127, 1, 0, 1),
    network: "127.1.0.0/16",
    exports: &[("shop/orders", "{ networksOf: east }"), ("shop/stock", "{ networksOf: east }")],
};
const EAST: Layout = Layout {
    name: "east",
    address: Ipv4Addr::new(127, 2, 0, 1),
    network: "127.2.0.0/16",
    exports: &[(CHECKOUT, "{ networksOf: west }"), (LEDGER, LEDGER_CLOSED)],
};
static LAYOUTS: (Layout, Layout) = (WEST, EAST);

/// The app that is stopped and started again.
const CHECKOUT: &str = "shop/checkout";
/// The app whose permission is widened on the way.
const LEDGER: &str = "bank/ledger";
const LEDGER_CLOSED: &str = "{ network: 127.1.0.20/32 }";
const LEDGER_OPEN: &str = "{ networksOf: west }";

const FRONTEND: Caller =
    Caller { id: "shop/frontend", place: "in west", source: Ipv4Addr::new(127, 1, 0, 10) };
const ACCOUNTS: Caller =
    Caller { id: "bank/accounts", place: "in west", source: Ipv4Addr::new(127, 1, 0, 20) };
const COURIER: Caller =
    Caller { id: "shop/courier", place: "in east", source: Ipv4Addr::new(127, 2, 0, 10) };
/// Has a certificate under the shared root and comes from a network that no rule names.
const STRANGER: Caller =
    Caller { id: "shop/stranger", place: "from elsewhere", source: Ipv4Addr::new(127, 66, 0, 66) };

/// Who calls whom, in this order.
const PLAN: [Planned; 6] = [
    Planned { caller: FRONTEND, target: Target::East, app: CHECKOUT, rule: Rule::WhileItRuns },
    Planned { caller: COURIER, target: Target::West, app: "shop/orders", rule: Rule::Always },
    Planned { caller: FRONTEND, target: Target::East, app: LEDGER, rule: Rule::OnceAllowed },
    Planned { caller: ACCOUNTS, target: Target::East, app: LEDGER, rule: Rule::Always },
    Planned { caller: STRANGER, target: Target::East, app: CHECKOUT, rule: Rule::Never },
    Planned { caller: COURIER, target: Target::West, app: "shop/stock", rule: Rule::Always },
];

/// A call of the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// Who calls.
    pub(super) caller: Caller,
    /// Where.
    pub(super) target: Target,
    /// Whom, `namespace/app`.
    pub(super) app: &'static str,
    rule: Rule,
}

/// A call of the plan with what its caller needs for TLS.
pub(super) struct Call {
    planned: Planned,
    tls: Arc<ClientConfig>,
}

/// The cluster whose gateway is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    West,
    East,
}

/// When a call should arrive.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Always,
    WhileItRuns,
    OnceAllowed,
    Never,
}

/// What happens between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The checkout app stops.
    Stop,
    /// It starts again.
    Start,
    /// East's configuration lets all of west call the ledger.
    Allow,
}

/// A call that was made.
#[derive(Debug)]
pub(super) struct Told {
    /// Which of the plan's calls.
    pub(super) planned: Planned,
    /// Whether it should have arrived.
    pub(super) should_arrive: bool,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Whether that is what should have happened.
    pub(super) as_it_should: bool,
    /// From the dial to the whole answer.
    pub(super) took: Duration,
}

/// The two clusters and what is true of them now.
pub(super) struct Story {
    /// Where the configuration files are.
    pub(super) folder: Folder,
    /// The cluster in the west.
    pub(super) west: Cluster,
    /// The cluster in the east.
    pub(super) east: Cluster,
    /// Calls go round these.
    pub(super) calls: Arc<[Call]>,
    checkout_runs: bool,
    ledger_open: bool,
}

impl Target {
    /// The cluster's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::West => WEST.name,
            Self::East => EAST.name,
        }
    }
}

impl Event {
    const ALL: [Self; 3] = [Self::Stop, Self::Start, Self::Allow];

    /// What happens right before the call of that number, counted from 0, in a round of `total` calls.
    pub(super) fn due(number: u32, total: u32) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |event| event.before_call(total) == number)
    }

    /// Three tenths of a round, half of it, seven tenths: each state lasts long enough for all of the plan's calls.
    fn before_call(self, total: u32) -> u32 {
        let tenths = match self {
            Self::Stop => 3,
            Self::Start => 5,
            Self::Allow => 7,
        };
        // Dividing first would lose small rounds, multiplying first could overflow: take the round apart.
        total / 10 * tenths + total % 10 * tenths / 10
    }
}

impl Story {
    /// Starts both clusters.
    pub(super) async fn begin() -> Result<Self, DemoError> {
        let folder = Folder::new()?;
        let authority = Authority::new()?;
        let (west, east) = (&LAYOUTS.0, &LAYOUTS.1);
        let calls = PLAN.into_iter().map(|planned| {
            let identity = authority.issue(planned.caller.id)?;
            Ok(Call { planned, tls: authority.client(&identity, planned.app)? })
        });
        Ok(Self {
            calls: calls.collect::<Result<_, DemoError>>()?,
            west: Box::pin(Cluster::start(west, east, folder.path(), &authority)).await?,
            east: Box::pin(Cluster::start(east, west, folder.path(), &authority)).await?,
            folder,
            checkout_runs: true,
            ledger_open: false,
        })
    }

    /// Lets something happen and says what.
    pub(super) async fn happen(&mut self, event: Event) -> Result<String, DemoError> {
        match event {
            Event::Stop => {
                self.checkout_runs = false;
                if let Some(app) = self.east.app(CHECKOUT) {
                    app.stop().await;
                }
                Ok(format!("{CHECKOUT} in east stops: calls to it are refused from now on"))
            }
            Event::Start => {
                self.checkout_runs = true;
                if let Some(app) = self.east.app(CHECKOUT) {
                    app.resume().await?;
                }
                Ok(format!("{CHECKOUT} in east runs again: calls arrive again"))
            }
            Event::Allow => {
                let took = self.east.allow(LEDGER, LEDGER_OPEN).await?;
                self.ledger_open = true;
                Ok(format!(
                    "{file} changed: all of west may call {LEDGER}; in force after {took} ms",
                    file = self.east.file.display(),
                    took = took.as_millis()
                ))
            }
        }
    }

    /// Makes everything as it was at the start.
    pub(super) async fn rewind(&mut self) -> Result<(), DemoError> {
        self.east.allow(LEDGER, LEDGER_CLOSED).await?;
        self.ledger_open = false;
        Ok(())
    }

    /// Makes a call; numbers count from 0.
    pub(super) async fn make(&self, Call { planned, tls }: &Call, number: u32) -> Told {
        let gateway = match planned.target {
            Target::West => self.west.ingress,
            Target::East => self.east.ingress,
        };
        let question = format!("call {}", number + 1);
        let started = Instant::now();
        let name = name_of(planned.app);
        let outcome = planned.caller.call(gateway, &name, Arc::clone(tls), &question).await;
        let should_arrive = self.should_arrive(planned.rule);
        let as_it_should = match &outcome {
            Outcome::Arrived(answer) => should_arrive && *answer == planned.answer(&question),
            Outcome::Refused(_) => !should_arrive,
            Outcome::Failed(_) => false,
        };
        let took = started.elapsed();
        Told { planned: *planned, should_arrive, outcome, as_it_should, took }
    }

    /// Stops both clusters.
    pub(super) async fn end(self) {
        self.west.stop().await;
        self.east.stop().await;
    }

    fn should_arrive(&self, rule: Rule) -> bool {
        match rule {
            Rule::Always => true,
            Rule::WhileItRuns => self.checkout_runs,
            Rule::OnceAllowed => self.ledger_open,
            Rule::Never => false,
        }
    }
}

impl Planned {
    /// What the right app says when the call has come through.
    fn answer(&self, question: &str) -> String {
        let (app, cluster, caller) = (self.app, self.target.name(), spiffe_id(self.caller.id));
        format!("{app} in {cluster} got: {question} from {caller}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_happens_once_and_in_order_in_a_round_of_any_length() {
        for total in (1..100).chain([u32::MAX]) {
            let at = Event::ALL.map(|event| event.before_call(total));
            assert!(at.is_sorted() && at[2] < total, "{total}: {at:?}");
        }
        assert_eq!(Event::ALL.map(|event| event.before_call(200)), [60, 100, 140]);
    }

    #[test]
    fn a_round_of_two_hundred_shows_every_state_of_every_call() {
        let (mut up, mut open, mut seen) = (true, false, std::collections::HashSet::new());
        for number in 0..200 {
            for event in Event::due(number, 200) {
                match event {
                    Event::Stop => up = false,
                    Event::Start => up = true,
                    Event::Allow => open = true,
                }
            }
            seen.insert((number as usize % PLAN.len(), up, open));
        }
        assert_eq!(seen.len(), 3 * PLAN.len());
    }
}
