//! What the far gateway says on a link before the endpoint's bytes. rustls sends no alert of ours once a handshake is over, so
//! this is the only way to tell a refusal. `ARCHITECTURE.md` has it byte by byte. Pure and three-valued.

use std::fmt;
use std::sync::Arc;

/// Begins every reply.
const MAGIC: [u8; 6] = *b"STRAIT";
/// The one version there is. What a later one adds without a new number stands behind what this one reads.
const VERSION: u8 = 1;
/// Octets in front of the body: magic, version, status, length of the body.
const PREFIX: usize = 10;
/// Most octets of a whole reply.
pub const MAX_REPLY: usize = 512;
/// Most octets of a rule's name.
pub const MAX_RULE: usize = 255;

const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;
/// Flag of a refusal: another cluster may be tried.
const ANOTHER: u8 = 0x01;

/// What the far gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An endpoint is connected; its bytes follow.
    Accepted,
    /// Nothing follows.
    Refused(Refusal),
}

/// Why the far gateway does not carry the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// Whether the call may be tried at another cluster.
    pub another: bool,
    /// The name of the far side's rule that decided; empty where none did.
    pub rule: Arc<str>,
}

/// Why a link's call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The export does not admit the cluster, or not the app that it claims.
    Denied,
    /// No export of that name.
    UnknownName,
    /// No endpoint that could be tried.
    NoHealthyEndpoint,
    /// No endpoint that was tried could be connected.
    ConnectFailed,
    /// Over a limit.
    Overloaded,
    /// The far gateway stops.
    Draining,
    /// The preamble was wrong, or not there in time.
    BadPreamble,
    /// The certificate proves no cluster any more.
    Certificate,
    /// The far gateway's fault.
    Internal,
    /// One that a later version has.
    Other(u8),
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a reply; at least so many bytes are still to come. Whoever reads no more than that reads none of the
    /// endpoint's.
    NeedMore(usize),
    /// A whole reply in the first `length` bytes.
    Whole {
        /// What it says.
        reply: Reply,
        /// Its bytes.
        length: usize,
    },
    /// No reply, whatever may come.
    Wrong(ReplyError),
}

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// They do not begin as one.
    #[error("what the far gateway sends is no reply")]
    Magic,
    /// A version that is not known.
    #[error("the far gateway's reply has version {0}; 1 is known")]
    Version(u8),
    /// Neither accepted nor refused.
    #[error("the far gateway's reply has the unknown status {0}")]
    Status(u8),
    /// Longer than [`MAX_REPLY`].
    #[error("the far gateway's reply has {0} bytes; 512 are accepted")]
    TooLong(usize),
    /// A refusal that ends before it has said what it must.
    #[error("the far gateway's reply is garbled")]
    Body,
}

impl Code {
    /// Those that have a name.
    pub const KNOWN: [Self; 9] = [
        Self::Denied,
        Self::UnknownName,
        Self::NoHealthyEndpoint,
        Self::ConnectFailed,
        Self::Overloaded,
        Self::Draining,
        Self::BadPreamble,
        Self::Certificate,
        Self::Internal,
    ];

    /// The octet.
    pub fn number(self) -> u8 {
        match self {
            Self::Denied => 1,
            Self::UnknownName => 2,
            Self::NoHealthyEndpoint => 3,
            Self::ConnectFailed => 4,
            Self::Overloaded => 5,
            Self::Draining => 6,
            Self::BadPreamble => 7,
            Self::Certificate => 8,
            Self::Internal => 9,
            Self::Other(number) => number,
        }
    }

    fn of(number: u8) -> Self {
        let known = Self::KNOWN.into_iter().find(|code| code.number() == number);
        known.unwrap_or(Self::Other(number))
    }

    /// The name in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownName => "unknown_name",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::BadPreamble => "bad_preamble",
            Self::Certificate => "certificate",
            Self::Internal => "internal",
            Self::Other(_) => "other",
        }
    }

    /// Whether another cluster might take what this one refuses for that reason: not what an operator has decided, and not what
    /// would be wrong anywhere.
    pub fn another_may_do(self) -> bool {
        match self {
            Self::UnknownName
            | Self::NoHealthyEndpoint
            | Self::ConnectFailed
            | Self::Overloaded
            | Self::Draining
            | Self::Certificate
            | Self::Internal => true,
            Self::Denied | Self::BadPreamble | Self::Other(_) => false,
        }
    }
}

impl Refusal {
    /// A refusal for that reason, by that rule.
    pub fn new(code: Code, rule: impl Into<Arc<str>>) -> Self {
        Self { code, another: code.another_may_do(), rule: rule.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the far gateway refuses: ")?;
        if let Code::Other(number) = self.code {
            write!(out, "code {number}")?;
        } else {
            out.write_str(self.code.label())?;
        }
        // What it sent is shown as text only.
        if self.rule.is_empty() { Ok(()) } else { write!(out, " by {}", self.rule.escape_debug()) }
    }
}

/// Looks at the bytes received so far, all of them from the first.
pub fn parse(received: &[u8]) -> Progress {
    match read(received) {
        Ok(Some((reply, length))) => Progress::Whole { reply, length },
        Ok(None) => Progress::NeedMore(missing(received)),
        Err(error) => Progress::Wrong(error),
    }
}

/// The reply's bytes, at most [`MAX_REPLY`].
pub fn encode(reply: &Reply) -> Vec<u8> {
    let (status, body) = match reply {
        Reply::Accepted => (ACCEPTED, Vec::new()),
        Reply::Refused(refusal) => (REFUSED, body(refusal)),
    };
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&MAGIC[..], &[VERSION, status], &length.to_be_bytes(), &body].concat()
}

fn body(refusal: &Refusal) -> Vec<u8> {
    let Refusal { code, another, rule } = refusal;
    let rule = rule.get(..rule.floor_char_boundary(MAX_RULE)).unwrap_or_default();
    let length = u8::try_from(rule.len()).unwrap_or(u8::MAX);
    let flags = if *another { ANOTHER } else { 0 };
    [&[code.number(), flags, length][..], rule.as_bytes()].concat()
}

fn read(received: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    if received.iter().zip(&MAGIC).any(|(octet, expected)| octet != expected) {
        return Err(ReplyError::Magic);
    }
    if let Some(&version) = received.get(6).filter(|&&version| version != VERSION) {
        return Err(ReplyError::Version(version));
    }
    if let Some(&status) = received.get(7).filter(|&&status| status > REFUSED) {
        return Err(ReplyError::Status(status));
    }
    let Some(prefix) = received.first_chunk::<PREFIX>() else { return Ok(None) };
    let [.., status, high, low] = *prefix;
    let length = PREFIX + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REPLY {
        return Err(ReplyError::TooLong(length));
    }
    let Some(body) = received.get(PREFIX..length) else { return Ok(None) };
    let reply = if status == ACCEPTED { Reply::Accepted } else { Reply::Refused(refusal(body)?) };
    Ok(Some((reply, length)))
}

fn refusal(body: &[u8]) -> Result<Refusal, ReplyError> {
    let (&[code, flags, length], behind) = body.split_first_chunk().ok_or(ReplyError::Body)?;
    let rule = behind.get(..usize::from(length)).ok_or(ReplyError::Body)?;
    let rule = std::str::from_utf8(rule).map_err(|_| ReplyError::Body)?;
    Ok(Refusal { code: Code::of(code), another: flags & ANOTHER != 0, rule: rule.into() })
}

/// The reply tells its length in its first 10 bytes.
fn missing(received: &[u8]) -> usize {
    let length = received.get(PREFIX - 2..PREFIX).and_then(|length| length.try_into().ok());
    let whole =
        length.map_or(PREFIX, |length: [u8; 2]| PREFIX + usize::from(u16::from_be_bytes(length)));
    whole.saturating_sub(received.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(bytes: &[u8]) -> ReplyError {
        let Progress::Wrong(error) = parse(bytes) else { panic!("not refused: {bytes:?}") };
        error
    }

    /// What `ARCHITECTURE.md` says, octet by octet.
    #[test]
    fn the_bytes_are_as_specified() {
        assert_eq!(encode(&Reply::Accepted), b"STRAIT\x01\x00\x00\x00");
        let refusal = Refusal::new(Code::NoHealthyEndpoint, "shop/a");
        let bytes = encode(&Reply::Refused(refusal.clone()));
        assert_eq!(bytes, b"STRAIT\x01\x01\x00\x09\x03\x01\x06shop/a");
        assert_eq!(refusal.to_string(), "the far gateway refuses: no_healthy_endpoint by shop/a");
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let length = 10 + 3;
        let accepted = b"STRAIT\x01\x00\x00\x03abc";
        assert_eq!(parse(accepted), Progress::Whole { reply: Reply::Accepted, length });
        let refused = b"STRAIT\x01\x01\x00\x05\xc8\xfe\x01rX";
        let refusal = Refusal { code: Code::Other(200), another: false, rule: "r".into() };
        let reply = Reply::Refused(refusal);
        assert_eq!(parse(refused), Progress::Whole { reply, length: 15 });
    }

    #[test]
    fn what_is_no_reply_is_refused_at_once() {
        for (bytes, error) in [
            (&b"\x16"[..], ReplyError::Magic),
            (b"STRAIX", ReplyError::Magic),
            (b"STRAIT\x02", ReplyError::Version(2)),
            (b"STRAIT\x01\x02", ReplyError::Status(2)),
            (b"STRAIT\x01\x00\x01\xf7", ReplyError::TooLong(513)),
            (b"STRAIT\x01\x01\x00\x02\x01\x00", ReplyError::Body),
            (b"STRAIT\x01\x01\x00\x04\x01\x00\x02r", ReplyError::Body),
            (b"STRAIT\x01\x01\x00\x04\x01\x00\x01\xff", ReplyError::Body),
        ] {
            assert_eq!(wrong(bytes), error, "{bytes:?}");
            assert!(matches!(parse(&bytes[..bytes.len() - 1]), Progress::NeedMore(_)), "{bytes:?}");
        }
    }

    #[test]
    fn a_rule_s_name_is_cut_at_a_character_and_shown_as_text() {
        let refusal = Refusal::new(Code::Denied, "\u{1b}".to_owned() + &"é".repeat(200));
        let bytes = encode(&Reply::Refused(refusal));
        let Progress::Whole { reply: Reply::Refused(read), .. } = parse(&bytes) else {
            panic!("not read")
        };
        assert_eq!(read.rule.len(), 255);
        assert!(read.to_string().contains(" by \\u{1b}é"), "{read}");
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let refusal = (any::<u8>(), any::<bool>(), "\\PC{0,60}");
        let refusal = refusal.prop_map(|(code, another, rule)| {
            Reply::Refused(Refusal { code: Code::of(code), another, rule: rule.into() })
        });
        prop_oneof![Just(Reply::Accepted), refusal]
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_and_nothing_behind_it(reply in any_reply(), behind in prop::collection::vec(any::<u8>(), 0..20)) {
            let bytes = encode(&reply);
            let mut read = 0;
            while let Progress::NeedMore(missing) = parse(&bytes[..read]) {
                read += missing;
                prop_assert!(read <= bytes.len());
            }
            prop_assert_eq!(read, bytes.len());
            let whole = [&bytes[..], &behind].concat();
            prop_assert_eq!(parse(&whole), Progress::Whole { reply, length: bytes.len() });
        }

        #[test]
        fn any_bytes_get_an_answer_and_a_beginning_no_other(bytes in prop::collection::vec(any::<u8>(), 0..40), start in 0..3usize, cut in any::<prop::sample::Index>()) {
            let start = [&b""[..], &MAGIC, b"STRAIT\x01\x01\x00"][start];
            let bytes = [start, &bytes].concat();
            let (whole, beginning) = (parse(&bytes), parse(&bytes[..cut.index(bytes.len() + 1)]));
            match (&beginning, &whole) {
                (Progress::NeedMore(_), _) | (Progress::Wrong(_), Progress::Wrong(_)) => {}
                (Progress::Whole { .. } | Progress::Wrong(_), _) => prop_assert_eq!(&beginning, &whole),
            }
        }
    }
}
