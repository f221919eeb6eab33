//! After the story the clusters run on, and calls with them: whoever changes a configuration sees what comes of it.

use std::time::Duration;

use super::DemoError;
use super::caller::{Expected, Line, Outcome};
use super::report::Report;
use super::stage::Stage;
use super::tally::Verdict;
use super::world::{
    COURIER, INTERN, LEDGER, LEGACY, MOBILE, ORDERS, RETURNS, STOCK, STRANGER, TELLER, WEB,
};

/// Between two calls while a reader looks around.
const PACE: Duration = Duration::from_millis(250);

/// A caller that goes on, and how its last call ended.
struct Regular {
    line: Line,
    expected: Expected,
    last: String,
}

/// Calls until there are so many in all, else until Ctrl-C ends the demo.
pub(super) async fn go_on(
    stage: &Stage,
    calls: Option<u32>,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    let mut regulars = regulars(stage)?;
    loop {
        for regular in &mut regulars {
            match calls {
                Some(most) if stage.tallies.sum().total() >= most => return Ok(()),
                Some(_) => strictly(stage, regular, report).await?,
                None => loosely(stage, regular, report).await?,
            }
        }
    }
}

/// Whom the story has shown, as it has left them.
fn regulars(stage: &Stage) -> Result<Vec<Regular>, DemoError> {
    let world = &stage.world;
    let (arrives, refused) = (Expected::Arrives, Expected::Refused);
    let all = [
        (world.by_name(WEB, ORDERS, &world.west)?, arrives),
        (world.by_address(MOBILE, ORDERS)?, arrives),
        (world.by_address(TELLER, LEDGER)?, arrives),
        (world.in_plain(LEGACY, STOCK)?, arrives),
        (world.by_name(INTERN, ORDERS, &world.north)?, arrives),
        (world.by_name(COURIER, ORDERS, &world.east)?, arrives),
        (world.by_address(MOBILE, LEDGER)?, refused("access_denied")),
        (world.by_name(RETURNS, ORDERS, &world.west)?, refused("access_denied")),
        (world.by_name(STRANGER, ORDERS, &world.east)?, refused("unrecognized_name")),
    ];
    let regular = |(line, expected)| Regular { line, expected, last: String::new() };
    Ok(all.into_iter().map(regular).collect())
}

/// Nothing changes any more: every call ends as it should.
async fn strictly(
    stage: &Stage,
    regular: &Regular,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    let told = stage.call(&regular.line, regular.expected).await;
    if told.verdict == Verdict::Wrong {
        report.call(&told, "")?;
    }
    Ok(())
}

/// The reader may change what they like. All that is wrong is what never may be.
async fn loosely(
    stage: &Stage,
    regular: &mut Regular,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    let question = stage.tallies.question();
    let Regular { line, expected, last } = regular;
    // On a connection of its own: one that lives keeps what it has, whatever changes.
    let call = line.call(&mut None, &question, *expected, 0).await;
    let (verdict, ended) = match call.outcome {
        Outcome::Arrived(cluster) => (Verdict::Arrived, format!("answered in {cluster}")),
        Outcome::Refused(alert) => (Verdict::Refused, format!("refused ({alert})")),
        Outcome::Failed(reason) => (Verdict::Refused, format!("failed: {reason}")),
        Outcome::Misdelivered(answer) => (Verdict::Wrong, format!("MISDELIVERED: {answer}")),
    };
    stage.tallies.count(line, verdict);
    if *last != ended {
        let (caller, app, way) = (line.caller, line.app, &line.way);
        report.happens(format_args!("{caller} calls {app} as {way}: {ended}"))?;
        *last = ended;
    }
    tokio::time::sleep(PACE).await;
    Ok(())
}
