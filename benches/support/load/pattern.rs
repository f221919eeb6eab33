//! Bytes without a pattern that both sides know, as long as they like.

use std::sync::LazyLock;

/// A prime, so that no buffer or pipe is a part of it and what is lost or doubled shows.
const PERIOD: usize = 1_000_003;
/// Longest part that is asked for at once.
pub(crate) const LONGEST: usize = 256 * 1024;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = noise(1, PERIOD);
    bytes.extend_from_within(..LONGEST);
    bytes
});

/// `length` octets at `offset` of the endless stream.
pub(crate) fn at(offset: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).unwrap();
    &BYTES[start..start + length]
}

/// Bytes without a pattern (xorshift64*, Vigna 2016).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}
