//! File descriptors: how many connections they allow, and some that connections must leave to everything else.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

/// Left to what is no connection: the admin and metrics listeners (64 connections each), DNS, health checks, files that are
/// read. But never more than a quarter of all.
const RESERVE: usize = 192;
/// Refused connections that are listened to until they stop, at most: what they can cost is this times their time, a second. But
/// never more than one descriptor of sixteen.
const MOST_DISCARDING: usize = 1024;
/// Open before the first listener, whatever is configured: standard streams, the control side's runtime, file watches.
const OF_PROCESS: usize = 24;
/// Of each core: epoll sets and what wakes them.
const OF_CORE: usize = 6;

/// How many descriptors there are and what they are for.
#[derive(Debug)]
pub(in crate::proxy) struct Descriptors {
    /// The process's limit; `usize::MAX` where there is none.
    all: AtomicUsize,
    cores: AtomicUsize,
    listeners: AtomicUsize,
}

impl Descriptors {
    /// As the process's limit is now.
    pub(in crate::proxy) fn new() -> Self {
        let new = Self::of(0);
        new.refresh();
        new
    }

    fn of(all: usize) -> Self {
        Self { all: all.into(), cores: AtomicUsize::new(1), listeners: AtomicUsize::new(1) }
    }

    /// Asks for the process's limit again: it can be changed from outside.
    pub(in crate::proxy) fn refresh(&self) {
        self.all.store(limit(), Ordering::Relaxed);
    }

    /// Each of the listeners has a socket on each of the cores.
    pub(in crate::proxy) fn listen(&self, cores: usize, listeners: usize) {
        self.cores.store(cores, Ordering::Relaxed);
        self.listeners.store(listeners, Ordering::Relaxed);
    }

    /// The process's limit; 0 where there is none.
    pub(in crate::proxy) fn all(&self) -> usize {
        match self.all.load(Ordering::Relaxed) {
            usize::MAX => 0,
            all => all,
        }
    }

    /// Most connections, at two descriptors each; 0 is no limit. What moves bulk in between may take more, which
    /// [`are_scarce`](Self::are_scarce) notices.
    pub(in crate::proxy) fn connections(&self) -> usize {
        if self.all() == 0 {
            return 0;
        }
        let [cores, listeners] =
            [&self.cores, &self.listeners].map(|count| count.load(Ordering::Relaxed));
        let others = OF_PROCESS + cores * (OF_CORE + listeners) + self.most_discarding();
        // At least one: a gateway that refuses everybody tells nobody why.
        (self.ceiling().saturating_sub(others) / 2).max(1)
    }

    /// Most refused connections that are listened to until they stop.
    pub(in crate::proxy) fn most_discarding(&self) -> usize {
        MOST_DISCARDING.min(self.all.load(Ordering::Relaxed) / 16)
    }

    /// Whether a connection that has just got its descriptor must give it back, or the reserve is touched.
    ///
    /// The system gives the lowest number that is free (POSIX, `open`), so that all below it are taken, by whomever: counting what
    /// the data path takes would miss the others, and asking the system would cost a call for each connection.
    pub(in crate::proxy) fn are_scarce(&self, newest: &impl AsFd) -> bool {
        number(newest) >= self.ceiling()
    }

    fn ceiling(&self) -> usize {
        let all = self.all.load(Ordering::Relaxed);
        all - RESERVE.min(all / 4)
    }
}

/// Whether there are plenty, for what is of use but not needed. Asks the system.
pub(in crate::proxy) fn has_spare(newest: &impl AsFd) -> bool {
    number(newest) < limit() / 4 * 3
}

fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn number(descriptor: &impl AsFd) -> usize {
    usize::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_others_leave() {
        let allowed = |all, cores, listeners| {
            let descriptors = Descriptors::of(all);
            descriptors.listen(cores, listeners);
            descriptors.connections()
        };
        assert_eq!(allowed(1024, 2, 1), (1024 - 192 - 24 - 2 * 7 - 64) / 2);
        assert_eq!(allowed(20_000, 2, 3), (20_000 - 192 - 24 - 2 * 9 - 1024) / 2);
        assert_eq!(allowed(16, 64, 9), 1);
        assert_eq!(allowed(usize::MAX, 2, 1), 0, "no limit at all");
    }

    #[test]
    fn the_newest_number_tells_how_many_are_open() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = number(&file);
        // Of so many, a quarter is for others.
        assert!(Descriptors::of(number).are_scarce(&file));
        assert!(!Descriptors::of(number * 2 + 2).are_scarce(&file));
        assert!(!Descriptors::of(usize::MAX).are_scarce(&file));
    }
}
