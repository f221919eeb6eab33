//! From samples to figures: medians, ratios, a table, JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::gateways::Kind;
use crate::machine::Machine;
use crate::works::{Metric, Sample, Work};

/// What all are compared with.
pub(crate) const BASE: &str = "haproxy";
const DIRECT: &str = "direct";

/// The samples of a work by target, in the order of the rounds.
pub(crate) type Samples = BTreeMap<&'static str, Vec<Sample>>;

/// All figures of a run.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) rows: Vec<Row>,
    rounds: usize,
    time: Duration,
}

/// One metric of one work.
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) metric: Metric,
    pub(crate) figures: Vec<Figure>,
}

/// What it is of one target.
pub(crate) struct Figure {
    pub(crate) target: &'static str,
    pub(crate) median: f64,
    /// To [`BASE`], if that was there.
    pub(crate) ratio: Option<f64>,
}

impl Report {
    pub(crate) fn new(rounds: usize, time: Duration, installed: &[(Kind, String)]) -> Self {
        let versions =
            installed.iter().map(|(kind, version)| (kind.label(), version.clone())).collect();
        Self { machine: Machine::this(), versions, rows: Vec::new(), rounds, time }
    }

    /// Adds the figures of a work and prints them.
    pub(crate) fn add(&mut self, work: Work, samples: &Samples) {
        let metrics: &[Metric] = match work {
            Work::RoundTrips { busy: 1, .. } => {
                &[Metric::Cpu, Metric::Median, Metric::MedianAdded, Metric::P99Added, Metric::Rate]
            }
            Work::Connections { .. } | Work::RoundTrips { .. } => {
                &[Metric::Cpu, Metric::Median, Metric::P99, Metric::Rate]
            }
            Work::Streams { .. } => &[Metric::CpuPerGb, Metric::Throughput],
            Work::Idle => &[Metric::Memory, Metric::MemoryLeft],
            Work::Slow => &[Metric::Rate, Metric::RateKept],
        };
        print!("\n{:40}", work.title());
        self.labels().iter().for_each(|label| print!("{label:>20}"));
        println!();
        for metric in metrics {
            let row = Row::of(work.title(), *metric, samples, &self.labels());
            row.print(&self.labels());
            self.rows.push(row);
        }
    }

    /// In the order in which they are shown.
    fn labels(&self) -> Vec<&'static str> {
        [DIRECT].into_iter().chain(self.versions.iter().map(|(label, _)| *label)).collect()
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let versions: Map<_, _> = self
            .versions
            .iter()
            .map(|(label, version)| ((*label).to_owned(), Value::from(version.clone())))
            .collect();
        let machine = json!({
            "cores": self.machine.cores,
            "processor": self.machine.processor,
            "kernel": self.machine.kernel,
        });
        let report = json!({
            "date": self.machine.date,
            "machine": machine,
            "versions": versions,
            "rounds": self.rounds,
            "seconds": self.time.as_secs_f64(),
            "ratios to": BASE,
            "figures": rows,
        });
        format!("{report:#}\n")
    }
}

impl Row {
    fn of(work: String, metric: Metric, samples: &Samples, labels: &[&'static str]) -> Self {
        let base = values(metric, samples, BASE);
        let figure = |target: &&'static str| {
            let values = values(metric, samples, target);
            let ratios = values.iter().zip(&base).map(|(value, base)| value / base).collect();
            Some(Figure { target, ratio: median(ratios), median: median(values)? })
        };
        Self { work, metric, figures: labels.iter().filter_map(figure).collect() }
    }

    fn print(&self, labels: &[&str]) {
        print!("  {:38}", self.metric.title());
        for label in labels {
            let figure = self.figures.iter().find(|figure| figure.target == *label);
            print!("{:>20}", figure.map_or("-".to_owned(), Figure::text));
        }
        println!();
    }

    fn json(&self) -> Value {
        let figures: Map<_, _> = self
            .figures
            .iter()
            .map(|figure| {
                let value =
                    json!({ "median": rounded(figure.median), "ratio": figure.ratio.map(rounded) });
                (figure.target.to_owned(), value)
            })
            .collect();
        json!({ "work": self.work, "metric": self.metric.title(), "of": figures })
    }
}

impl Figure {
    fn text(&self) -> String {
        let ratio = self.ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
        short(self.median) + &ratio
    }
}

/// A target's values, round by round. None for what makes no sense of it.
fn values(metric: Metric, samples: &Samples, target: &str) -> Vec<f64> {
    let raw = |metric, target| {
        let samples = samples.get(target).map(Vec::as_slice).unwrap_or_default();
        samples.iter().filter_map(move |sample| find(sample, metric)).collect::<Vec<_>>()
    };
    let over_direct = |metric| {
        if target == DIRECT {
            return Vec::new();
        }
        let direct = raw(metric, DIRECT);
        raw(metric, target).iter().zip(&direct).map(|(value, direct)| value - direct).collect()
    };
    match metric {
        Metric::MedianAdded => over_direct(Metric::Median),
        Metric::P99Added => over_direct(Metric::P99),
        Metric::Cpu
        | Metric::CpuPerGb
        | Metric::Median
        | Metric::P99
        | Metric::Rate
        | Metric::Throughput
        | Metric::Memory
        | Metric::MemoryLeft
        | Metric::RateKept => raw(metric, target),
    }
}

fn find(sample: &Sample, metric: Metric) -> Option<f64> {
    sample.iter().find(|(of, _)| *of == metric).map(|(_, value)| *value)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return Some(values[middle]);
    }
    Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle]))
}

/// Three digits that count.
fn short(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        3
    };
    format!("{value:.decimals$}")
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
