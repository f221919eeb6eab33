//! Sidecars without mTLS on both ends.

use super::{DemoError, Report, Stage};
use crate::cli::demo::caller::Expected;
use crate::cli::demo::world::{LEGACY, STOCK};

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter("Without TLS: sidecars that run without mTLS")?;
    let legacy = stage.world.in_plain(LEGACY, STOCK)?;
    let told = stage.call(&legacy, Expected::Arrives).await;
    let shows = "Carried only because west's import and east's export both say `plaintext: true`. Between the clusters the link\n\
                 encrypts it; from each sidecar to its gateway nothing does, and the app does not learn who calls.";
    report.call(&told, shows)?;
    Ok(())
}
