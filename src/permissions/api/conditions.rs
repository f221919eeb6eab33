//! `If-Match` and `If-None-Match` (RFC 9110 §13.1): how a writer says which version he replaces.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::model::allowed::Version;
use crate::permissions::service::Precondition;
use crate::problem::Problem;

/// The entity tag of a version. A store's versions may be any text, so what a tag cannot hold is escaped as in a URL.
pub(super) fn etag(version: &Version) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"{}\"", escaped(version.as_str()))).ok()
}

/// What a writer wants to find.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let matching = list(headers, &header::IF_MATCH);
    let unmatching = list(headers, &header::IF_NONE_MATCH);
    match (&*matching, &*unmatching) {
        ([], []) => Ok(Precondition::None),
        (["*"], []) => Ok(Precondition::Present),
        ([], ["*"]) => Ok(Precondition::Absent),
        // A weak tag never matches (RFC 9110 §8.8.3.2): it is no version here.
        (tags, []) => Ok(Precondition::OneOf(tags.iter().filter_map(|tag| version(tag)).collect())),
        ([], _) => Err(wrong("If-None-Match is of use with `*` alone where something is written")),
        (..) => Err(wrong("If-Match and If-None-Match exclude each other")),
    }
}

/// Whether a reader has this version already.
pub(super) fn is_known(headers: &HeaderMap, there: &Version) -> bool {
    // Compared weakly (RFC 9110 §13.1.2).
    let known = |tag: &str| {
        tag == "*" || version(tag.strip_prefix("W/").unwrap_or(tag)).as_ref() == Some(there)
    };
    list(headers, &header::IF_NONE_MATCH).into_iter().any(known)
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    // No tag of ours holds a comma.
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|tag| !tag.is_empty()).collect()
}

fn version(tag: &str) -> Option<Version> {
    let escaped = tag.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(Version::from(&*String::from_utf8(bytes).ok()?))
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'%' | b'"' | b',' | b'*' | 0..=b' ' | 0x7f.. => format!("%{byte:02X}"),
        plain => char::from(plain).to_string(),
    };
    text.bytes().map(escape).collect()
}

fn wrong(detail: &str) -> Problem {
    let kind = ("condition", "The condition cannot be used");
    let fix = "send `If-Match: ETAG` with the tag of the version that is to be replaced, or `If-None-Match: *` where nothing is to be there";
    Problem::new(StatusCode::BAD_REQUEST, kind, detail, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(written: &[(HeaderName, &str)]) -> HeaderMap {
        written.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_writer_says_what_he_wants_to_find() {
        let one = |version: &str| Version::from(version);
        for (written, expected) in [
            (vec![], Precondition::None),
            (vec![(header::IF_MATCH, "*")], Precondition::Present),
            (vec![(header::IF_NONE_MATCH, "*")], Precondition::Absent),
            (vec![(header::IF_MATCH, "\"7\"")], Precondition::OneOf(vec![one("7")])),
            (
                vec![(header::IF_MATCH, "\"7\" , \"8\"")],
                Precondition::OneOf(vec![one("7"), one("8")]),
            ),
            (vec![(header::IF_MATCH, "W/\"7\"")], Precondition::OneOf(vec![])),
            (vec![(header::IF_MATCH, "7")], Precondition::OneOf(vec![])),
        ] {
            assert_eq!(precondition(&headers(&written)).unwrap(), expected, "{written:?}");
        }
        for wrong in [
            vec![(header::IF_NONE_MATCH, "\"7\"")],
            vec![(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(precondition(&headers(&wrong)).unwrap_err().status, 400, "{wrong:?}");
        }
    }

    #[test]
    fn a_reader_says_what_he_has() {
        let has = |tags: &str| is_known(&headers(&[(header::IF_NONE_MATCH, tags)]), &"7".into());
        assert!(has("\"7\"") && has("\"6\", W/\"7\"") && has("*"));
        assert!(!has("\"6\"") && !has("7") && !is_known(&HeaderMap::new(), &"7".into()));
    }

    proptest! {
        #[test]
        fn every_version_comes_back_from_its_tag(version in any::<String>()) {
            let tag = etag(&Version::from(&*version)).unwrap();
            let headers: HeaderMap = [(header::IF_MATCH, tag)].into_iter().collect();
            let expected = Precondition::OneOf(vec![Version::from(&*version)]);
            prop_assert_eq!(precondition(&headers).unwrap(), expected);
        }
    }
}
