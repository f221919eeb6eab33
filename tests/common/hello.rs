//! Hellos made by hand: any bytes as the name, any length.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::sync::atomic::{AtomicU64, Ordering};

/// A hello (RFC 8446 §4.1.2) that asks for a name, with a random of its own: the gateway takes the same one twice at a time for a
/// loop.
pub(crate) fn hello(name: &[u8]) -> Vec<u8> {
    padded_hello(name, 0)
}

/// The same with so much padding (RFC 7685).
pub(crate) fn padded_hello(name: &[u8], padding: usize) -> Vec<u8> {
    static HELLOS: AtomicU64 = AtomicU64::new(0);
    let mut random = [7; 32];
    random[24..].copy_from_slice(&HELLOS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let server_name = [&[0][..], &prefixed(name)].concat();
    let mut extensions = [&[0, 0][..], &prefixed(&prefixed(&server_name))].concat();
    if padding > 0 {
        extensions.extend([&[0, 21][..], &prefixed(&vec![0; padding])].concat());
    }
    let before = [&[3, 3][..], &random, &[0], &prefixed(&[0xc0, 0x2f]), &[1, 0]].concat();
    let body = [before, prefixed(&extensions)].concat();
    let message = [&[1, 0][..], &prefixed(&body)].concat();
    let records = message.chunks(1 << 14);
    records.flat_map(|record| [&[0x16, 3, 1][..], &prefixed(record)].concat()).collect()
}

/// Bytes behind their length in two octets.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("what is in a hello is short");
    [&length.to_be_bytes()[..], bytes].concat()
}
