//! A value as Dapr's configuration component for Redis has it: `value||version`, the version being optional.

use crate::permissions::store::{Entry, MOST_BYTES, versions};

/// What divides value and version.
pub(super) const MARK: &str = "||";
/// Index of the last byte that is read of a value: room for a version behind the longest document.
pub(super) const LAST_BYTE: usize = MOST_BYTES + 128;

/// Divides where Dapr divides: at the first mark, and at a second one the version ends.
pub(super) fn entry(bytes: &[u8]) -> Entry {
    let (value, rest) = divide(bytes);
    let was_cut = bytes.len() > LAST_BYTE;
    let version = rest.map(|rest| divide(rest).0).filter(|_| !was_cut).and_then(versions::written);
    Entry {
        value: versions::text(value),
        version: version.unwrap_or_else(|| versions::of_content(bytes)),
    }
}

/// As it is written.
pub(super) fn join(value: &str, version: u64) -> String {
    format!("{value}{MARK}{version}")
}

fn divide(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let at = bytes.windows(MARK.len()).position(|two| two == MARK.as_bytes());
    match at.and_then(|at| bytes.split_at_checked(at)) {
        Some((value, rest)) => (value, rest.get(MARK.len()..)),
        None => (bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::store::Unreadable;

    fn read(bytes: &[u8]) -> (Result<String, Unreadable>, String) {
        let entry = entry(bytes);
        (entry.value, entry.version.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(join("{}", 7).as_bytes()), (Ok("{}".to_owned()), "7".to_owned()));
    }

    #[test]
    fn others_values_are_divided_as_dapr_divides_them() {
        assert_eq!(read(b"{}||v1"), (Ok("{}".to_owned()), "v1".to_owned()));
        assert_eq!(read(b"{}||1||2"), (Ok("{}".to_owned()), "1".to_owned()));
        assert_eq!(read(b"{}|||1"), (Ok("{}".to_owned()), "|1".to_owned()));
        assert_eq!(read(b"||1"), (Ok(String::new()), "1".to_owned()));
    }

    #[test]
    fn a_value_without_a_version_has_its_contents() {
        let versions: std::collections::HashSet<_> =
            [&b"{}"[..], b"{ }", b"{}||", b"", b"{}||a b", b"{}||\xff"]
                .map(|bytes| read(bytes).1)
                .into();
        assert_eq!(versions.len(), 6);
        assert!(versions.iter().all(|version| version.len() == 16));
    }

    #[test]
    fn what_is_no_text_or_too_long_says_so() {
        assert_eq!(read(b"{\xff}||3"), (Err(Unreadable::NotUtf8(1)), "3".to_owned()));
        let long = [vec![b'a'; MOST_BYTES + 1], b"||3".to_vec()].concat();
        assert_eq!(read(&long), (Err(Unreadable::TooLong), "3".to_owned()));
        let cut = [vec![b'a'; MOST_BYTES + 1], b"||".to_vec(), vec![b'1'; 126]].concat();
        let (value, version) = read(&cut);
        assert_eq!((value, version.len()), (Err(Unreadable::TooLong), 16));
    }
}
