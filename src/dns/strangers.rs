//! How often those are answered who are not of this cluster: a datagram's source can be forged, and whoever stands behind it gets
//! the answers.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Answers a second to one network, and as many at once.
pub const RATE: u32 = 100;
/// Networks are told apart by a hash of this many values; two that share one share its answers. A table of a fixed size cannot
/// be filled by forged sources.
const BUCKETS: usize = 1 << 14;
/// Bits of an address that make a network: what is handed out to one site as a rule (RFC 6177 §2), and what can be forged together.
const IPV4_NETWORK: u8 = 24;
const IPV6_NETWORK: u8 = 56;
/// Of the questions beyond the rate every second one is told to come over TCP: a resolver whose network is under such an attack
/// is served all the same.
const SLIP: u32 = 2;

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Answer,
    /// It is told to come over TCP.
    Truncate,
    /// It gets nothing.
    Drop,
}

/// The rate of each network: a token bucket, kept as the moment at which it will be full again.
#[derive(Debug)]
pub struct Strangers {
    begun: Instant,
    hasher: RandomState,
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Since `begun`.
    full_at: Duration,
    refused: u32,
}

impl Strangers {
    /// Nobody has been answered yet.
    pub fn new(now: Instant) -> Self {
        let buckets = vec![Bucket::default(); BUCKETS].into_boxed_slice();
        Self { begun: now, hasher: RandomState::new(), buckets }
    }

    /// Judges one more question.
    pub fn judge(&mut self, source: IpAddr, now: Instant) -> Verdict {
        let now = now.saturating_duration_since(self.begun);
        let hash = self.hasher.hash_one(network(source.to_canonical()));
        // A hash's low bits are as good as any.
        let place = usize::try_from(hash % BUCKETS as u64).unwrap_or_default();
        let Some(bucket) = self.buckets.get_mut(place) else { return Verdict::Drop };
        let full_at = bucket.full_at.max(now) + Duration::from_secs(1) / RATE;
        if full_at <= now + Duration::from_secs(1) {
            *bucket = Bucket { full_at, refused: 0 };
            return Verdict::Answer;
        }
        bucket.refused = bucket.refused.wrapping_add(1);
        if bucket.refused.is_multiple_of(SLIP) { Verdict::Truncate } else { Verdict::Drop }
    }
}

fn network(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => {
            (false, u128::from(u32::from(address) >> (32 - u32::from(IPV4_NETWORK))))
        }
        IpAddr::V6(address) => {
            (true, u128::from(address) >> (Ipv6Addr::BITS - u32::from(IPV6_NETWORK)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_rate_of_its_own() {
        let begun = Instant::now();
        let mut strangers = Strangers::new(begun);
        let mut judge = |source: &str, ms| {
            strangers.judge(source.parse().unwrap(), begun + Duration::from_millis(ms))
        };
        for n in 0..RATE {
            assert_eq!(judge(&format!("192.0.2.{n}"), 0), Verdict::Answer, "{n}");
        }
        let beyond: Vec<_> = (0..4).map(|_| judge("192.0.2.200", 0)).collect();
        assert_eq!(beyond, [Verdict::Drop, Verdict::Truncate, Verdict::Drop, Verdict::Truncate]);
        assert_eq!(judge("::ffff:192.0.2.1", 0), Verdict::Drop, "the same network");
        // Others are, but for those few who share a bucket with it.
        let others =
            (0..200).filter(|n| judge(&format!("2001:db8:0:{n:x}00::1"), 0) == Verdict::Answer);
        assert!(others.count() >= 198);
        assert_eq!(judge("192.0.2.1", 10), Verdict::Answer, "one every 10 ms");
        assert_ne!(judge("192.0.2.1", 10), Verdict::Answer);
        let after = (0..2 * RATE).filter(|_| judge("192.0.2.1", 10_000) == Verdict::Answer);
        assert_eq!(after.count(), RATE as usize);
    }
}
