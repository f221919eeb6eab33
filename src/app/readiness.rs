//! Whether traffic should come here: not before the sources have spoken, not once the gateway stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Parts;

/// Ready at the latest this long after start, whether every source has spoken or not: a source that is down must not keep a
/// gateway out that can serve everything else.
const SOURCES_DEADLINE: Duration = Duration::from_secs(10);

/// Two facts that make readiness.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    settled: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Why no traffic should come, if so.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("the gateway is stopping".to_owned());
        }
        if !self.settled.load(Ordering::Acquire) {
            return Err("the gateway is starting: not every source has spoken yet".to_owned());
        }
        Ok(())
    }

    /// From now on not ready.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the gateway stops.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Makes the gateway ready once every source has spoken, or the deadline has passed. False: it was stopped before.
pub(super) async fn when_sources_have_spoken(parts: &Parts, stop: &CancellationToken) -> bool {
    let spoken = timeout(SOURCES_DEADLINE, parts.sources.settled());
    match stop.run_until_cancelled(spoken).await {
        None => return false,
        Some(Ok(())) => {}
        Some(Err(_)) => {
            let silent = parts.sources.sources().into_iter().filter(|source| !source.spoken);
            let silent: Vec<_> = silent.map(|source| source.name).collect();
            warn!(?silent, "serving although these sources have not spoken");
        }
    }
    parts.readiness.settled.store(true, Ordering::Release);
    info!("ready");
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Options;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_speaks_keeps_a_gateway_out_for_ten_seconds() {
        let stop = CancellationToken::new();
        let options = Options { config: "strait.yaml".into(), cores: 1, handover: None };
        let parts = Parts::new(options, &stop, CancellationToken::new()).unwrap();
        parts.sources.expect("dns");
        let start = Instant::now();
        assert!(parts.readiness.check().unwrap_err().contains("not every source has spoken"));
        assert!(when_sources_have_spoken(&parts, &stop).await);
        assert_eq!(start.elapsed(), SOURCES_DEADLINE);
        assert_eq!(parts.readiness.check(), Ok(()));
        parts.readiness.drain();
        assert!(parts.readiness.check().unwrap_err().contains("stopping"));
        stop.cancel();
    }
}
