//! What the near gateway says on a link before the caller's bytes: a PROXY header of version 2 with TLVs of our own.
//! `ARCHITECTURE.md` has it byte by byte. Pure and three-valued.

use crate::model::app::AppId;
use crate::proxy_protocol::{self, Addresses, MAX_UNIQUE_ID, MAX_V2, PREFIX_V2, Parsed, UNIQUE_ID};

/// Version of what the TLVs mean: one octet.
const VERSION: u8 = 0xe0;
/// The caller app, `namespace/app`.
const APP: u8 = 0xe1;
/// The caller's trace context (W3C Trace Context §3.2, version 00).
const TRACEPARENT: u8 = 0xe2;
/// The caller's bytes are no TLS, or a service's, of which nothing is known.
const PLAIN: u8 = 0xe3;

/// The one version there is. What a later one adds without a new number stands in TLVs that this one passes over.
const ONE: u8 = 1;
/// Most octets of an app; a name that it stands in has at most 253.
const MAX_APP: usize = 255;
/// Octets of a `traceparent`: version, trace id, parent id and flags in hexadecimal with hyphens between.
const TRACEPARENT_LENGTH: usize = 55;

/// On whose behalf a link was opened. All of it is what the near cluster claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// The caller's address, and where it connected to.
    pub ends: Addresses,
    /// The connection's id at the near gateway, the same in both logs.
    pub unique_id: Vec<u8>,
    /// The caller app, where the near gateway knows it.
    pub app: Option<AppId>,
    /// The trace that the connection belongs to.
    pub traceparent: Option<Traceparent>,
    /// Whether the caller's bytes are no TLS, or may be none: none of them is sent before the link is accepted.
    pub plain: bool,
}

/// A `traceparent`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent([u8; TRACEPARENT_LENGTH]);

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a preamble; at least so many bytes are still to come. Whoever reads no more than that reads none of the
    /// caller's.
    NeedMore(usize),
    /// A whole preamble in the first `length` bytes.
    Whole {
        /// What it says.
        preamble: Box<Preamble>,
        /// Its bytes.
        length: usize,
    },
    /// No preamble, whatever may come.
    Wrong(PreambleError),
}

/// Why bytes are no acceptable preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// No PROXY header.
    #[error(transparent)]
    Header(#[from] proxy_protocol::ProxyError),
    /// A header of version 1, which has no TLVs, or one without TCP addresses.
    #[error("the link's PROXY header is not version 2 with the caller's addresses")]
    NoAddresses,
    /// No TLV that says the version, or a version that is not known.
    #[error("the link speaks another version")]
    Version,
    /// No unique id.
    #[error("the link's PROXY header has no unique id")]
    NoUniqueId,
    /// A TLV that is there twice.
    #[error("the link's PROXY header has two TLVs of type 0x{0:02x}")]
    Twice(u8),
    /// The caller app is none.
    #[error("the caller app is not namespace/app")]
    App,
    /// The TLV for plain bytes says something else than that they are.
    #[error("the TLV of type 0xe3 does not hold the octet 1")]
    Plain,
    /// The trace context is none.
    #[error("the trace context is not a traceparent of version 00")]
    Traceparent,
}

/// Looks at the bytes received so far, all of them from the first.
pub fn parse(received: &[u8]) -> Progress {
    // The line of version 1 has no TLVs: its first letter is one too many.
    if received.first() == Some(&b'P') {
        return Progress::Wrong(PreambleError::NoAddresses);
    }
    match proxy_protocol::parse(received) {
        Parsed::Header { header, length } => {
            let whole = received.get(..length).unwrap_or_default();
            match read(whole, header.addresses, header.unique_id) {
                Ok(preamble) => Progress::Whole { preamble: Box::new(preamble), length },
                Err(error) => Progress::Wrong(error),
            }
        }
        Parsed::NeedMore => Progress::NeedMore(missing(received)),
        Parsed::Wrong(error) => Progress::Wrong(error.into()),
    }
}

/// The preamble's bytes, at most 4 KiB.
pub fn encode(preamble: &Preamble) -> Vec<u8> {
    let Preamble { ends, unique_id, app, traceparent, plain } = preamble;
    let unique_id = unique_id.get(..MAX_UNIQUE_ID).unwrap_or(unique_id);
    let mut tlvs = vec![(UNIQUE_ID, unique_id), (VERSION, &[ONE][..])];
    // One that is too long for any name is not told: the far side then admits the caller only where it admits all of the cluster.
    let app = app.as_ref().map(AppId::label).filter(|app| app.len() <= MAX_APP);
    if let Some(app) = &app {
        tlvs.push((APP, app.as_bytes()));
    }
    if let Some(Traceparent(text)) = traceparent {
        tlvs.push((TRACEPARENT, text));
    }
    if *plain {
        tlvs.push((PLAIN, &[ONE]));
    }
    proxy_protocol::encode_with(ends.source, ends.destination, &tlvs)
}

/// The header tells its length in its first 16 bytes (§2.2).
fn missing(received: &[u8]) -> usize {
    let length = received.get(PREFIX_V2 - 2..PREFIX_V2).and_then(|length| length.try_into().ok());
    let whole = length
        .map_or(PREFIX_V2, |length: [u8; 2]| PREFIX_V2 + usize::from(u16::from_be_bytes(length)));
    whole.min(MAX_V2).saturating_sub(received.len()).max(1)
}

fn read(
    whole: &[u8],
    ends: Option<Addresses>,
    unique_id: Option<&[u8]>,
) -> Result<Preamble, PreambleError> {
    let ends = ends.ok_or(PreambleError::NoAddresses)?;
    let version = one(whole, VERSION)?.ok_or(PreambleError::Version)?;
    if version != [ONE] {
        return Err(PreambleError::Version);
    }
    let unique_id = unique_id.ok_or(PreambleError::NoUniqueId)?.to_vec();
    let app = one(whole, APP)?.map(app).transpose()?;
    let traceparent = one(whole, TRACEPARENT)?.map(Traceparent::parse).transpose()?;
    let plain = match one(whole, PLAIN)? {
        None => false,
        Some([ONE]) => true,
        Some(_) => return Err(PreambleError::Plain),
    };
    Ok(Preamble { ends, unique_id, app, traceparent, plain })
}

/// The value of a TLV that may be there once. Types that are not known are passed over.
fn one(whole: &[u8], kind: u8) -> Result<Option<&[u8]>, PreambleError> {
    let mut found = proxy_protocol::tlvs(whole).filter(|(found, _)| *found == kind);
    let first = found.next().map(|(_, value)| value);
    if found.next().is_some() { Err(PreambleError::Twice(kind)) } else { Ok(first) }
}

fn app(value: &[u8]) -> Result<AppId, PreambleError> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_APP);
    text.and_then(|text| AppId::parse(text).ok()).ok_or(PreambleError::App)
}

impl Traceparent {
    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`, lower-case hexadecimal, neither id all zeros (W3C Trace Context §3.2.2).
    pub fn parse(text: &[u8]) -> Result<Self, PreambleError> {
        let wrong = PreambleError::Traceparent;
        let text: [u8; TRACEPARENT_LENGTH] = text.try_into().map_err(|_| wrong)?;
        let mut parts = text.split(|&octet| octet == b'-');
        let mut part = |length| {
            let part = parts.next().filter(|part| part.len() == length)?;
            let hexadecimal = part.iter().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
            hexadecimal.then(|| part.iter().any(|&octet| octet != b'0'))
        };
        match (part(2), part(32), part(16), part(2)) {
            (Some(false), Some(true), Some(true), Some(_)) => Ok(Self(text)),
            _ => Err(wrong),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    const TRACE: &[u8; 55] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn address(written: &str) -> SocketAddr {
        written.parse().unwrap()
    }

    fn ends() -> Addresses {
        Addresses { source: address("192.0.2.1:1000"), destination: address("198.51.100.2:8443") }
    }

    fn with(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        proxy_protocol::encode_with(ends().source, ends().destination, tlvs)
    }

    fn wrong(bytes: &[u8]) -> PreambleError {
        let Progress::Wrong(error) = parse(bytes) else { panic!("not refused: {bytes:?}") };
        error
    }

    /// What `ARCHITECTURE.md` says, octet by octet.
    #[test]
    fn the_bytes_are_as_specified() {
        let preamble = Preamble {
            ends: ends(),
            unique_id: b"id".to_vec(),
            app: Some(AppId::parse("shop/a").unwrap()),
            traceparent: Some(Traceparent::parse(TRACE).unwrap()),
            plain: true,
        };
        let expected = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
            &[0, 92],
            &[192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 32, 251],
            &[0x05, 0, 2],
            b"id",
            &[0xe0, 0, 1, 1],
            &[0xe1, 0, 6],
            b"shop/a",
            &[0xe2, 0, 55],
            TRACE,
            &[0xe3, 0, 1, 1],
        ]
        .concat();
        assert_eq!(encode(&preamble), expected);
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let bytes =
            with(&[(0xe9, b"later"), (VERSION, &[1]), (0x04, b"padding"), (UNIQUE_ID, b"id")]);
        let Progress::Whole { preamble, length } = parse(&bytes) else { panic!("refused") };
        assert_eq!(length, bytes.len());
        assert_eq!(preamble.unique_id, b"id");
        assert_eq!((preamble.app, preamble.traceparent), (None, None));
    }

    #[test]
    fn what_says_otherwise_is_refused() {
        let id = (UNIQUE_ID, &b"id"[..]);
        let version = (VERSION, &[1][..]);
        for (tlvs, error) in [
            (vec![id], PreambleError::Version),
            (vec![id, (VERSION, &[2])], PreambleError::Version),
            (vec![id, (VERSION, &[1, 1])], PreambleError::Version),
            (vec![id, version, version], PreambleError::Twice(VERSION)),
            (vec![version], PreambleError::NoUniqueId),
            (vec![id, version, (APP, b"shop")], PreambleError::App),
            (vec![id, version, (APP, b"shop/\xff")], PreambleError::App),
            (vec![id, version, (APP, &[b'/'; 256])], PreambleError::App),
            (vec![id, version, (APP, b"a/b"), (APP, b"a/b")], PreambleError::Twice(APP)),
            (vec![id, version, (TRACEPARENT, b"00")], PreambleError::Traceparent),
            (vec![id, version, (PLAIN, &[0])], PreambleError::Plain),
        ] {
            assert_eq!(wrong(&with(&tlvs)), error, "{tlvs:?}");
        }
        assert_eq!(wrong(b"PROXY TCP4"), PreambleError::NoAddresses);
        assert_eq!(wrong(b"PROXY UNKNOWN\r\n"), PreambleError::NoAddresses);
        assert_eq!(wrong(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"), PreambleError::NoAddresses);
        assert!(matches!(wrong(b"\x16\x03"), PreambleError::Header(_)));
        assert!(matches!(wrong(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"), PreambleError::Header(_)));
    }

    #[test]
    fn a_trace_context_is_taken_literally() {
        for spoilt in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331001",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        ] {
            assert_eq!(Traceparent::parse(spoilt.as_bytes()), Err(PreambleError::Traceparent));
        }
        assert_eq!(Traceparent::parse(TRACE).unwrap().as_str().as_bytes(), TRACE);
    }

    fn any_preamble() -> impl Strategy<Value = Preamble> {
        let ends = any::<([u8; 4], u16, u16)>().prop_map(|(ip, from, to)| Addresses {
            source: (ip, from).into(),
            destination: ([10, 0, 0, 1], to).into(),
        });
        let app = prop::option::of("[a-z]{1,20}/[a-zA-Z0-9_.-]{1,60}");
        let app = app.prop_map(|app| app.map(|app| AppId::parse(&app).unwrap()));
        let unique_id = prop::collection::vec(any::<u8>(), 0..=MAX_UNIQUE_ID);
        let trace = prop::option::of("00-[1-9a-f]{32}-[1-9a-f]{16}-[0-9a-f]{2}");
        let trace =
            trace.prop_map(|text| text.map(|text| Traceparent::parse(text.as_bytes()).unwrap()));
        let parts = (ends, unique_id, app, trace, any::<bool>());
        parts.prop_map(|(ends, unique_id, app, traceparent, plain)| Preamble {
            ends,
            unique_id,
            app,
            traceparent,
            plain,
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_and_nothing_behind_it(preamble in any_preamble(), behind in prop::collection::vec(any::<u8>(), 0..20)) {
            let bytes = encode(&preamble);
            // Reading just what is asked for, as a link does, ends at the preamble's last byte.
            let mut read = 0;
            while let Progress::NeedMore(missing) = parse(&bytes[..read]) {
                read += missing;
                prop_assert!(read <= bytes.len());
            }
            prop_assert_eq!(read, bytes.len());
            let whole = [&bytes[..], &behind].concat();
            prop_assert_eq!(parse(&whole), Progress::Whole { preamble: Box::new(preamble), length: bytes.len() });
        }

        #[test]
        fn a_beginning_is_not_judged_otherwise_than_the_whole(
            preamble in any_preamble(),
            spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(&preamble);
            for (at, octet) in spoils {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
            let (whole, beginning) = (parse(&bytes), parse(&bytes[..cut.index(bytes.len() + 1)]));
            match (&beginning, &whole) {
                (Progress::NeedMore(_), _) | (Progress::Wrong(_), Progress::Wrong(_)) => {}
                (Progress::Whole { .. } | Progress::Wrong(_), _) => prop_assert_eq!(&beginning, &whole),
            }
        }
    }
}
