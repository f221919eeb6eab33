//! `strait run`: a gateway until a signal ends it.

use std::io;
use std::net::TcpListener;
use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use listenfd::ListenFd;

use crate::app::{Gateway, Options, StartError};

use super::RunArguments;

/// Runs a gateway until SIGTERM or SIGINT, or until another one has taken over; SIGHUP reads the configuration again, a second SIGTERM or SIGINT ends at once.
pub(super) async fn run(
    arguments: RunArguments,
    dropped_lines: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    raise_descriptor_limit();
    // As many data threads as the process may use: a container's CPU limit counts.
    let cores = available_parallelism().map_or(1, usize::from);
    let RunArguments { config, handover } = arguments;
    let gateway = Gateway::start_on(Options { config, cores, handover }, activated()?).await?;
    gateway.observe_log(dropped_lines);
    let relieved = tokio::select! {
        () = signals.until_stop(&gateway) => false,
        () = gateway.relieved() => true,
    };
    let end = async { if relieved { gateway.retire().await } else { gateway.drain().await } };
    tokio::select! {
        () = end => {}
        () = signals.until_stop(&gateway) => info!("stopping: a signal while stopping, at once"),
    }
    gateway.stop().await;
    Ok(())
}

/// Listening sockets of a service manager that has bound them (`sd_listen_fds(3)`).
fn activated() -> io::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).map(|at| passed.take_tcp_listener(at));
    sockets.filter_map(io::Result::transpose).collect()
}

/// A connection takes two descriptors. The soft limit, 1,024 as a rule, is that low for programs that call `select(2)`; nothing
/// here does.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(%error, "the limit of file descriptors could not be raised");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// SIGUSR1 and SIGUSR2, which mean nothing here: by default they would end the process.
    others: [Signal; 2],
    /// SIGXFSZ, sent when the file under stderr may not grow any more: lines are lost, as on a full disk. Never looked at.
    _too_large: Signal,
    told: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            others: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
            _too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
            told: false,
        })
    }

    async fn until_stop(&mut self, gateway: &Gateway) {
        loop {
            let [one, other] = &mut self.others;
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    gateway.reload();
                }
                _ = one.recv() => self.ignored("SIGUSR1"),
                _ = other.recv() => self.ignored("SIGUSR2"),
            }
        }
    }

    /// Told once: whoever sends one by mistake may send thousands.
    fn ignored(&mut self, signal: &str) {
        if !self.told {
            self.told = true;
            info!("{signal} is ignored: SIGHUP reads the configuration again, SIGTERM stops");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_the_hard_one() {
        let Some(maximum) = getrlimit(Resource::Nofile).maximum else { return };
        // One less is no loss for the tests that run beside this one.
        let lower = Rlimit { current: Some(maximum - 1), maximum: Some(maximum) };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(maximum));
    }
}
