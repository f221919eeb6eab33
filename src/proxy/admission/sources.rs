//! What each source network has open, and how fast it comes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::config::Limits;

use super::limit::Limit;

/// Enough that cores seldom meet at a lock.
const SHARDS: usize = 64;
/// Sources without a connection that a shard remembers for their rate, at most: some 16 MB for all shards. Beyond, they are
/// forgotten: who commands a quarter of a million addresses does not need a second burst from one of them.
const MOST_REMEMBERED: usize = 4096;
/// Sources that come to a shard before it looks for some that can be forgotten.
const SWEEP_AT_LEAST: usize = 64;

/// All sources that have a connection, or have just had one. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(super) struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug)]
struct Shard {
    sources: HashMap<IpNet, Source>,
    /// At so many sources those that can be forgotten are looked for.
    sweep_at: usize,
}

/// One source.
#[derive(Debug, Default)]
struct Source {
    open: u32,
    pending: u32,
    /// When its bucket is full again, in microseconds since the start: that one number is the whole bucket (the virtual
    /// scheduling form of the generic cell rate algorithm, ITU-T I.371 annex A).
    full_at: u64,
}

/// A connection of a source, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    sources: Sources,
    network: IpNet,
    pending: bool,
}

impl Default for Sources {
    fn default() -> Self {
        let shard = |_| Mutex::new(Shard { sources: HashMap::new(), sweep_at: SWEEP_AT_LEAST });
        Self(Arc::new(Inner { started: Instant::now(), shards: std::array::from_fn(shard) }))
    }
}

impl Sources {
    /// Counts a connection of a source, unless that is over one of its limits.
    ///
    /// Also while nothing is limited: a limit that a reload brings must hold for what is open by then. Pending ones are counted
    /// only while they are limited: those from before are gone within `limits.helloTimeout`.
    pub(super) fn enter(&self, address: IpAddr, limits: &Limits) -> Result<Counted, Limit> {
        let network = network(address, limits);
        let pending = limits.pending_per_source > 0;
        let now = if limits.hello_rate > 0 { self.now() } else { 0 };
        let mut shard = self.shard(&network);
        if shard.sources.len() >= shard.sweep_at {
            shard.sweep(self.now());
        }
        let source = shard.sources.entry(network).or_default();
        let admitted = source.admit(limits, now);
        if admitted.is_ok() {
            source.open += 1;
            source.pending += u32::from(pending);
        }
        drop(shard);
        admitted.map(|()| Counted { sources: self.clone(), network, pending })
    }

    /// The sources that have most connections open, those with most first. Looks at all of them.
    pub(super) fn busiest(&self, most: usize) -> Vec<(IpNet, usize)> {
        let mut all: Vec<(IpNet, usize)> = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            let open = shard.sources.iter().filter(|(_, source)| source.open > 0);
            all.extend(open.map(|(network, source)| (*network, source.open as usize)));
            all.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
            all.truncate(most);
        }
        all
    }

    fn now(&self) -> u64 {
        micros(self.0.started.elapsed())
    }

    fn shard(&self, network: &IpNet) -> MutexGuard<'_, Shard> {
        let [first, ..] = &self.0.shards;
        lock(self.0.shards.get(place(network)).unwrap_or(first))
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).sources.len()).sum()
    }
}

impl Counted {
    /// Its hello is whole.
    pub(super) fn heard(&mut self) {
        if std::mem::take(&mut self.pending)
            && let Some(source) = self.sources.shard(&self.network).sources.get_mut(&self.network)
        {
            source.pending = source.pending.saturating_sub(1);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.sources.shard(&self.network);
        let Entry::Occupied(mut entry) = shard.sources.entry(self.network) else { return };
        let source = entry.get_mut();
        source.open = source.open.saturating_sub(1);
        source.pending = source.pending.saturating_sub(u32::from(self.pending));
        // The clock is asked only where a rate was limited.
        if source.open == 0 && (source.full_at == 0 || source.is_idle(self.sources.now())) {
            entry.remove();
        }
    }
}

impl Shard {
    /// Forgets sources without a connection whose bucket is full again, and all without a connection when they are too many.
    fn sweep(&mut self, now: u64) {
        self.sources.retain(|_, source| !source.is_idle(now));
        let remembered = self.sources.values().filter(|source| source.open == 0).count();
        if remembered > MOST_REMEMBERED / 2 {
            self.sources.retain(|_, source| source.open > 0);
        }
        // Looking at all of them is paid by those that came since.
        let left = self.sources.len();
        self.sweep_at = left + left.clamp(SWEEP_AT_LEAST, MOST_REMEMBERED / 2);
    }
}

impl Source {
    /// Whether there is nothing to remember of it.
    fn is_idle(&self, now: u64) -> bool {
        self.open == 0 && self.full_at <= now
    }

    /// Room for one more, and a token taken from its bucket.
    fn admit(&mut self, limits: &Limits, now: u64) -> Result<(), Limit> {
        let under = |count: u32, limit: usize| limit == 0 || (count as usize) < limit;
        if !under(self.open, limits.per_source) {
            return Err(Limit::PerSource);
        }
        if !under(self.pending, limits.pending_per_source) {
            return Err(Limit::PendingPerSource);
        }
        if limits.hello_rate > 0 {
            let each = micros(Duration::from_secs(1)) / limits.hello_rate.max(1) as u64;
            let full_at = self.full_at.max(now) + each;
            if full_at - now > each.saturating_mul(burst(limits)) {
                return Err(Limit::HelloRate);
            }
            self.full_at = full_at;
        }
        Ok(())
    }
}

/// Tokens in a full bucket: by default what comes in a second.
fn burst(limits: &Limits) -> u64 {
    let burst = if limits.hello_burst == 0 { limits.hello_rate } else { limits.hello_burst };
    burst.max(1) as u64
}

/// What counts as one source. An IPv4 address is one however the socket writes it.
fn network(address: IpAddr, limits: &Limits) -> IpNet {
    let address = address.to_canonical();
    let prefix = match address {
        IpAddr::V4(_) => limits.source_ipv4_prefix,
        IpAddr::V6(_) => limits.source_ipv6_prefix,
    };
    IpNet::new(address, prefix).map_or_else(|_| address.into(), |network| network.trunc())
}

/// Which shard is a network's. Multiplied (Knuth, TAOCP 6.4), because networks differ in their last bits or in none of those. Who
/// chooses addresses that meet in one gains what one address has: a lock that they share. The map in it is keyed at random.
fn place(network: &IpNet) -> usize {
    let bits = match network.addr() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let (high, low) = (address.to_bits() >> 64, address.to_bits() & u128::from(u64::MAX));
            u64::try_from(high ^ low).unwrap_or_default()
        }
    };
    let mixed = bits.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> (u64::BITS - SHARDS.ilog2())).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn limits() -> Limits {
        Limits { per_source: 2, ..Limits::default() }
    }

    #[test]
    fn a_source_has_so_many_places_and_another_has_its_own() {
        let sources = Sources::default();
        let first = sources.enter(ip("192.0.2.1"), &limits()).unwrap();
        let _second = sources.enter(ip("::ffff:192.0.2.1"), &limits()).unwrap();
        assert_eq!(sources.enter(ip("192.0.2.1"), &limits()).unwrap_err(), Limit::PerSource);
        let _other = sources.enter(ip("192.0.2.2"), &limits()).unwrap();
        drop(first);
        let _third = sources.enter(ip("192.0.2.1"), &limits()).unwrap();
        assert_eq!(sources.busiest(1), [("192.0.2.1/32".parse().unwrap(), 2)]);
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_both_prefixes_can_be_set() {
        let sources = Sources::default();
        let _first = sources.enter(ip("2001:db8::1"), &limits()).unwrap();
        let _second = sources.enter(ip("2001:db8::2:1"), &limits()).unwrap();
        assert!(sources.enter(ip("2001:db8::3"), &limits()).is_err());
        assert!(sources.enter(ip("2001:db8:0:1::1"), &limits()).is_ok());

        let wide = Limits { source_ipv4_prefix: 24, source_ipv6_prefix: 48, ..limits() };
        let _held = ["192.0.2.1", "192.0.2.2"].map(|at| sources.enter(ip(at), &wide).unwrap());
        assert!(sources.enter(ip("192.0.2.3"), &wide).is_err());
        assert!(sources.enter(ip("192.0.3.3"), &wide).is_ok());
        let _held = ["2001:db8:1:2::", "2001:db8:1:3::"].map(|at| sources.enter(ip(at), &wide));
        assert!(sources.enter(ip("2001:db8:1:4::"), &wide).is_err());
    }

    #[test]
    fn a_limit_that_comes_later_holds_for_what_is_open() {
        let sources = Sources::default();
        let none = Limits::default();
        let held: Vec<_> = (0..3).map(|_| sources.enter(ip("192.0.2.1"), &none)).collect();
        assert!(sources.enter(ip("192.0.2.1"), &limits()).is_err());
        drop(held);
        assert!(sources.enter(ip("192.0.2.1"), &limits()).is_ok());
    }

    #[test]
    fn a_hello_waits_until_it_is_heard_or_given_up() {
        let sources = Sources::default();
        let limits = Limits { pending_per_source: 1, ..Limits::default() };
        let enter = || sources.enter(ip("192.0.2.1"), &limits);
        let mut first = enter().unwrap();
        assert_eq!(enter().unwrap_err(), Limit::PendingPerSource);
        first.heard();
        first.heard();
        let second = enter().unwrap();
        assert!(enter().is_err(), "heard twice is heard once");
        drop(second);
        assert!(enter().is_ok());
        drop(first);
        assert_eq!(sources.remembered(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let sources = Sources::default();
        let limits = Limits { hello_rate: 10, hello_burst: 3, ..Limits::default() };
        let admitted = || sources.enter(ip("192.0.2.1"), &limits).is_ok();
        assert_eq!((0..9).filter(|_| admitted()).count(), 3);
        for _ in 0..4 {
            tokio::time::advance(Duration::from_millis(100)).await;
            assert_eq!((admitted(), admitted()), (true, false));
        }
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!((0..9).filter(|_| admitted()).count(), 3, "it holds no more than a burst");
        assert_eq!(sources.remembered(), 1);
        tokio::time::advance(Duration::from_mins(1)).await;
        drop(sources.enter(ip("192.0.2.1"), &Limits::default()));
        assert_eq!(sources.remembered(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_burst_a_second_is_one() {
        let sources = Sources::default();
        let limits = Limits { hello_rate: 5, ..Limits::default() };
        let admitted = (0..9).filter(|_| sources.enter(ip("192.0.2.1"), &limits).is_ok());
        assert_eq!(admitted.count(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_sources_leave_a_bounded_trace() {
        let sources = Sources::default();
        let held = sources.enter(ip("192.0.2.1"), &limits()).unwrap();
        // A minute's burst: none of them could be forgotten for its own sake.
        let limits = Limits { hello_rate: 1, hello_burst: 60, ..Limits::default() };
        for number in 0..1_000_000 {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + number);
            assert!(sources.enter(address.into(), &limits).is_ok());
        }
        assert!(sources.remembered() <= SHARDS * (MOST_REMEMBERED + 1));
        assert!(sources.remembered() > SHARDS * MOST_REMEMBERED / 4, "not forgotten at once");
        assert_eq!(sources.busiest(9).len(), 1, "one that is open is never forgotten");
        drop(held);
    }

    #[test]
    fn without_a_rate_nothing_is_remembered() {
        let sources = Sources::default();
        for number in 0..10_000 {
            drop(sources.enter(Ipv4Addr::from_bits(number).into(), &limits()));
        }
        assert_eq!(sources.remembered(), 0);
    }
}
