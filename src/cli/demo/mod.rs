//! `strait demo`: four clusters on loopback, each with a gateway, and calls from one into the other, told as a story.
//!
//! Everything is real but the distance: the gateways run from configuration files that they watch and link with certificates as
//! `strait certs` makes them; apps and callers speak mutual TLS with certificates as Dapr's sentry issues them, keep their
//! connections and repeat failed calls as sidecars do. A caller is known by the address that it calls from, so the clusters are
//! networks within 127.0.0.0/8.

mod afterwards;
mod app;
mod caller;
mod certificates;
mod chapters;
mod cluster;
mod flow;
mod folder;
mod journal;
mod report;
mod stage;
mod tally;
mod world;

use std::io;

use crate::app::StartError;
use crate::telemetry::logging::Logging;

use super::client::ClientError;
use super::output::Out;
use super::{DemoArguments, Failed, Outcome};

use self::journal::Journal;
use self::report::Report;
use self::stage::Stage;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// An address of the demo's networks cannot be used.
    #[error(
        "cannot use {address}: {source}; the demo needs the whole of 127.0.0.0/8 on loopback, as Linux has it"
    )]
    Address { address: std::net::SocketAddr, source: io::Error },
    /// The folder or a file in it.
    #[error("{path}: {source}", path = path.display())]
    File { path: std::path::PathBuf, source: io::Error },
    /// Making a certificate of a sidecar.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Making those of the gateways.
    #[error("cannot make the gateways' certificates: {0}")]
    Links(String),
    /// Setting up TLS with one.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A gateway's admin API does not answer.
    #[error(transparent)]
    Admin(#[from] ClientError),
    /// A gateway lacks what every gateway has.
    #[error("the gateway of {cluster} has no {what}")]
    Lacking { cluster: &'static str, what: &'static str },
    /// Something did not happen.
    #[error("{cluster} has not {what} within {}s", cluster::SETTLE.as_secs())]
    Late { cluster: &'static str, what: &'static str },
    /// Standard output is gone.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl From<DemoError> for Failed {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Print(error) => Self::Output(error),
            DemoError::Start(error) => Self::from(error),
            DemoError::Admin(error) => Self::Client(error),
            DemoError::Address { .. }
            | DemoError::File { .. }
            | DemoError::Certificate(_)
            | DemoError::Links(_)
            | DemoError::Tls(_)
            | DemoError::Lacking { .. }
            | DemoError::Late { .. } => Self::Gateway(error.to_string()),
        }
    }
}

/// Runs the demo and tells what happens. Done when every call that should arrive arrived at its app, every other was refused, and
/// all else was as it was told.
pub async fn run(arguments: &DemoArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let journal = Journal::default();
    let _logging = Logging::start_into(journal.clone());
    let mut report = Report::new(&mut out.out);
    Box::pin(play(arguments.calls, journal, &mut report)).await?;
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Refused })
}

async fn play(
    calls: Option<u32>,
    journal: Journal,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    report.headline()?;
    let mut stage = Box::pin(Stage::set(journal)).await?;
    report.opening(&stage.world)?;
    let told = tokio::select! {
        told = Box::pin(tell(&mut stage, calls, report)) => told,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    report.summary(&stage.tallies.rows(), &stage.tallies.sum())?;
    if told.is_err() || !report.is_clean() {
        stage.world.folder.keep();
        report.left_behind(stage.world.folder.path())?;
    }
    stage.world.end().await;
    told
}

async fn tell(
    stage: &mut Stage,
    calls: Option<u32>,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    Box::pin(chapters::tell(stage, report)).await?;
    if calls.is_none() {
        report.look_around(&stage.world)?;
    }
    afterwards::go_on(stage, calls, report).await
}
