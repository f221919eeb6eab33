//! The `ClientHello` (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2) of a TLS connection, read just far enough to know its server
//! name (RFC 6066 §3), and judged whole: no name leaves here before the hello's last byte has been seen and every length
//! in it found to agree with every other.
//!
//! A hello may come in any pieces: of the stream (a post-quantum hello has two TCP segments) and of records (RFC 8446 §5.1
//! lets a message spread over records of one byte each). So [`HelloParser`] is a small machine which takes each byte once
//! and keeps no copy but of the name and the random. What it decides depends on the bytes alone, never on how
//! they were cut, and it decides at the first byte that leaves no choice.
//!
//! A gateway passes bytes on, it does not speak TLS. What it need not judge is left to the endpoint: the record version's
//! minor byte, ciphers, and the bodies of all extensions but the server name (so ECH's outer name is the name). What
//! follows the hello is not looked at either.

mod error;
mod extensions;
mod judge;
mod message;

pub use error::{Field, HelloError, Spoken};
pub use extensions::{is_hello_alone, offers_only};

use crate::model::name::{CanonicalName, NameBuilder};

use judge::Step;

/// Reads one hello; made anew for each connection.
#[derive(Debug, Clone)]
pub struct HelloParser {
    /// Most raw bytes, record headers included.
    limit: usize,
    /// Raw bytes that are done with.
    position: usize,
    /// Those of them that are record headers.
    framing: usize,
    /// Bytes of the current record that are still to come.
    record_left: usize,
    /// Bytes of the whole message with its header; of the header alone while no more is known.
    message: usize,
    /// Bytes of the message that are still to come, as far as its length is known.
    message_left: usize,
    /// Bytes of the server name extension that are still to come.
    name_left: usize,
    step: Step,
    /// Bytes that the step still waits for.
    wanted: usize,
    /// The step's bytes so far, as a big-endian number.
    number: usize,
    named: bool,
    /// Whether the server name is left to the endpoint, as all other extensions are.
    nameless: bool,
    random: [u8; RANDOM],
    name: NameBuilder,
}

/// What the bytes so far are.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one match; a Box would allocate"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a hello.
    NeedMore,
    /// A whole hello, perhaps with more behind it.
    Hello(Hello),
    /// No hello, whatever may come.
    Wrong(HelloError),
}

/// What the gateway needs of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The one server name.
    pub name: CanonicalName,
    /// The client's random, by which a gateway recognises a hello that it sent itself.
    pub random: [u8; RANDOM],
}

/// Octets of the client's random (RFC 8446 §4.1.2).
const RANDOM: usize = 32;
/// Octets of a record's header (RFC 8446 §5.1).
const RECORD_HEADER: usize = 5;
/// Most octets in a record (RFC 8446 §5.1).
const LONGEST_RECORD: usize = 1 << 14;
/// Octets of a handshake message's header (RFC 8446 §4).
const MESSAGE_HEADER: usize = 4;
/// Content type of handshake records (RFC 8446 §5.1).
pub(in crate::proxy) const HANDSHAKE: u8 = 22;

impl HelloParser {
    /// Waits for a hello of at most `limit` raw bytes, record headers included (`limits.helloBytes`).
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            position: 0,
            framing: 0,
            record_left: 0,
            message: MESSAGE_HEADER,
            message_left: MESSAGE_HEADER,
            name_left: 0,
            step: Step::MessageType,
            wanted: 1,
            number: 0,
            named: false,
            nameless: false,
            random: [0; RANDOM],
            name: NameBuilder::new(),
        }
    }

    /// The same for a hello whose server name decides nothing: it need not have one, and may have any.
    pub const fn nameless(limit: usize) -> Self {
        let parser = Self::new(limit);
        Self { nameless: true, ..parser }
    }

    /// The random of a whole hello, `None` while more of it must come.
    pub fn advance_nameless(
        &mut self,
        received: &[u8],
    ) -> Result<Option<[u8; RANDOM]>, HelloError> {
        Ok(self.read(received)?.then_some(self.random))
    }

    /// Looks at the bytes received so far, all of them from the first, and goes on from where it stood. Not to be
    /// asked again once it has said anything but [`Progress::NeedMore`].
    #[inline]
    pub fn advance(&mut self, received: &[u8]) -> Progress {
        match self.read(received) {
            Ok(false) => Progress::NeedMore,
            Ok(true) => Progress::Hello(Hello { name: *self.name.ended(), random: self.random }),
            Err(error) => Progress::Wrong(error),
        }
    }

    /// Whether the hello is whole.
    fn read(&mut self, received: &[u8]) -> Result<bool, HelloError> {
        let mut input = received.get(self.position..).unwrap_or_default();
        while self.step != Step::Done {
            if self.record_left == 0 {
                let Some((&[HANDSHAKE, 3, _, high, low], rest)) = input.split_first_chunk() else {
                    self.judge_header(input)?;
                    break;
                };
                self.open_record(usize::from(u16::from_be_bytes([high, low])))?;
                input = rest;
            }
            let there = self.record_left.min(input.len());
            let Some((piece @ [_, ..], rest)) = input.split_at_checked(there) else { break };
            self.record_left -= there;
            input = rest;
            if self.wanted > there && self.step.is_passed_over() {
                self.wanted -= there;
                self.message_left -= there;
            } else {
                self.feed(piece)?;
            }
        }
        self.position = received.len() - input.len();
        Ok(self.step == Step::Done)
    }

    /// Judges a record header that is wrong or not whole: a plain text client need not wait for five bytes.
    fn judge_header(&self, start: &[u8]) -> Result<(), HelloError> {
        let first = self.framing == 0;
        match *start {
            [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => Ok(()),
            [HANDSHAKE, 0xfe, ..] if first => Err(HelloError::NotTls(Spoken::Dtls)),
            [HANDSHAKE, major, ..] => Err(HelloError::RecordVersion(major)),
            // The other content types of TLS (RFC 8446 §5.1, RFC 6520): no text begins with one.
            [other, ..] if !first || matches!(other, 20..=24) => {
                Err(HelloError::OtherRecord(other))
            }
            [..] => Err(HelloError::NotTls(Spoken::of(start))),
        }
    }

    fn open_record(&mut self, length: usize) -> Result<(), HelloError> {
        if length == 0 {
            return Err(HelloError::EmptyRecord);
        }
        if length > LONGEST_RECORD {
            return Err(HelloError::LongRecord(length));
        }
        self.framing += RECORD_HEADER;
        self.record_left = length;
        self.keep_limit()
    }

    /// The hello ends at this raw byte at the earliest, so there is no need to wait until that many are there.
    fn keep_limit(&self) -> Result<(), HelloError> {
        if self.framing + self.message > self.limit {
            Err(HelloError::OverLimit(self.limit))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ending::Ending;
    use crate::model::name::NameError;

    /// An extension with its length.
    fn extension(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[0, kind, 0, u8::try_from(body.len()).unwrap()], body].concat()
    }

    /// A server name extension with these entries.
    fn names(entries: &[(u8, &str)]) -> Vec<u8> {
        let entry = |&(kind, name): &(u8, &str)| {
            [&[kind, 0, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
        };
        let list: Vec<u8> = entries.iter().flat_map(entry).collect();
        extension(0, &[&[0, u8::try_from(list.len()).unwrap()], &list[..]].concat())
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = extensions.concat();
        let fixed = [&[3, 3][..], &[9; RANDOM], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
        let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        let body = [&fixed[..], &length, &extensions].concat();
        [&[1, 0][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let header = |part: &[u8]| {
            [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes()].concat()
        };
        message.chunks(size).flat_map(|part| [header(part), part.to_vec()].concat()).collect()
    }

    fn read(bytes: &[u8]) -> Progress {
        HelloParser::new(16 * 1024).advance(bytes)
    }

    fn wrong(bytes: &[u8]) -> HelloError {
        match read(bytes) {
            Progress::Wrong(error) => error,
            Progress::NeedMore | Progress::Hello(_) => panic!("accepted"),
        }
    }

    fn of(extensions: &[Vec<u8>]) -> HelloError {
        wrong(&records(&message(extensions), 16_384))
    }

    #[test]
    fn records_of_any_size_carry_the_same_hello() {
        let message =
            message(&[extension(5, b"12345"), names(&[(0, "A.example.")]), extension(6, b"")]);
        for size in 1..message.len() {
            let bytes = records(&message, size);
            let Progress::Hello(hello) = read(&bytes) else { panic!("records of {size}") };
            assert_eq!((hello.name.as_str(), hello.random), ("a.example", [9; RANDOM]));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Progress::NeedMore);
        }
    }

    #[test]
    fn one_name_and_no_more() {
        let name = names(&[(0, "a.example")]);
        assert_eq!(of(&[extension(5, b"")]), HelloError::NoName);
        assert_eq!(of(&[name.clone(), name]), HelloError::SecondExtension);
        assert_eq!(of(&[names(&[(0, "a"), (0, "b")])]), HelloError::SeveralNames);
        assert_eq!(of(&[names(&[(0, "a"), (1, "b")])]), HelloError::SeveralNames);
        assert_eq!(of(&[names(&[(1, "a.example")])]), HelloError::NameType(1));
        assert_eq!(of(&[names(&[(0, "")])]), HelloError::EmptyName);
        assert_eq!(of(&[names(&[])]), HelloError::EmptyName);
        assert_eq!(of(&[extension(0, b"")]), HelloError::EmptyName);
        assert_eq!(of(&[names(&[(0, "10.0.0.1")])]), HelloError::Name(NameError::IpLiteral));
    }

    #[test]
    fn every_length_must_agree() {
        let good =
            message(&[extension(5, b"12345"), names(&[(0, "a.example")]), extension(6, b"")]);
        let at = |field, index: usize, octet: u8| {
            let mut bad = good.clone();
            bad[index] = octet;
            assert_eq!(wrong(&records(&bad, 16_384)), HelloError::Length(field), "byte {index}");
            assert_eq!(
                wrong(&records(&bad, 1)),
                HelloError::Length(field),
                "byte {index} in small records"
            );
        };
        at(Field::Message, 3, 40);
        at(Field::SessionId, 38, 33);
        at(Field::CipherSuites, 40, 1);
        at(Field::CipherSuites, 40, 0);
        at(Field::CipherSuites, 39, 1);
        at(Field::Compression, 43, 0);
        at(Field::Compression, 43, 200);
        at(Field::Extensions, 46, good[46] - 1);
        at(Field::Extensions, 46, good[46] + 1);
        at(Field::Extension, 50, 200);
        at(Field::Extension, 59, 200);
        at(Field::NameList, 61, good[61] + 1);
        at(Field::Name, 64, good[64] + 1);
    }

    #[test]
    fn the_limit_counts_record_headers_and_is_kept_at_once() {
        let whole = records(&message(&[names(&[(0, "a.example")])]), 10);
        let exact = HelloParser::new(whole.len()).advance(&whole);
        assert!(matches!(exact, Progress::Hello(_)));
        let over = HelloParser::new(whole.len() - 1).advance(&whole);
        assert_eq!(over, Progress::Wrong(HelloError::OverLimit(whole.len() - 1)));
        assert_eq!(wrong(&[22, 3, 1, 0, 100, 1, 0, 64, 0]), HelloError::OverLimit(16 * 1024));
        assert_eq!(wrong(&[22, 3, 1, 0x40, 1]), HelloError::LongRecord(16_385));
    }

    #[test]
    fn the_first_impossible_byte_decides() {
        for (bytes, error) in [
            (&[21][..], HelloError::OtherRecord(21)),
            (&[22, 2], HelloError::RecordVersion(2)),
            (&[22, 0xfe], HelloError::NotTls(Spoken::Dtls)),
            (&[22, 3, 1, 0, 0], HelloError::EmptyRecord),
            (&[22, 3, 1, 0, 1, 2], HelloError::OtherMessage(2)),
            (&[22, 3, 1, 0, 1, 1, 20], HelloError::OtherRecord(20)),
            (&[22, 3, 1, 0, 9, 1, 0, 0, 100, 2], HelloError::Version(2)),
            (&[22, 3, 1, 0, 9, 1, 0, 0, 100, 3, 0], HelloError::Ssl3),
        ] {
            assert_eq!(wrong(bytes), error);
            assert_eq!(read(&bytes[..bytes.len() - 1]), Progress::NeedMore, "{error}");
        }
    }

    #[test]
    fn what_is_not_tls_is_named() {
        for (bytes, spoken) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Spoken::Http2),
            (b"POST / HTTP/1.1\r\n", Spoken::Http1),
            (b"PROXY TCP4 ", Spoken::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Spoken::ProxyHeader),
            (b"SSH-2.0-x", Spoken::Ssh),
            (b"\x80\x2e\x01\x03\x01", Spoken::Ssl2),
            (b"P", Spoken::Unknown),
        ] {
            let error = wrong(bytes);
            assert_eq!(error, HelloError::NotTls(spoken));
            assert_eq!((error.ending(), error.alert()), (Ending::NotTls, None));
        }
        assert!(HelloError::NotTls(Spoken::Http2).hint().unwrap().contains("without mTLS"));
        assert!(HelloError::NoName.hint().unwrap().contains("kubernetes"));
    }
}
