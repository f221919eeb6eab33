//! The hello parser on any bytes, whole and cut where the fuzzer wants it: the same verdict, and what it lets through is a
//! name. Seeds: `tests/hellos/cases`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strait::model::name::CanonicalName;
use strait::proxy::hello::{HelloParser, Progress};

/// `limits.helloBytes` as it is by default.
const LIMIT: usize = 64 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let whole = HelloParser::new(LIMIT).advance(bytes);
    // The last bytes say how far apart the cuts are, so that a captured hello is a seed as it is.
    let steps = bytes.last_chunk::<4>().copied().unwrap_or_default();
    assert_eq!(effect(&whole), effect(&in_pieces(bytes, steps)));
    if let Progress::Hello(hello) = whole {
        assert_eq!(CanonicalName::parse(hello.name.as_bytes()), Ok(hello.name));
    }
});

fn in_pieces(bytes: &[u8], steps: [u8; 4]) -> Progress {
    let mut parser = HelloParser::new(LIMIT);
    let mut end = 0;
    for step in steps.iter().cycle() {
        end = (end + usize::from(*step) + 1).min(bytes.len());
        let progress = parser.advance(&bytes[..end]);
        if progress != Progress::NeedMore || end == bytes.len() {
            return progress;
        }
    }
    Progress::NeedMore
}

/// What a verdict does; which protocol it is that is not TLS is told by what has come so far.
fn effect(progress: &Progress) -> String {
    match progress {
        Progress::Wrong(error) => {
            format!(
                "{:?} {:?} {}",
                error.ending(),
                error.alert(),
                error.alert().map(|_| error.to_string()).unwrap_or_default()
            )
        }
        Progress::NeedMore | Progress::Hello(_) => format!("{progress:?}"),
    }
}
