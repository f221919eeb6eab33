//! The shortest way: from a caller past its own cluster's gateway to the other one's.

use super::{DemoError, Report, Stage};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::world::{COURIER, ORDERS, STRANGER};

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("Directly: a name in the TLS hello (SNI) is all that a gateway needs")?;
    let east = &stage.world.east;
    let courier = stage.world.by_name(COURIER, ORDERS, east)?;
    let told = stage.call(&courier, Expected::Arrives).await;
    let shows = "east's gateway read the name and passed the bytes on: caller and app have seen each other's certificates,\n\
                 so nobody in between has opened the TLS. East admits south by its network (networksOf).";
    report.call(&told, shows)?;
    let stranger = stage.world.by_name(STRANGER, ORDERS, east)?;
    let told = stage.call(&stranger, Expected::Refused("unrecognized_name")).await;
    let shows = "A network that no rule names is not even told that the name exists, whatever certificate it has.";
    report.call(&told, shows)?;
    Ok(())
}
