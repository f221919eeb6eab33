//! The story, in chapters. Each plays on the same stage, tells what it does and what that shows, and leaves the stage in order.
//! A new one is a file with a `tell` and a line below.

mod by_address;
mod by_name;
mod change;
mod directly;
mod failover;
mod permission;
mod plaintext;
mod refused;

use super::DemoError;
use super::caller::{Conversation, Line};
use super::flow::Seen;
use super::report::Report;
use super::stage::Stage;
use super::world::{MOBILE, ORDERS, WEB};

/// All of it, in order.
pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    directly::tell(stage, report).await?;
    by_name::tell(stage, report).await?;
    by_address::tell(stage, report).await?;
    plaintext::tell(stage, report).await?;
    Box::pin(refused::tell(stage, report)).await?;
    Box::pin(change::tell(stage, report)).await?;
    Box::pin(permission::tell(stage, report)).await?;
    Box::pin(failover::tell(stage, report)).await
}

/// Those in west who call orders on and on, two pods of each app, each on a connection that leads to east.
async fn callers(stage: &Stage) -> Result<Vec<(Line, Conversation)>, DemoError> {
    let world = &stage.world;
    let web = world.by_name(WEB, ORDERS, &world.west)?;
    let mobile = world.by_address(MOBILE, ORDERS)?;
    let mut callers = Vec::new();
    for line in [web.clone(), mobile.clone(), web, mobile] {
        let open = stage.connected(&line, world.east.name).await?;
        callers.push((line, open));
    }
    Ok(callers)
}

/// Whether those who called on while something was changed have noticed nothing.
fn untouched(seen: &[Seen], shows: &str, report: &mut Report<'_>) -> Result<(), DemoError> {
    let broken = seen.iter().filter(|it| it.by.is_err() || it.anew).count();
    let line = format!(
        "{} other calls meanwhile, on connections that are kept: {broken} of these were cut or misdelivered",
        seen.len()
    );
    report.verdict(broken == 0, &line, shows)?;
    Ok(())
}
