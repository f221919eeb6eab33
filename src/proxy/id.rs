//! Connections' ids: unique, short, and in the order of their connections when sorted as text.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base 32: sorts as its digits do, has no letters that people confuse.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 80 bits: 44 of milliseconds since 1970 (until the year 2527), 16 that count within a gateway, 20 that tell gateways apart.
const LENGTH: usize = 16;
const COUNT_BITS: u32 = 16;
const GATEWAY_BITS: u32 = 20;

/// Makes the ids of one gateway.
#[derive(Debug)]
pub(super) struct Ids {
    gateway: u32,
    count: AtomicU64,
}

/// The id of one connection: a number, whose text only those connections need that are logged or announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionId(u128);

impl Ids {
    pub(super) fn new() -> Self {
        // The one source of randomness that std has: RandomState's keys.
        let random = RandomState::new().hash_one(SystemTime::now());
        let gateway = u32::try_from(random >> (u64::BITS - GATEWAY_BITS)).unwrap_or_default();
        Self { gateway, count: AtomicU64::new(0) }
    }

    /// How many were made: the connections of this gateway.
    pub(super) fn made(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The next one. Two are the same only when over 65,536 connections come within a millisecond.
    pub(super) fn next(&self) -> ConnectionId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = self.count.fetch_add(1, Ordering::Relaxed) % (1 << COUNT_BITS);
        ConnectionId::of(now.as_millis(), count, self.gateway)
    }
}

impl ConnectionId {
    fn of(milliseconds: u128, count: u64, gateway: u32) -> Self {
        let counted = (milliseconds << COUNT_BITS) | u128::from(count);
        Self(counted << GATEWAY_BITS | u128::from(gateway))
    }

    /// Reads what [`text`](Self::text) writes; `None` for any other text.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; LENGTH] = text.try_into().ok()?;
        let digit = |letter: &u8| DIGITS.iter().position(|digit| digit == letter);
        let read = |number: u128, letter| Some(number << 5 | u128::try_from(digit(letter)?).ok()?);
        text.iter().try_fold(0, read).map(Self)
    }

    /// Stands for a connection without a hello, where randoms tell connections apart.
    pub(super) fn random(self) -> [u8; 32] {
        let mut random = [0; 32];
        for (to, octet) in random.iter_mut().zip(self.0.to_be_bytes()) {
            *to = octet;
        }
        random
    }

    /// Its octets as text, which are also the PROXY protocol's unique id.
    pub(super) fn text(self) -> [u8; LENGTH] {
        let mut text = [0; LENGTH];
        for (place, to) in text.iter_mut().rev().enumerate() {
            let digit = usize::try_from((self.0 >> (place * 5)) & 31).unwrap_or_default();
            *to = DIGITS.get(digit).copied().unwrap_or_default();
        }
        text
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_then_by_count() {
        let ids = [(1, 7, 3), (1, 8, 2), (2, 0, 1), (1 << 43, 0, 0)];
        let texts =
            ids.map(|(time, count, gateway)| ConnectionId::of(time, count, gateway).to_string());
        assert!(texts.is_sorted());
        assert_eq!(texts[0].len(), LENGTH);
    }

    #[test]
    fn what_is_written_is_read() {
        let id = ConnectionId::of(1_700_000_000_000, 7, 3);
        assert_eq!(ConnectionId::parse(&id.text()), Some(id));
        assert_eq!(ConnectionId::parse(b"01HF7YAT0001C00U"), None, "no such digit");
        assert_eq!(ConnectionId::parse(&id.text()[1..]), None);
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (Ids::new(), Ids::new());
        assert_ne!(one.next(), one.next());
        assert_ne!(one.next(), other.next());
    }
}
