//! Server names as TLS carries them (RFC 6066 §3) and as routes are written.
//!
//! A *canonical* name is ASCII in lower case without the trailing dot: names compare without case (RFC 4343 §3) and
//! `a.example.` and `a.example` are one host. Letters, digits, hyphen, underscore and dot are all that may stand in one; Dapr
//! puts underscores into names, DNS itself does not object (RFC 2181 §11).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest name in octets, without the trailing dot (RFC 1035 §2.3.4: 255 on the wire, two of them framing).
pub const MAX_NAME: usize = 253;
/// Longest name as it may be written: with the trailing dot.
pub const MAX_WRITTEN: usize = MAX_NAME + 1;
/// Longest label in octets (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;

/// Why bytes are no acceptable server name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("the name is longer than 253 octets")]
    TooLong,
    /// A label longer than [`MAX_LABEL`].
    #[error("a label of the name is longer than 63 octets")]
    LabelTooLong,
    /// Two dots in a row, or a dot in front.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A byte that no name has.
    #[error(
        "the name has the byte 0x{0:02x}; letters, digits, hyphen, underscore and dot are what a name may have"
    )]
    BadByte(u8),
    /// The last label is a number, so resolvers read the whole as an IPv4 address (RFC 6066 §3 forbids literals).
    #[error("the name is an IP address; a server name is a DNS name")]
    IpLiteral,
}

/// A canonical name on the stack: what the hello parser makes without allocating.
#[derive(Clone, Copy)]
pub struct CanonicalName {
    bytes: [u8; MAX_WRITTEN],
    length: usize,
}

impl CanonicalName {
    /// Checks a name as a client or an operator wrote it and brings it into canonical form.
    pub fn parse(written: &[u8]) -> Result<Self, NameError> {
        if written.len() > MAX_WRITTEN {
            return Err(NameError::TooLong);
        }
        let mut builder = NameBuilder::new();
        builder.push(written)?;
        builder.end().copied()
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        // Always holds: the builder lets only ASCII in.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The name's text in octets, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Makes a canonical name out of pieces as they come, each octet judged once and the first wrong one at once.
#[derive(Debug, Clone)]
pub struct NameBuilder {
    name: CanonicalName,
    /// Octets since the last dot.
    label: usize,
}

impl NameBuilder {
    /// Nothing pushed yet.
    pub const fn new() -> Self {
        Self { name: CanonicalName { bytes: [0; MAX_WRITTEN], length: 0 }, label: 0 }
    }

    /// Judges and takes the next octets. After an error the builder is of no more use.
    #[inline]
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), NameError> {
        while piece.len() >= BLOCK {
            // So many that no label can grow too long.
            let together = piece.len().min(MAX_LABEL - self.label);
            let Some((together, rest)) = piece.split_at_checked(together) else { break };
            if !self.push_together(together) {
                break;
            }
            piece = rest;
        }
        piece.iter().try_for_each(|&octet| self.push_one(octet))
    }

    /// Judges what only the end of a name tells, and gives the whole name.
    #[inline]
    pub fn end(&mut self) -> Result<&CanonicalName, NameError> {
        let written = self.name.as_bytes();
        let name = written.strip_suffix(b".").unwrap_or(written);
        let label = name.rsplit(|&octet| octet == b'.').next().unwrap_or_default();
        if label.is_empty() {
            return Err(NameError::Empty);
        }
        if is_number(label) {
            return Err(NameError::IpLiteral);
        }
        self.name.length = name.len();
        Ok(&self.name)
    }

    /// The name that [`end`](Self::end) has judged.
    #[inline]
    pub fn ended(&self) -> &CanonicalName {
        &self.name
    }

    #[inline]
    fn push_one(&mut self, octet: u8) -> Result<(), NameError> {
        let label = match octet {
            b'.' if self.label == 0 => return Err(NameError::EmptyLabel),
            b'.' => 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => self.label + 1,
            other => return Err(NameError::BadByte(other)),
        };
        if label > MAX_LABEL {
            return Err(NameError::LabelTooLong);
        }
        let length = self.name.length;
        // The last place is the trailing dot's.
        if length == MAX_NAME && label > 0 {
            return Err(NameError::TooLong);
        }
        *self.name.bytes.get_mut(length).ok_or(NameError::TooLong)? = octet.to_ascii_lowercase();
        self.name.length += 1;
        self.label = label;
        Ok(())
    }

    /// Takes [`BLOCK`] to [`MAX_LABEL`] octets, eight at a time, if nothing is wrong with them: no branch depends on where dots
    /// stand, which no predictor could know. Says false and takes none where octet by octet has more to say.
    #[inline]
    fn push_together(&mut self, octets: &[u8]) -> bool {
        let (start, count) = (self.name.length, octets.len());
        let room = self.name.bytes.get_mut(start..start + count);
        let (Some(room), Some(last)) = (room, octets.last_chunk()) else { return false };
        let (mut good, mut dots) = (HIGH_BITS, 0);
        let mut take = |at: usize, octets: &[u8; BLOCK], room: &mut [u8; BLOCK]| {
            let judged = Judged::new(u64::from_le_bytes(*octets));
            good &= judged.good;
            dots |= one_bit_each(judged.dots) << at;
            *room = judged.lower.to_le_bytes();
        };
        for (number, (octets, room)) in
            octets.as_chunks().0.iter().zip(room.as_chunks_mut().0).enumerate()
        {
            take(number * BLOCK, octets, room);
        }
        // What stands behind the last whole block, with some of that block once more.
        if let Some(room) = room.last_chunk_mut() {
            take(count - BLOCK, last, room);
        }
        let behind_dot = (dots << 1) | u64::from(self.label == 0);
        if good != HIGH_BITS || dots & behind_dot != 0 || start + count > MAX_NAME {
            return false;
        }
        self.name.length += count;
        let since_dot = dots.leading_zeros() as usize - (BITS - count);
        self.label = since_dot + if dots == 0 { self.label } else { 0 };
        true
    }
}

impl Default for NameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Octets that are judged at once.
const BLOCK: usize = 8;
/// Octets that have a bit each in a word: enough for a label.
const BITS: usize = 64;
/// The highest bit of each of eight octets.
const HIGH_BITS: u64 = every(0x80);

/// Eight octets, looked at together. The masks have the highest bit of each octet that they mean.
struct Judged {
    lower: u64,
    /// May stand in a name.
    good: u64,
    dots: u64,
}

impl Judged {
    #[inline]
    const fn new(octets: u64) -> Self {
        let ascii = octets & !HIGH_BITS;
        // The bit that makes letters small makes no letter of anything else.
        let letters = between(ascii | every(0x20), b'a', b'z');
        let dots = !differs(ascii, b'.');
        let rest = between(ascii, b'-', b'9') & differs(ascii, b'/') | !differs(ascii, b'_');
        Self {
            lower: octets | letters >> 2,
            good: (letters | rest) & !octets & HIGH_BITS,
            dots: dots & HIGH_BITS,
        }
    }
}

/// Eight times the same octet.
#[inline]
const fn every(octet: u8) -> u64 {
    u64::from_le_bytes([octet; BLOCK])
}

/// Marks each octet from `low` to `high`. All must be below 0x80: with at most 0x7f added, none carries into the next.
#[inline]
const fn between(octets: u64, low: u8, high: u8) -> u64 {
    (octets + every(0x80 - low)) & !(octets + every(0x7f - high)) & HIGH_BITS
}

/// Marks each octet that is another, with what else is in the highest bit; all must be below 0x80.
#[inline]
const fn differs(octets: u64, from: u8) -> u64 {
    (octets ^ every(from)) + every(0x7f)
}

/// One bit for each marked octet: the product moves the mark of octet `n` to bit `56 + n`, and no two sums meet.
#[inline]
const fn one_bit_each(marks: u64) -> u64 {
    (marks >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

impl fmt::Debug for CanonicalName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl PartialEq for CanonicalName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CanonicalName {}

/// Decimal or `0x` hexadecimal in the last label is how every spelling of an IPv4 address ends (WHATWG URL §3.5).
#[inline]
fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
        [b'0'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// A canonical name that is kept: in a route, in a table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name as it was written and brings it into canonical form.
    pub fn parse(written: &str) -> Result<Self, NameError> {
        CanonicalName::parse(written.as_bytes()).map(|name| Self(name.as_str().into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

/// What a route is written for: one name, or every name below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(Name),
    /// `*.suffix`: any name of one label or more before the suffix, never the suffix itself.
    Below(Name),
}

impl NamePattern {
    /// Reads `name` or `*.suffix`. A star anywhere else is a [`NameError::BadByte`].
    pub fn parse(written: &str) -> Result<Self, NameError> {
        match written.strip_prefix("*.") {
            Some(suffix) => Name::parse(suffix).map(Self::Below),
            None => Name::parse(written).map(Self::Exact),
        }
    }

    /// Whether a canonical name is one of those that this pattern stands for.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            Self::Below(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(out, "{name}"),
            Self::Below(suffix) => write!(out, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(written: &str) -> Result<String, NameError> {
        CanonicalName::parse(written.as_bytes()).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn case_and_one_trailing_dot_do_not_tell_names_apart() {
        assert_eq!(canonical("Checkout.Shop.MESH.example.").unwrap(), "checkout.shop.mesh.example");
        assert_eq!(canonical("a.example.."), Err(NameError::EmptyLabel));
    }

    #[test]
    fn limits_are_those_of_dns() {
        let longest = format!("{0}.{0}.{0}.{1}", "l".repeat(63), "m".repeat(61));
        assert_eq!(longest.len(), MAX_NAME);
        assert!(canonical(&longest).is_ok());
        assert!(canonical(&format!("{longest}.")).is_ok());
        assert_eq!(canonical(&format!("{longest}m")), Err(NameError::TooLong));
        assert_eq!(canonical(&"l".repeat(64)), Err(NameError::LabelTooLong));
    }

    #[test]
    fn nothing_but_a_dns_name_is_a_name() {
        for (written, error) in [
            ("", NameError::Empty),
            (".", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a b", NameError::BadByte(b' ')),
            ("*.a", NameError::BadByte(b'*')),
            ("::1", NameError::BadByte(b':')),
            ("[a]", NameError::BadByte(b'[')),
            ("127.0.0.1", NameError::IpLiteral),
            ("127.1", NameError::IpLiteral),
            ("0x7f000001", NameError::IpLiteral),
            ("2130706433", NameError::IpLiteral),
            ("a.0x", NameError::IpLiteral),
        ] {
            assert_eq!(canonical(written), Err(error), "{written:?}");
        }
        for written in ["under_score.example", "-a.b-", "0xg", "1password", "a.1b"] {
            assert!(canonical(written).is_ok(), "{written:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_wherever_it_stands() {
        for before in 0..20 {
            for after in 0..20 {
                let (before, after) = ("b".repeat(before), "A1_-".repeat(after));
                for octet in 0..=255u8 {
                    let written = [before.as_bytes(), &[octet], after.as_bytes()].concat();
                    let expected = match octet {
                        b'.' if before.is_empty() => Err(NameError::EmptyLabel),
                        b'0'..=b'9' if before.is_empty() && after.is_empty() => {
                            Err(NameError::IpLiteral)
                        }
                        b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Ok(()),
                        _ => Err(NameError::BadByte(octet)),
                    };
                    let found = CanonicalName::parse(&written).map(|_| ());
                    // A long last label decides before or after the octet does; it has a test of its own.
                    if found != Err(NameError::LabelTooLong) {
                        assert_eq!(found, expected, "{written:?}");
                    }
                }
            }
        }
    }

    /// The same rules octet by octet, as one would write them down.
    fn by_the_book(written: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(written).ok()?;
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        let good = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        let last = name.rsplit('.').next()?;
        let number = last.bytes().all(|octet| octet.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|hex| hex.bytes().all(|octet| octet.is_ascii_hexdigit()));
        (name.len() <= 253 && name.split('.').all(good) && !number).then_some(name)
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_name_as_the_whole(
            labels in prop::collection::vec("[a-zA-Z0-9_-]{1,20}|[a-z]{60,64}|0x[0-9a-f]{0,3}", 1..8),
            dot in any::<bool>(),
            spoil in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut written = labels.join(".").into_bytes();
            if dot {
                written.push(b'.');
            }
            if let Some((at, octet)) = spoil {
                let at = at.index(written.len());
                written[at] = octet;
            }
            let whole = CanonicalName::parse(&written);
            prop_assert_eq!(whole.map(|name| name.as_str().to_owned()).ok(), by_the_book(&written));
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(written.len() + 1)).collect();
            cuts.extend([0, written.len()]);
            cuts.sort_unstable();
            let mut builder = NameBuilder::new();
            let pushed = cuts.windows(2).try_for_each(|cut| builder.push(&written[cut[0]..cut[1]]));
            let pieces = pushed.and_then(|()| builder.end().copied());
            // Only the whole knows its length beforehand.
            if written.len() <= MAX_WRITTEN {
                prop_assert_eq!(pieces, whole);
            }
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below_it_only() {
        let pattern = NamePattern::parse("*.Wild.example").unwrap();
        assert_eq!(pattern.to_string(), "*.wild.example");
        assert!(pattern.covers("a.wild.example"));
        assert!(pattern.covers("a.b.wild.example"));
        assert!(!pattern.covers("wild.example"));
        assert!(!pattern.covers(".wild.example"));
        assert!(!pattern.covers("notwild.example"));
        assert_eq!(NamePattern::parse("a.*.example"), Err(NameError::BadByte(b'*')));
        assert_eq!(NamePattern::parse("*"), Err(NameError::BadByte(b'*')));
    }
}
