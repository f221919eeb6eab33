//! Over a link, asked for by name.

use super::{DemoError, Report, Stage};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::world::{LEDGER, ORDERS, TELLER, WEB};

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("Over a link: gateway to gateway, each cluster proven by a certificate")?;
    let west = &stage.world.west;
    let web = stage.world.by_name(WEB, ORDERS, west)?;
    let told = stage.call(&web, Expected::Arrives).await;
    let shows = "The resolver (nameformat, sqlite, consul) leads to west's own gateway, which knows the caller by its address, checks\n\
                 its import, and opens a link to east; east checks its export. The sidecars' TLS runs inside as it is.";
    report.call(&told, shows)?;
    let (_, far) = stage.logged(WEB, |it| it.ending == "completed").await;
    report.log("east", far.as_ref())?;
    let teller = stage.world.by_name(TELLER, LEDGER, west)?;
    let told = stage.call(&teller, Expected::Arrives).await;
    report.call(&told, "Another app is another name: a name leads to one app, so no pooled connection is ever wrong.")?;
    Ok(())
}
