//! The PROXY header parser on any bytes: it answers, its length lies within, and a beginning is never judged otherwise than
//! the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strait::proxy_protocol::{Parsed, encode, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let beginning = parse(&bytes[..bytes.len() / 2]);
    match (&whole, &beginning) {
        (_, Parsed::NeedMore) | (Parsed::Wrong(_), Parsed::Wrong(_)) => {}
        (_, Parsed::Header { .. } | Parsed::Wrong(_)) => assert_eq!(whole, beginning),
    }
    if let Parsed::Header { header, length } = whole {
        assert!(length <= bytes.len());
        if let Some(addresses) = header.addresses {
            let sent = encode(addresses.source, addresses.destination, "a.example", b"id");
            assert!(matches!(parse(&sent), Parsed::Header { length, .. } if length == sent.len()));
        }
    }
});
