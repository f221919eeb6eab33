//! What a link costs: two gateways with mutual TLS between them, beside two of HAProxy that open and terminate TLS in the same way;
//! and links until they are accepted, with a full handshake and resumed.
//!
//! ```sh
//! cargo bench --bench links -- [--rounds 5] [--mebibytes 512] [--only-handshakes]
//! ```
//!
//! Processor time of both gateways, as Linux keeps it; a ratio is the median of the ratios within a round. All bytes are checked,
//! and with every connection that it was routed by its name. Without HAProxy there is nothing to compare with, and that is said.
//! Under `cargo test` each work is done once and shortly.
#![allow(clippy::print_stdout, reason = "a program that shows what it found")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../support/load/mod.rs"]
mod load;
#[path = "../support/peer.rs"]
mod peer;

mod chains;
mod handshakes;
mod pairs;

use std::io;
use std::time::Duration;

use clap::Parser;

use load::Way;
use load::backend::Backends;
use load::connections::{self, Until};
use load::streams::{self, Direction};
use pairs::Pair;

/// Measures links beside HAProxy.
#[derive(Parser)]
struct Arguments {
    /// How often each work is done by each pair.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How much each work moves in each round.
    #[arg(long, default_value_t = 512)]
    mebibytes: u64,
    /// Measures no gateways, only links until they are accepted.
    #[arg(long)]
    only_handshakes: bool,
    /// Given by `cargo bench`; without it everything is only tried.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is done, with the unit of its figure.
const WORKS: [(&str, &str, Work); 5] = [
    ("bulk up, 1 stream", "s of CPU per GB", Work::Bulk(1, Direction::Up)),
    ("bulk down, 1 stream", "s of CPU per GB", Work::Bulk(1, Direction::Down)),
    ("bulk up, 8 streams", "s of CPU per GB", Work::Bulk(8, Direction::Up)),
    ("bulk down, 8 streams", "s of CPU per GB", Work::Bulk(8, Direction::Down)),
    ("connections, 8 at once", "µs of CPU each", Work::Connections),
];

#[derive(Clone, Copy)]
enum Work {
    Bulk(usize, Direction),
    Connections,
}

fn main() -> io::Result<()> {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        (arguments.rounds, arguments.mebibytes) = (1, 4);
    }
    let handshakes = if arguments.bench { 300 } else { 5 };
    if arguments.only_handshakes {
        return handshakes::run(handshakes);
    }
    let backends = Backends::start()?;
    let pairs = Pair::start_all(&backends)?;
    for (title, unit, work) in WORKS {
        let mut figures = vec![Vec::new(); pairs.len()];
        for _ in 0..arguments.rounds {
            for (pair, figures) in pairs.iter().zip(&mut figures) {
                let figure = work.run(pair, &backends, &arguments);
                figures.push(figure.map_err(|error| {
                    io::Error::other(format!("{title} by {}: {error}", pair.label))
                })?);
            }
        }
        tell(title, unit, &pairs, &figures);
    }
    handshakes::run(handshakes)
}

impl Work {
    fn run(self, pair: &Pair, backends: &Backends, arguments: &Arguments) -> io::Result<f64> {
        let way = Way { backends, gateway: Some(pair.address) };
        let before = pair.cpu()?;
        let (done, unit) = match self {
            Self::Bulk(count, direction) => {
                let octets = (arguments.mebibytes << 20) / count as u64;
                (streams::run(way, count, direction, octets)?.done, 1e9)
            }
            Self::Connections => {
                let time = Duration::from_millis(if arguments.bench { 1000 } else { 50 });
                (connections::run(way, 8, Until::Time(time))?.done, 1e-6)
            }
        };
        let used = pair.cpu()?.saturating_sub(before).as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
        Ok(match self {
            Self::Bulk(..) => used / (done as f64 / unit),
            Self::Connections => used / done as f64 / unit,
        })
    }
}

/// The median of each pair, and the ratio to the first one.
fn tell(title: &str, unit: &str, pairs: &[Pair], figures: &[Vec<f64>]) {
    for (pair, own) in pairs.iter().zip(figures) {
        let ratios = own.iter().zip(&figures[0]).map(|(own, first)| own / first).collect();
        let (figure, ratio) = (median(own.clone()), median(ratios));
        println!("{title:24} {:10} {figure:9.3} {unit:18} {ratio:5.2}", pair.label);
    }
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
