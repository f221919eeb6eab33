//! `strait demo`: two clusters on loopback, each with a gateway and apps of its own, and calls from one into the other.
//!
//! Everything is real but the distance: the gateways run from configuration files that they watch, the apps speak mutual TLS
//! with certificates as Dapr's sentry issues them, and callers name the app that they want in the SNI, as sidecars do. What a
//! caller may do depends on the address that it calls from, so the clusters are networks within 127.0.0.0/8.

mod app;
mod caller;
mod certificates;
mod cluster;
mod folder;
mod report;
mod story;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::app::StartError;

use super::client::ClientError;
use super::output::Out;
use super::{DemoArguments, Failed, Outcome};

use self::report::Report;
use self::story::{Event, Story};

/// Calls of one round when nobody says how many: enough for each part of the story to be seen.
const ROUND: u32 = 60;

/// Pause between two calls when nobody says how many: slow enough to read along.
const PACE: Duration = Duration::from_millis(250);

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// An address of the demo's networks cannot be used.
    #[error(
        "cannot use {address}: {source}; the demo needs the whole of 127.0.0.0/8 on loopback, as Linux has it"
    )]
    Address { address: std::net::SocketAddr, source: io::Error },
    /// The folder or a configuration file.
    #[error("{path}: {source}", path = path.display())]
    File { path: std::path::PathBuf, source: io::Error },
    /// Making a certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
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
    /// A changed file did not take effect.
    #[error("{cluster} has not taken up its changed configuration within {}s", cluster::SETTLE.as_secs())]
    Unchanged { cluster: &'static str },
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
            | DemoError::Tls(_)
            | DemoError::Lacking { .. }
            | DemoError::Unchanged { .. } => Self::Gateway(error.to_string()),
        }
    }
}

/// Runs the demo and tells what happens. Done when every call that should arrive arrived at its app and every other was refused.
pub async fn run(arguments: &DemoArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let mut report = Report::new(&mut out.out);
    Box::pin(play(arguments.calls, &mut report)).await?;
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Refused })
}

async fn play(calls: Option<u32>, report: &mut Report<'_>) -> Result<(), DemoError> {
    let mut story = Story::begin().await?;
    report.opening(&story)?;
    let told = tokio::select! {
        told = tell(&mut story, calls, report) => told,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    report.summary()?;
    story.end().await;
    told
}

/// One round for a given number of calls, else round after round.
async fn tell(
    story: &mut Story,
    calls: Option<u32>,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    loop {
        round(story, calls, report).await?;
        if calls.is_some() {
            return Ok(());
        }
        story.rewind().await?;
        report.happened("a new round: everything as it was at the start")?;
    }
}

async fn round(
    story: &mut Story,
    calls: Option<u32>,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    let total = calls.unwrap_or(ROUND);
    let plan = Arc::clone(&story.calls);
    for (number, call) in (0..total).zip(plan.iter().cycle()) {
        for event in Event::due(number, total) {
            let text = story.happen(event).await?;
            report.happened(text)?;
        }
        let told = story.make(call, number).await;
        report.call(&told)?;
        if calls.is_none() {
            tokio::time::sleep(PACE).await;
        }
    }
    Ok(())
}
