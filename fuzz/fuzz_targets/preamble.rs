//! The preamble parser on any bytes: it answers, asks for what is missing and no more, a beginning is never judged otherwise
//! than the whole, and what it accepts it writes and reads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strait::cluster::preamble::{Progress, encode, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let beginning = parse(&bytes[..bytes.len() / 2]);
    match (&whole, &beginning) {
        (_, Progress::NeedMore(missing)) => assert!((1..=4096).contains(missing)),
        (Progress::Wrong(_), Progress::Wrong(_)) => {}
        (_, Progress::Whole { .. } | Progress::Wrong(_)) => assert_eq!(whole, beginning),
    }
    if let Progress::Whole { preamble, length } = whole {
        assert!(length <= bytes.len());
        let sent = encode(&preamble);
        assert!(sent.len() <= 4096);
        // Addresses of mixed families are sent as IPv6, so only what is read from there on stays the same.
        let Progress::Whole { preamble: again, .. } = parse(&sent) else {
            panic!("not read again")
        };
        assert_eq!(encode(&again), sent);
    }
});
