//! Over a link, asked for by an egress address.

use super::{DemoError, Report, Stage};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::world::{LEDGER, MOBILE, ORDERS, TELLER};

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("Without a name: an address of its own for every app (egress)")?;
    let mobile = stage.world.by_address(MOBILE, ORDERS)?;
    let told = stage.call(&mobile, Expected::Arrives).await;
    let shows = "Dapr's Kubernetes and mDNS resolvers give an address, and no SNI is sent: the address alone says which app is meant.";
    report.call(&told, shows)?;
    let teller = stage.world.by_address(TELLER, LEDGER)?;
    let told = stage.call(&teller, Expected::Arrives).await;
    report.call(&told, "Another app, another address. egress.lock keeps them: none moves because an app comes or goes.")?;
    let denied = stage.world.by_address(MOBILE, LEDGER)?;
    let told = stage.call(&denied, Expected::Refused("access_denied")).await;
    report.call(&told, "West's import lets bank/teller call the ledger and nobody else. No link was opened for this.")?;
    Ok(())
}
