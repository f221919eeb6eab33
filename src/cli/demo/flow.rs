//! Calls that flow while something happens: each caller asks again and again on the one connection that it keeps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::caller::{Conversation, Expected, Line, Outcome, RETRIES};
use super::cluster::until;
use super::tally::Tallies;

/// Between a caller's calls: so that what happens falls between many of them, and few are under way at any moment.
const PAUSE: Duration = Duration::from_millis(20);

/// Callers at work.
pub(super) struct Flow {
    callers: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Which of the callers.
    caller: usize,
    /// The cluster that answered, or what went wrong instead.
    pub(super) by: Result<String, String>,
    /// When the answer was there.
    pub(super) at: Instant,
    /// How long it took.
    pub(super) took: Duration,
    /// How often it was repeated.
    pub(super) repeated: u32,
    /// Whether it needed a new connection.
    pub(super) anew: bool,
}

impl Flow {
    /// Lets them begin, each on a connection that it has.
    pub(super) fn start(lines: Vec<(Line, Conversation)>, tallies: &Tallies) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), CancellationToken::new());
        let (callers, mut tasks) = (lines.len(), JoinSet::new());
        for ((caller, line), begin) in lines.into_iter().enumerate().zip(begins(callers)) {
            let asking = ask(caller, line, tallies.clone(), Arc::clone(&seen), stop.clone());
            tasks.spawn(async move {
                tokio::time::sleep(begin).await;
                asking.await;
            });
        }
        Self { callers, seen, stop, tasks }
    }

    /// Waits until each caller has been answered by a cluster so many times since a moment.
    pub(super) async fn answered(
        &self,
        by: &'static str,
        times: usize,
        since: Instant,
    ) -> Result<(), DemoError> {
        until(by, "answered calls that flow", async || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let is = |it: &&Seen| it.at >= since && it.by.as_deref() == Ok(by);
            let answers = |caller| seen.iter().filter(is).filter(|it| it.caller == caller).count();
            Ok((0..self.callers).all(|caller| answers(caller) >= times).then_some(()))
        })
        .await
    }

    /// Lets the calls that are under way end, and tells all.
    pub(super) async fn stop(mut self) -> Vec<Seen> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When callers begin: one after the other, so that something which happens finds few calls under way and never all of them.
fn begins(callers: usize) -> impl Iterator<Item = Duration> {
    let step = PAUSE / u32::try_from(callers).unwrap_or(u32::MAX).max(1);
    (0..).map(move |caller| step * caller)
}

/// When a cluster's first answer since a moment was there.
pub(super) fn reached(seen: &[Seen], by: &str, since: Instant) -> Option<Duration> {
    let is = |it: &&Seen| it.at >= since && it.by.as_deref() == Ok(by);
    seen.iter().filter(is).map(|it| it.at.duration_since(since)).min()
}

async fn ask(
    caller: usize,
    (line, open): (Line, Conversation),
    tallies: Tallies,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: CancellationToken,
) {
    let mut pool = Some(open);
    while !stop.is_cancelled() {
        let call = line.call(&mut pool, &tallies.question(), Expected::Arrives, RETRIES).await;
        tallies.count(&line, Expected::Arrives.verdict(&call.outcome));
        let by = match call.outcome {
            Outcome::Arrived(cluster) => Ok(cluster),
            Outcome::Refused(what) | Outcome::Failed(what) | Outcome::Misdelivered(what) => {
                Err(what)
            }
        };
        let (at, took) = (call.began + call.took, call.took);
        let told = Seen { caller, by, at, took, repeated: call.repeated, anew: call.anew };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_taken_over_with_its_first_answer_since() {
        let began = Instant::now();
        let seen = |caller, by: Result<&str, &str>, after| Seen {
            caller,
            by: by.map(str::to_owned).map_err(str::to_owned),
            at: began + Duration::from_millis(after),
            took: Duration::ZERO,
            repeated: 0,
            anew: false,
        };
        let all = [
            seen(0, Ok("south"), 1),
            seen(0, Ok("east"), 5),
            seen(0, Err("south"), 6),
            seen(1, Ok("south"), 20),
            seen(0, Ok("south"), 9),
        ];
        let died = began + Duration::from_millis(4);
        assert_eq!(reached(&all, "south", died), Some(Duration::from_millis(5)));
        assert_eq!(reached(&all, "north", died), None);
    }
}
