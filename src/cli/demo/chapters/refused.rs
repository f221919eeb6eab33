//! A cluster that may not call, and how both sides tell it.

use super::{DemoError, Report, Stage};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::world::{INTERN, ORDERS};

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("Refused: both sides must agree, and both say why not")?;
    let intern = stage.world.by_name(INTERN, ORDERS, &stage.world.north)?;
    let told = stage.call(&intern, Expected::Refused("access_denied")).await;
    let shows = "North's own import allows it, and its certificate is good. But east admits of north shop/auditor alone.\n\
                 One connection, one id in both logs:";
    report.call(&told, shows)?;
    let (near, far) = stage.logged(INTERN, |it| it.ending == "refused_by_far").await;
    report.log("north", near.as_ref())?;
    report.log("east", far.as_ref())?;
    Ok(())
}
