//! A permission that is given and taken away, while others call.

use std::time::{Duration, Instant};

use super::{DemoError, Report, Stage, callers, untouched};
use crate::cli::demo::caller::{Conversation, Expected, Line, Outcome};
use crate::cli::demo::cluster::until;
use crate::cli::demo::flow::Flow;
use crate::cli::demo::report::short;
use crate::cli::demo::tally::Verdict;
use crate::cli::demo::world::{ORDERS, RETURNS};

/// Calls of each caller before and after: enough to see that nothing has stopped.
const BESIDE: usize = 5;

/// What west's gateway tells a caller that may not call.
const DENIED: Expected = Expected::Refused("access_denied");

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("A permission: given and taken away by a command, while calls flow")?;
    let (world, flow) = (&stage.world, Flow::start(callers(stage).await?, &stage.tallies));
    flow.answered("east", BESIDE, Instant::now()).await?;
    let returns = world.by_name(RETURNS, ORDERS, &world.west)?;
    let told = stage.call(&returns, DENIED).await;
    report.call(&told, "East would admit every app of west. West's own gateway says why not:")?;
    logged(stage, "denied", report).await?;
    let mut pool = Box::pin(given(stage, &returns, report)).await?;
    Box::pin(taken(stage, &returns, &mut pool, report)).await?;
    flow.answered("east", BESIDE, Instant::now()).await?;
    let shows = "A permission is a document in a store: here a file beside west's configuration, elsewhere Redis or PostgreSQL.";
    untouched(&flow.stop().await, shows, report)
}

/// Gives it, and calls on and on until a call gets through. The connection of that one is kept.
async fn given(
    stage: &Stage,
    returns: &Line,
    report: &mut Report<'_>,
) -> Result<Option<Conversation>, DemoError> {
    report.happens(format_args!("strait allow {} {ORDERS}, at west's gateway", RETURNS.id))?;
    let permitted = stage.world.west.permit("allow", RETURNS.id, ORDERS);
    let (in_force, (open, refused, after)) =
        tokio::try_join!(permitted, Box::pin(through(stage, returns)))?;
    let mut pool = Some(open);
    let good = end(stage, returns, &mut pool, Expected::Arrives).await;
    let (in_force, after) = (short(in_force), short(after));
    let line = format!(
        "in force after {in_force}: the first call gets through after {after}, and {BESIDE} more on its connection"
    );
    report.verdict(good, &line, &format!("Calls that were refused until then: {refused}."))?;
    Ok(pool)
}

/// Takes it away, and sees the connection end that was made by it.
async fn taken(
    stage: &Stage,
    returns: &Line,
    pool: &mut Option<Conversation>,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    let west = &stage.world.west;
    report.happens(format_args!("strait revoke {} {ORDERS}, at west's gateway", RETURNS.id))?;
    let began = Instant::now();
    let closed = until(west.name, "closed the connection of who may not call", async || {
        let over = match pool {
            Some(open) => open.is_over().await,
            None => true,
        };
        Ok(over.then(|| began.elapsed()))
    });
    let permitted = west.permit("revoke", RETURNS.id, ORDERS);
    let (in_force, closed) = tokio::try_join!(permitted, closed)?;
    let good = end(stage, returns, pool, DENIED).await;
    let (in_force, closed) = (short(in_force), short(closed));
    let line = format!(
        "in force after {in_force}: its connection is closed after {closed}, and {BESIDE} more calls are refused"
    );
    let shows = "West says `onRevoke: close`; by default such a connection lives on, and new ones are refused.";
    report.verdict(good, &line, shows)?;
    logged(stage, "revoked", report).await
}

/// What west's gateway says of the caller's connection that ended so.
async fn logged(stage: &Stage, ending: &str, report: &mut Report<'_>) -> Result<(), DemoError> {
    let record = stage.journal.near(RETURNS.source, |it| it.ending == ending).await;
    report.log("west", record.as_ref())?;
    Ok(())
}

/// The connection of the first call that arrives, how many were refused before, and when it did.
async fn through(stage: &Stage, line: &Line) -> Result<(Conversation, u32, Duration), DemoError> {
    let (began, mut refused) = (Instant::now(), 0);
    until("east", "answered a caller that may call now", async || {
        let (mut pool, question) = (None, stage.tallies.question());
        // Not repeated as a sidecar would: the second that it waits is longer than all of this.
        let call = line.call(&mut pool, &question, Expected::Arrives, 0).await;
        let early = DENIED.verdict(&call.outcome) == Verdict::Refused;
        refused += u32::from(early);
        let verdict =
            if early { Verdict::Refused } else { Expected::Arrives.verdict(&call.outcome) };
        stage.tallies.count(line, verdict);
        let arrived = matches!(call.outcome, Outcome::Arrived(_));
        Ok(pool.filter(|_| arrived).map(|open| (open, refused, began.elapsed())))
    })
    .await
}

/// Whether the next calls all end so at once, on the connection that the caller has as far as it has one.
async fn end(
    stage: &Stage,
    line: &Line,
    pool: &mut Option<Conversation>,
    expected: Expected,
) -> bool {
    let mut good = true;
    for _ in 0..BESIDE {
        let told = stage.call_on(pool, line, expected).await;
        good &= told.verdict != Verdict::Wrong && told.repeated == 0;
    }
    good
}
