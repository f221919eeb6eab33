//! What it was measured on.

use std::fs;
use std::thread;

use time::OffsetDateTime;

/// For who reads the figures.
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// ISO 8601, UTC.
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find(|line| line.starts_with("model name"));
        let processor = model.and_then(|line| line.split_once(": ")).map(|(_, name)| name);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: thread::available_parallelism().map_or(1, Into::into),
            processor: processor.unwrap_or("unknown processor").trim().to_owned(),
            kernel: format!("Linux {}", kernel.trim()),
            date: OffsetDateTime::now_utc().date().to_string(),
        }
    }
}
