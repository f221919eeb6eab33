//! What the black-box tests share: the gateway as a process, apps behind it, clients in front of it.
#![allow(dead_code, reason = "every test binary takes what it needs")]

pub(crate) mod app;
pub(crate) mod authority;
pub(crate) mod cgroup;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod joined;
pub(crate) mod net;
pub(crate) mod process;

use std::future::pending;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dns::DnsServer;

/// Longer than anything here takes on a machine that does ten other things; only a failure waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `ready` says something.
///
/// # Panics
/// After [`PATIENCE`], with what was waited for.
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is true.
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    wait_for(what, || is_true().then_some(()));
}

/// A program that a test needs and that is none of ours. `None`: the test is skipped and has said so.
///
/// # Panics
/// Where `STRAIT_REQUIRE_COUNTERPARTS` is 1, as in CI: there a missing program is a failure.
pub(crate) fn counterpart(test: &str, program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        skipped(test, &format!("{program} is missing"));
    }
    found
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// Where `STRAIT_REQUIRE_COUNTERPARTS` is 1.
pub(crate) fn skipped(test: &str, why: &str) {
    let required =
        std::env::var_os("STRAIT_REQUIRE_COUNTERPARTS").is_some_and(|value| value == "1");
    assert!(!required, "{test} cannot be skipped here: {why}");
    // Not `eprintln!`, which the test runner swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Tells what a test has measured, so that it stands in CI's log beside the test's name.
pub(crate) fn measured(what: &str) {
    let _ = writeln!(std::io::stderr(), "measured: {what}");
}

/// Bytes without a pattern, the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// A DNS server on a thread of its own, so that tests may wait without it.
pub(crate) fn dns_server() -> Arc<DnsServer> {
    let (send, started) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            send.send(Arc::new(DnsServer::start().await)).unwrap();
            pending::<()>().await;
        });
    });
    started.recv().unwrap()
}
