//! The reply parser on any bytes: it answers, asks for what is missing and no more, a beginning is never judged otherwise than
//! the whole, and what it accepts it writes and reads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strait::cluster::reply::{MAX_REPLY, Progress, encode, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let beginning = parse(&bytes[..bytes.len() / 2]);
    match (&whole, &beginning) {
        (_, Progress::NeedMore(missing)) => assert!((1..=MAX_REPLY).contains(missing)),
        (Progress::Wrong(_), Progress::Wrong(_)) => {}
        (_, Progress::Whole { .. } | Progress::Wrong(_)) => assert_eq!(whole, beginning),
    }
    if let Progress::Whole { reply, length } = whole {
        assert!(length <= bytes.len());
        let sent = encode(&reply);
        assert!(sent.len() <= MAX_REPLY);
        assert!(matches!(parse(&sent), Progress::Whole { reply: again, .. } if again == reply));
    }
});
