//! A hello as Go 1.26 sends it, with a post-quantum key share: 1,507 octets.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend;

const CAPTURED: &[u8] = include_bytes!("../../../tests/hellos/cases/cap-go126-pq.bin");
/// The name in it; ours are of the same length, so that nothing else has to change.
const NAME: &[u8] = b"route-a.gw.test";
/// Behind the headers of record and message and the version (RFC 8446 §4.1.2): a part of the random.
const RANDOM: Range<usize> = 11..19;

/// The name of a backend, of which each has one.
pub(crate) fn name(number: usize) -> String {
    format!("app-{:02}.gw.bench", backend::of(number))
}

/// The hello of a new connection: a gateway takes the same one twice at a time for a loop.
pub(crate) fn next(number: usize) -> Vec<u8> {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let mut hello = CAPTURED.to_vec();
    let at = CAPTURED.windows(NAME.len()).position(|part| part == NAME).unwrap();
    hello[at..at + NAME.len()].copy_from_slice(name(number).as_bytes());
    hello[RANDOM].copy_from_slice(&SENT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    hello
}
