//! The hello parser as connections drive it: with all that has come, each time that more has.

use strait::proxy::hello::{HelloParser, Progress};

/// `limits.helloBytes` as it is by default.
const LIMIT: usize = 64 * 1024;

/// The verdict on bytes that come in these cuts.
pub(crate) fn verdict(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Progress {
    let mut parser = HelloParser::new(LIMIT);
    cuts.into_iter()
        .chain([bytes.len()])
        .map(|cut| parser.advance(&bytes[..cut]))
        .find(|progress| *progress != Progress::NeedMore)
        .unwrap_or(Progress::NeedMore)
}
