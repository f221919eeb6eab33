//! Versions where a store leaves them to who writes.

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{Entry, Expected, StoreError, Unreadable};
use crate::model::allowed::Version;

/// Longest version that is taken as it is written; numbers and UUIDs are shorter.
const LONGEST: usize = 64;

/// The version of a value that has none of its own: 64 bits of what it hashes to. Nobody gains from two documents with the same.
pub(super) fn of_content(bytes: &[u8]) -> Version {
    let digest = Sha256::digest(bytes);
    let beginning = digest.first_chunk().copied().unwrap_or_default();
    Version::from(&*format!("{:016x}", u64::from_be_bytes(beginning)))
}

/// A version as somebody wrote it, if it can stand in a header and a log: others write what they like.
pub(super) fn written(bytes: &[u8]) -> Option<Version> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_good = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(plain);
    std::str::from_utf8(bytes).ok().filter(|_| is_good).map(Version::from)
}

/// The version after the one that is there: one more, and not less than the milliseconds since 1970. So a document that was
/// removed and made again has none that it had before, and who still expects the old one is told.
pub(super) fn next(now: Option<&str>) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
    let last = now.and_then(|version| version.parse::<u64>().ok());
    last.map_or(clock, |last| last.saturating_add(1).max(clock))
}

/// Whether what is there is what was expected.
pub(in crate::permissions) fn check(
    expected: &Expected,
    now: Option<&Version>,
) -> Result<(), StoreError> {
    let as_expected = match expected {
        Expected::Anything => true,
        Expected::Nothing => now.is_none(),
        Expected::Version(version) => now == Some(version),
    };
    if as_expected { Ok(()) } else { Err(StoreError::Conflict(now.cloned())) }
}

/// A value as text, if it is one.
pub(super) fn text(bytes: &[u8]) -> Result<String, Unreadable> {
    if bytes.len() > super::MOST_BYTES {
        return Err(Unreadable::TooLong);
    }
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))
}

/// An entry whose version is its content's.
pub(super) fn entry(bytes: &[u8]) -> Entry {
    Entry { value: text(bytes), version: of_content(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_is_more_than_the_last_and_than_any_before_the_clock() {
        let clock = next(None);
        assert!(clock > 1_700_000_000_000);
        assert!(next(Some("1")) >= clock);
        let ahead = (clock + 1_000_000).to_string();
        assert_eq!(next(Some(&ahead)), clock + 1_000_001);
        assert!(next(Some("v2")) >= clock);
        assert!(next(Some("-1")) >= clock);
    }

    #[test]
    fn only_what_was_expected_is_replaced() {
        let (one, two) = (Version::from("1"), Version::from("2"));
        let expects_one = Expected::Version(one.clone());
        assert!(
            check(&Expected::Anything, None).is_ok()
                && check(&Expected::Anything, Some(&one)).is_ok()
        );
        assert!(check(&Expected::Nothing, None).is_ok() && check(&expects_one, Some(&one)).is_ok());
        assert_eq!(check(&Expected::Nothing, Some(&one)), Err(StoreError::Conflict(Some(one))));
        assert_eq!(check(&expects_one, Some(&two)), Err(StoreError::Conflict(Some(two))));
        assert_eq!(check(&expects_one, None), Err(StoreError::Conflict(None)));
    }

    #[test]
    fn a_written_version_can_stand_in_a_header() {
        assert_eq!(written(b"12"), Some(Version::from("12")));
        assert_eq!(written(b"v1.2-a"), Some(Version::from("v1.2-a")));
        for bad in [&b""[..], b"a b", b"a\"", b"\xff", b"a\n", &[b'a'; 65]] {
            assert_eq!(written(bad), None);
        }
    }

    #[test]
    fn a_value_that_is_no_text_says_where() {
        assert_eq!(text(b"{}"), Ok("{}".to_owned()));
        assert_eq!(text(b"{\xff}"), Err(Unreadable::NotUtf8(1)));
        assert_eq!(text(&vec![b'a'; super::super::MOST_BYTES + 1]), Err(Unreadable::TooLong));
        assert_ne!(of_content(b"a"), of_content(b"b"));
    }
}
