//! A network of a test's own: every address and port is free in it, and whatever is dropped there is dropped there alone.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::run;
use super::{counterpart, skipped};

/// A network namespace with nothing but its loopback. Removed when dropped; sockets and processes made in it live on.
pub(crate) struct Net {
    name: String,
}

impl Net {
    /// Makes one. `None`: this machine does not let the test, which has said so.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        counterpart(test, "ip")?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let net = Self { name: format!("strait-{}-{number}", std::process::id()) };
        let made = run(Command::new("ip").args(["netns", "add", &net.name]));
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            skipped(test, &format!("no network namespace can be made: {}", why.trim()));
            return None;
        }
        net.ip(&["link", "set", "lo", "up"]);
        Some(net)
    }

    /// The same for a test that drops packets in it.
    pub(crate) fn with_filter(test: &str) -> Option<Self> {
        counterpart(test, "nft")?;
        let net = Self::new(test)?;
        net.nft("add table inet faults");
        net.nft("add chain inet faults out { type filter hook output priority 0; }");
        Some(net)
    }

    /// Joins it with another by a cable, each end with an address.
    pub(crate) fn join(&self, other: &Self, here: &str, there: &str) {
        self.ip(&[
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            &other.name,
        ]);
        for (net, address) in [(self, here), (other, there)] {
            net.ip(&["address", "add", address, "dev", "cable"]);
            net.ip(&["link", "set", "cable", "up"]);
        }
    }

    /// Runs something in it, on a thread of its own: sockets and processes that it makes belong to this network.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                let entry = File::open(PathBuf::from("/run/netns").join(&self.name)).unwrap();
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(entry.as_fd(), kind).unwrap();
                inside()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command of ip(8).
    pub(crate) fn ip(&self, arguments: &[&str]) {
        self.command("ip", arguments);
    }

    /// A command of nft(8).
    pub(crate) fn nft(&self, command: &str) {
        self.command("nft", &[command]);
    }

    /// Drops every packet that matches, from now on.
    pub(crate) fn drop_packets(&self, matching: &str) {
        self.nft(&format!("add rule inet faults out {matching} drop"));
    }

    /// Drops nothing any more.
    pub(crate) fn heal(&self) {
        self.nft("flush chain inet faults out");
    }

    /// Sets a system parameter of this network, as sysctl(8) does.
    pub(crate) fn set(&self, parameter: &str, value: &str) {
        self.run(|| fs::write(PathBuf::from("/proc/sys/net").join(parameter), value).unwrap());
    }

    fn command(&self, program: &str, arguments: &[&str]) {
        let done = self.run(|| run(Command::new(program).args(arguments)));
        assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
