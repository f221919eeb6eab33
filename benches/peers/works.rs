//! What the gateways are given to do, and what is looked at.

use std::io;
use std::thread;
use std::time::Duration;

use crate::load::connections::{self, Until};
use crate::load::process::Processes;
use crate::load::round_trips::RoundTrips;
use crate::load::slow::Drippers;
use crate::load::streams::{self, Direction};
use crate::load::{Outcome, Way};

/// Connections that are open while messages go back and forth on some of them.
const OPEN: usize = 64;

/// A gateway, or none.
pub(crate) struct Target<'a> {
    pub(crate) label: &'static str,
    pub(crate) way: Way<'a>,
    /// `None`: there is no gateway.
    pub(crate) processes: Option<Processes>,
}

/// How much of each.
pub(crate) struct Effort {
    pub(crate) time: Duration,
    octets: u64,
    idle: usize,
    slow: usize,
    settle: Duration,
}

impl Effort {
    pub(crate) fn measured(time: Duration) -> Self {
        Self {
            time,
            octets: 512 << 20,
            idle: 4000,
            slow: 1000,
            settle: Duration::from_millis(1500),
        }
    }

    pub(crate) fn tried() -> Self {
        let time = Duration::from_millis(50);
        Self { time, octets: 8 << 20, idle: 100, slow: 50, settle: time }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Connections { at_once: usize },
    RoundTrips { size: usize, busy: usize },
    Streams { count: usize, direction: Direction },
    Idle,
    Slow,
}

pub(crate) const ALL: [Work; 11] = [
    Work::Connections { at_once: 32 },
    Work::Connections { at_once: 1 },
    Work::RoundTrips { size: 128, busy: OPEN },
    Work::RoundTrips { size: 1024, busy: OPEN },
    Work::RoundTrips { size: 128, busy: 1 },
    Work::Streams { count: 1, direction: Direction::Up },
    Work::Streams { count: 1, direction: Direction::Down },
    Work::Streams { count: 8, direction: Direction::Up },
    Work::Streams { count: 8, direction: Direction::Down },
    Work::Idle,
    Work::Slow,
];

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Microseconds of processor time per unit.
    Cpu,
    /// Seconds of processor time per 10⁹ octets.
    CpuPerGb,
    /// Microseconds.
    Median,
    P99,
    /// What the gateway adds to them.
    MedianAdded,
    P99Added,
    /// Units a second.
    Rate,
    /// 10⁹ octets a second.
    Throughput,
    /// Octets per connection: while it is idle, and once it is closed.
    Memory,
    MemoryLeft,
    /// Units a second as a part of what they are without the slow clients.
    RateKept,
}

impl Metric {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU, µs",
            Self::CpuPerGb => "CPU, s/GB",
            Self::Median => "p50, µs",
            Self::P99 => "p99, µs",
            Self::MedianAdded => "p50 over direct, µs",
            Self::P99Added => "p99 over direct, µs",
            Self::Rate => "per second",
            Self::Throughput => "GB/s",
            Self::Memory => "user memory, B",
            Self::MemoryLeft => "left once closed, B",
            Self::RateKept => "part of the rate that is left",
        }
    }

    /// Whether less of it is better, and it is the gateway's own.
    pub(crate) fn is_cost(self) -> bool {
        match self {
            Self::Cpu | Self::CpuPerGb | Self::MedianAdded | Self::P99Added | Self::Memory => true,
            Self::Median
            | Self::P99
            | Self::Rate
            | Self::Throughput
            | Self::MemoryLeft
            | Self::RateKept => false,
        }
    }
}

/// What one target did in one round.
pub(crate) type Sample = Vec<(Metric, f64)>;

impl Work {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Connections { at_once: 1 } => "connection, one at a time".to_owned(),
            Self::Connections { at_once } => format!("connection, {at_once} at once"),
            Self::RoundTrips { size, busy: 1 } => format!("{size} B round trip, one at a time"),
            Self::RoundTrips { size, busy } => format!("{size} B round trip, {busy} at once"),
            Self::Streams { count: 1, direction } => {
                format!("bulk {direction:?}, 1 stream").to_lowercase()
            }
            Self::Streams { count, direction } => {
                format!("bulk {direction:?}, {count} streams").to_lowercase()
            }
            Self::Idle => "idle connection".to_owned(),
            Self::Slow => "connection, 32 at once beside 1,000 slow".to_owned(),
        }
    }

    /// Memory does not depend on what else the machine does, so that once is enough.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Idle => 1,
            Self::Slow => rounds.min(3),
            Self::Connections { .. } | Self::RoundTrips { .. } | Self::Streams { .. } => rounds,
        }
    }

    pub(crate) fn is_for(self, target: &Target<'_>) -> bool {
        self != Self::Idle || target.processes.is_some()
    }

    pub(crate) fn run(self, target: &Target<'_>, effort: &Effort) -> io::Result<Sample> {
        let way = target.way;
        match self {
            Self::Connections { at_once } => {
                connections::run(way, at_once, Until::Time(effort.time / 10))?;
                timed(target, || connections::run(way, at_once, Until::Time(effort.time)))
            }
            Self::RoundTrips { size, busy } => {
                let mut trips = RoundTrips::open(way, OPEN, busy, size)?;
                trips.run(Until::Time(effort.time / 10))?;
                timed(target, || trips.run(Until::Time(effort.time)))
            }
            Self::Streams { count, direction } => {
                let octets = effort.octets / count as u64;
                let (outcome, cpu) = used(target, || streams::run(way, count, direction, octets))?;
                let mut sample = vec![(Metric::Throughput, outcome.per_second() / 1e9)];
                sample.extend(
                    cpu.map(|cpu| (Metric::CpuPerGb, each(cpu.as_secs_f64(), outcome.done) * 1e9)),
                );
                Ok(sample)
            }
            Self::Idle => idle(target, effort),
            Self::Slow => slow(target, effort),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn each(of: f64, count: u64) -> f64 {
    of / count as f64
}

/// Does something, and the processor time that the gateway took for it.
fn used(
    target: &Target<'_>,
    work: impl FnOnce() -> io::Result<Outcome>,
) -> io::Result<(Outcome, Option<Duration>)> {
    let cpu = || target.processes.as_ref().map(Processes::cpu).transpose();
    let before = cpu()?;
    let outcome = work()?;
    let used = cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before));
    if used.is_some_and(|used| used.is_zero()) {
        return Err(io::Error::other("the gateway did nothing for it"));
    }
    Ok((outcome, used))
}

fn timed(target: &Target<'_>, work: impl FnOnce() -> io::Result<Outcome>) -> io::Result<Sample> {
    let (outcome, cpu) = used(target, work)?;
    let mut sample = vec![
        (Metric::Rate, outcome.per_second()),
        (Metric::Median, outcome.percentile(0.5)),
        (Metric::P99, outcome.percentile(0.99)),
    ];
    sample.extend(cpu.map(|cpu| (Metric::Cpu, each(cpu.as_secs_f64() * 1e6, outcome.done))));
    Ok(sample)
}

fn idle(target: &Target<'_>, effort: &Effort) -> io::Result<Sample> {
    let Some(processes) = &target.processes else { return Ok(Sample::new()) };
    let settled = || {
        thread::sleep(effort.settle);
        processes.memory()
    };
    let before = settled()?;
    let mut connections = target.way.open_many(effort.idle)?;
    let during = settled()?;
    // An idle connection still carries.
    connections.iter_mut().try_for_each(crate::load::echo)?;
    drop(connections);
    let after = settled()?;
    #[allow(clippy::cast_precision_loss, reason = "octets of a process are below 2^52")]
    let more = |now: u64| (now as f64 - before as f64) / effort.idle as f64;
    Ok(vec![(Metric::Memory, more(during)), (Metric::MemoryLeft, more(after))])
}

/// New connections beside those whose hello drips, and how many there are without them.
fn slow(target: &Target<'_>, effort: &Effort) -> io::Result<Sample> {
    let others = || connections::run(target.way, 32, Until::Time(effort.time));
    let alone = others()?.per_second();
    let drippers = Drippers::start(target.way, effort.slow)?;
    thread::sleep(effort.settle / 3);
    let beside = others();
    drippers.stop()?;
    let beside = beside?.per_second();
    Ok(vec![(Metric::Rate, beside), (Metric::RateKept, beside / alone)])
}
