//! `process_*` metrics under the names that every Prometheus client uses, read from `/proc` at each scrape.
//!
//! The collector of the `prometheus` crate would bring `procfs` and `libc` for these few numbers.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::{Counter, Gauge, Opts, proto::MetricFamily};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::valid;

/// What the operating system knows of this process. A number that it does not tell is left out.
#[derive(Clone)]
pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    start_time: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let gauge = |name: &str, help: &str| valid(Gauge::with_opts(Opts::new(name, help)));
        let start_time = gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
        );
        // Taken here, not from /proc/self/stat, whose ticks count from a boot time that moves with the clock: metrics are made
        // within milliseconds of the start.
        start_time
            .set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let cpu = "Total user and system CPU time spent in seconds.";
        Self {
            cpu_seconds: valid(Counter::new("process_cpu_seconds_total", cpu)),
            start_time,
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            threads: gauge("process_threads", "Number of OS threads in the process."),
        }
    }

    fn gauges(&self) -> [(&Gauge, Option<f64>); 5] {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |key| field(&status, key).map(|value| value * 1024.0);
        [
            (&self.open_fds, open_descriptors()),
            (&self.max_fds, getrlimit(Resource::Nofile).current.map(to_float)),
            (&self.resident, kilobytes("VmRSS:")),
            (&self.virtual_memory, kilobytes("VmSize:")),
            (&self.threads, field(&status, "Threads:")),
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [
            &self.start_time,
            &self.open_fds,
            &self.max_fds,
            &self.resident,
            &self.virtual_memory,
            &self.threads,
        ];
        gauges.into_iter().flat_map(Collector::desc).chain(self.cpu_seconds.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.start_time.collect();
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = std::time::Duration::try_from(spent).unwrap_or_default().as_secs_f64();
        // Two scrapes at once would subtract what the other has added, hence the guard against going back.
        self.cpu_seconds.inc_by((spent - self.cpu_seconds.get()).max(0.0));
        families.extend(self.cpu_seconds.collect());
        for (gauge, value) in self.gauges() {
            if let Some(value) = value {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

/// Since Linux 6.2 the folder's size is the number; before, it is 0 and the entries are counted, with the one of the counting.
fn open_descriptors() -> Option<f64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        0 => fs::read_dir(folder).ok().map(|entries| to_float(entries.count() as u64) - 1.0),
        open => Some(to_float(open)),
    }
}

/// A number of `/proc/self/status`.
fn field(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other number than f64")]
fn to_float(number: u64) -> f64 {
    number as f64
}
