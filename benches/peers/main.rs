//! Strait beside HAProxy, nginx and Envoy, on the same load in the same run.
//!
//! ```sh
//! cargo bench --bench peers -- [--rounds 5] [--seconds 0.7] [--only WORK]… [--json FILE] [--svg FILE]
//! ```
//!
//! Each work is done in rounds, and in each round by every gateway in turn, so that what else the machine does meets all of them
//! alike. A figure is the median of its rounds; a ratio is the median of the ratios to HAProxy within a round. What counts is
//! processor time per unit of work, as Linux keeps it for the gateway's threads: rates and latencies also depend on the load
//! generator, which shares the machine. Every byte is checked, with every connection that it was routed by its name, and
//! with the first ones that they really come through the gateway; a single error fails the run. A gateway that is not installed is left out, and that is said.
//!
//! Under `cargo test` each work is done once and shortly, to see that it can be.
#![allow(clippy::print_stdout, reason = "a program that shows what it found")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../support/load/mod.rs"]
mod load;
#[path = "../support/peer.rs"]
mod peer;

mod chart;
mod gateways;
mod machine;
mod report;
mod works;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use gateways::{Kind, Running};
use load::Way;
use load::backend::Backends;
use report::{Report, Samples};
use works::{Effort, Target, Work};

/// Measures Strait beside HAProxy, nginx and Envoy.
#[derive(Parser)]
struct Arguments {
    /// How often each work is done by each gateway.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long connections and round trips are measured in each round.
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// Only works whose title has this in it.
    #[arg(long)]
    only: Vec<String>,
    /// Where the figures go.
    #[arg(long, default_value = "target/peers.json")]
    json: PathBuf,
    /// Where the chart goes.
    #[arg(long, default_value = "target/peers.svg")]
    svg: PathBuf,
    /// Given by `cargo bench`; without it everything is only tried.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> io::Result<()> {
    let mut arguments = Arguments::parse();
    let effort = if arguments.bench {
        Effort::measured(Duration::from_secs_f64(arguments.seconds))
    } else {
        arguments.rounds = 1;
        Effort::tried()
    };
    let backends = Backends::start()?;
    let installed = installed();
    let mut report = Report::new(arguments.rounds, effort.time, &installed);
    for work in works::ALL {
        let wanted = |only: &String| work.title().contains(only.as_str());
        if arguments.only.is_empty() || arguments.only.iter().any(wanted) {
            let rounds = work.rounds(arguments.rounds);
            report.add(work, &done(work, rounds, &effort, &backends, &installed)?);
        }
    }
    if arguments.bench {
        write(&arguments.json, &report.json())?;
        write(&arguments.svg, &chart::draw(&report))?;
    } else {
        assert!(chart::draw(&report).ends_with("</svg>\n"), "the chart is whole");
    }
    Ok(())
}

/// What is there, with its version; what is not is said.
fn installed() -> Vec<(Kind, String)> {
    let version = |kind: Kind| match kind.version() {
        Ok(version) => {
            println!("{:15} {version}", kind.label());
            Some((kind, version))
        }
        Err(why) => {
            println!("{:15} left out: {why}", kind.label());
            None
        }
    };
    Kind::ALL.into_iter().filter_map(version).collect()
}

/// A work by all gateways, each freshly started for it.
fn done(
    work: Work,
    rounds: usize,
    effort: &Effort,
    backends: &Backends,
    installed: &[(Kind, String)],
) -> io::Result<Samples> {
    let start = |(kind, _): &(Kind, String)| {
        kind.start(backends).map_err(|error| named(kind.label(), &error))
    };
    let running = installed.iter().map(start).collect::<io::Result<Vec<_>>>()?;
    let mut targets =
        vec![Target { label: "direct", way: Way { backends, gateway: None }, processes: None }];
    targets.extend(running.iter().map(|running| running.target(backends)));
    let mut samples = Samples::default();
    for _ in 0..rounds {
        for target in targets.iter().filter(|target| work.is_for(target)) {
            let sample = work.run(target, effort);
            let sample = sample
                .map_err(|error| named(&format!("{} by {}", work.title(), target.label), &error))?;
            samples.entry(target.label).or_default().push(sample);
        }
    }
    running.into_iter().try_for_each(Running::stop)?;
    Ok(samples)
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| named(&path.display().to_string(), &error))?;
    println!("written: {}", path.display());
    Ok(())
}
