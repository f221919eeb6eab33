//! The check of one endpoint: a TCP connect, again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::model::snapshot::Check;
use crate::routing::endpoint::{Endpoint, Health};
use crate::socket;

/// One endpoint's check.
pub(super) struct Probe {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) check: Check,
    /// One of the routes that lead there, for the log.
    pub(super) route: Arc<str>,
    /// Shared by all checks: how many may connect at a time.
    pub(super) permits: Arc<Semaphore>,
}

impl Probe {
    /// Checks until it is aborted, for the first time after `first`.
    pub(super) async fn run(self, first: Duration) {
        // An endpoint that was down before a change of the configuration is down after it.
        let mut verdict = Verdict::new(self.check, self.endpoint.health() != Health::Down);
        let start = tokio::time::Instant::now() + first;
        let mut rhythm = tokio::time::interval_at(start, self.check.interval);
        // After a check that took longer than the interval: one at once, not all that were missed.
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rhythm.tick().await;
            let outcome = self.check_once().await;
            if outcome.as_ref().is_err_and(socket::is_own_shortage) {
                // A gateway without a descriptor to spare must not take every endpoint down.
                continue;
            }
            if let Some(up) = verdict.hear(outcome.is_ok()) {
                self.endpoint.checked(up);
                self.log(outcome);
            }
        }
    }

    async fn check_once(&self) -> io::Result<()> {
        // Waiting for a permit is not the endpoint's fault: its time starts afterwards. The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let connect = connect(self.endpoint.address);
        match tokio::time::timeout(self.check.timeout, connect).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {:?}", self.check.timeout),
            )),
        }
    }

    /// Told once for each change, not for each check.
    fn log(&self, outcome: io::Result<()>) {
        let (address, route) = (self.endpoint.address, &self.route);
        match outcome {
            Ok(()) => info!(%address, %route, "endpoint is up: its checks succeed"),
            Err(error) => warn!(%address, %route, %error, "endpoint is down: its checks fail"),
        }
    }
}

/// Connects and closes again. Nothing was read or written, so the close is a plain FIN.
async fn connect(address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    // A connect to a free port of this machine's ephemeral range can meet itself (TCP's simultaneous open, RFC 9293 §3.5): nobody
    // listens there.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

/// Successes and failures in a row, and what they amount to.
///
/// A new endpoint is up, and its first check decides alone, as in `HAProxy`: connections are not refused for want of a check, and
/// an endpoint that was never there is found out at once.
#[derive(Debug)]
struct Verdict {
    check: Check,
    up: bool,
    /// Up on trust: not checked yet.
    new: bool,
    /// Checks in a row that speak against `up`.
    against: u16,
}

impl Verdict {
    fn new(check: Check, up: bool) -> Self {
        Self { check, up, new: up, against: 0 }
    }

    /// Takes a check into account; the new state if it changes.
    fn hear(&mut self, success: bool) -> Option<bool> {
        let needed = match (self.new, self.up) {
            (true, _) => 1,
            (false, true) => self.check.fall,
            (false, false) => self.check.rise,
        };
        self.new = false;
        self.against = if success == self.up { 0 } else { self.against.saturating_add(1) };
        // A count of 0 in the configuration would mean 1.
        if self.against == 0 || self.against < needed {
            return None;
        }
        (self.up, self.against) = (success, 0);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(rise: u16, fall: u16) -> Check {
        let second = Duration::from_secs(1);
        Check { interval: second, timeout: second, rise, fall }
    }

    /// `+` a success, `-` a failure; the answer has `U` and `D` where the state changes and `.` where it stays.
    fn told(mut verdict: Verdict, checks: &str) -> String {
        let changes = checks.chars().map(|outcome| verdict.hear(outcome == '+'));
        changes.map(|change| change.map_or('.', |up| if up { 'U' } else { 'D' })).collect()
    }

    #[test]
    fn only_checks_in_a_row_count() {
        let verdict = || Verdict::new(check(2, 3), true);
        assert_eq!(told(verdict(), "+--+--+---"), ".........D");
        assert_eq!(told(verdict(), "+---+-++-+"), "...D...U..");
    }

    #[test]
    fn the_first_check_decides_alone_unless_the_endpoint_was_down_before() {
        assert_eq!(told(Verdict::new(check(2, 3), true), "-+-++"), "D...U");
        assert_eq!(told(Verdict::new(check(2, 3), false), "+++"), ".U.");
        assert_eq!(told(Verdict::new(check(0, 0), true), "+-+"), ".DU");
    }

    proptest! {
        #[test]
        fn the_state_changes_exactly_when_the_last_checks_agree_against_it(
            (rise, fall) in (1u16..5, 1u16..5),
            checks in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut verdict = Verdict::new(check(rise, fall), true);
            let mut up = true;
            let mut since = 0;
            for (at, &success) in checks.iter().enumerate() {
                let needed = if at == 0 { 1 } else { usize::from(if up { fall } else { rise }) };
                let row = checks[since..=at].iter().rev().take_while(|&&last| last != up).count();
                let expected = (row >= needed).then_some(!up);
                prop_assert_eq!(verdict.hear(success), expected);
                if let Some(changed) = expected {
                    (up, since) = (changed, at + 1);
                }
            }
        }
    }
}
