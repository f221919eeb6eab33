//! A configuration that changes while calls flow.

use std::time::Instant;

use super::{DemoError, Report, Stage, callers, untouched};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::flow::Flow;
use crate::cli::demo::report::short;
use crate::cli::demo::world::{INTERN, NORTH_CLOSED, NORTH_OPEN, ORDERS};

/// Calls of each caller before and after: enough to see that nothing has stopped.
const BESIDE: usize = 5;

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("A change: no restart, and no connection is cut")?;
    let (world, flow) = (&stage.world, Flow::start(callers(stage).await?, &stage.tallies));
    flow.answered("east", BESIDE, Instant::now()).await?;
    report.happens(format_args!(
        "in east's configuration `{NORTH_CLOSED}` becomes `{NORTH_OPEN}`, while others call"
    ))?;
    let took = world.east.change(NORTH_CLOSED, NORTH_OPEN).await?;
    let intern = world.by_name(INTERN, ORDERS, &world.north)?;
    let told = stage.call(&intern, Expected::Arrives).await;
    report.call(&told, &format!("In force {} after the file was saved.", short(took)))?;
    flow.answered("east", BESIDE, Instant::now()).await?;
    let shows = "A change builds a new table beside the old one and swaps a pointer. Connections that live keep what they have.";
    untouched(&flow.stop().await, shows, report)
}
