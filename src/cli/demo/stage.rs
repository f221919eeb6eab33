//! What chapters play on: the clusters, the gateways' log, and the one way to make a call that counts.

use std::time::Duration;

use super::DemoError;
use super::caller::{Call, Caller, Conversation, Expected, Line, Outcome, RETRIES};
use super::cluster::until;
use super::folder::Folder;
use super::journal::{Journal, Record};
use super::tally::{Tallies, Verdict};
use super::world::World;

/// The clusters with all that is known of them.
pub(super) struct Stage {
    /// What runs.
    pub(super) world: World,
    /// What the gateways say.
    pub(super) journal: Journal,
    /// Calls so far.
    pub(super) tallies: Tallies,
}

/// A call that was made, to be told.
pub(super) struct Told {
    /// The caller and its cluster.
    pub(super) caller: String,
    /// `namespace/app`.
    pub(super) app: &'static str,
    /// What was dialled: a name or an address.
    pub(super) dialled: String,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Whether that is how it should.
    pub(super) verdict: Verdict,
    /// From the dial to the answer.
    pub(super) took: Duration,
    /// How often it was repeated.
    pub(super) repeated: u32,
}

impl Stage {
    /// Starts the clusters; what they log is kept in their folder.
    pub(super) async fn set(journal: Journal) -> Result<Self, DemoError> {
        let folder = Folder::new()?;
        let log = folder.path().join("log");
        journal.keep_in(&log).map_err(|source| DemoError::File { path: log, source })?;
        let world = Box::pin(World::begin(folder)).await?;
        Ok(Self { world, journal, tallies: Tallies::default() })
    }

    /// Makes a call on a connection of its own.
    pub(super) async fn call(&self, line: &Line, expected: Expected) -> Told {
        self.call_on(&mut None, line, expected).await
    }

    /// Makes a call on the connection that its caller has, else on a new one, which is kept.
    pub(super) async fn call_on(
        &self,
        pool: &mut Option<Conversation>,
        line: &Line,
        expected: Expected,
    ) -> Told {
        let question = self.tallies.question();
        let call = line.call(pool, &question, expected, RETRIES).await;
        let Call { outcome, took, repeated, .. } = call;
        let verdict = expected.verdict(&outcome);
        self.tallies.count(line, verdict);
        let (caller, dialled) = (line.caller.to_string(), line.way.to_string());
        Told { caller, app: line.app, dialled, outcome, verdict, took, repeated }
    }

    /// A connection of a caller that leads to its app in this cluster, made anew until it does.
    pub(super) async fn connected(
        &self,
        line: &Line,
        cluster: &'static str,
    ) -> Result<Conversation, DemoError> {
        until(cluster, "answered a new connection", async || {
            let (mut pool, question) = (None, self.tallies.question());
            let call = line.call(&mut pool, &question, Expected::Arrives, RETRIES).await;
            self.tallies.count(line, Expected::Arrives.verdict(&call.outcome));
            let there = matches!(&call.outcome, Outcome::Arrived(by) if by == cluster);
            Ok(pool.filter(|_| there))
        })
        .await
    }

    /// What the logs of both gateways of a link say of a caller's newest connection that ended so.
    pub(super) async fn logged(
        &self,
        caller: Caller,
        is: impl Fn(&Record) -> bool,
    ) -> (Option<Record>, Option<Record>) {
        let near = self.journal.near(caller.source, is).await;
        let far = match &near {
            Some(near) => self.journal.far(near).await,
            None => None,
        };
        (near, far)
    }
}
