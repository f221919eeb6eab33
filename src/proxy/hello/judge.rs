//! The parts of a hello in their order, and what each of them must be: its number is judged and leads to the next part.

use crate::model::name::{MAX_WRITTEN, NameError};

use super::error::{Field, HelloError};
use super::{HelloParser, MESSAGE_HEADER, RANDOM};

/// The parts of a hello in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    MessageType,
    MessageLength,
    Major,
    Minor,
    Random,
    SessionIdLength,
    SessionId,
    CiphersLength,
    Ciphers,
    CompressionLength,
    Compression,
    ExtensionsLength,
    ExtensionType,
    ExtensionLength,
    Extension,
    NameExtensionLength,
    NameListLength,
    NameType,
    NameLength,
    Name,
    Done,
}

impl Step {
    /// Whether the bytes themselves do not matter.
    #[inline]
    pub(super) fn is_passed_over(self) -> bool {
        matches!(self, Self::SessionId | Self::Ciphers | Self::Compression | Self::Extension)
    }
}

/// Most octets of a session id (RFC 8446 §4.1.2).
const LONGEST_SESSION_ID: usize = 32;
/// What must follow a session id: one cipher suite and one compression method, each with its length.
const AFTER_SESSION_ID: usize = 6;
/// What must follow the cipher suites.
const AFTER_CIPHERS: usize = 2;
/// A hello has at least a version, a random, a session id's length and what must follow it.
const SHORTEST_MESSAGE: usize = 2 + RANDOM + 1 + AFTER_SESSION_ID;
/// Octets of an extension's type (RFC 8446 §4.2).
pub(super) const KIND: usize = 2;
/// Octets in front of an extension's body.
pub(super) const EXTENSION_HEADER: usize = 4;
/// A server name extension has at least two lengths, a name type and one octet of a name.
const SHORTEST_NAME_EXTENSION: usize = 6;
/// Handshake type of a `ClientHello` (RFC 8446 §4).
const CLIENT_HELLO: usize = 1;
/// Extension type of the server name (RFC 6066 §1.1).
pub(super) const SERVER_NAME: usize = 0;
/// Name type of a host name (RFC 6066 §3).
const HOST_NAME: usize = 0;

impl HelloParser {
    /// The step is complete: judges its number and goes to the next.
    #[inline]
    pub(super) fn enter_next(&mut self) -> Result<(), HelloError> {
        let number = std::mem::take(&mut self.number);
        match self.step {
            Step::MessageType => self.begin_message(number),
            Step::MessageLength => self.begin_body(number),
            Step::Major => self.judge_major(number),
            Step::Minor => self.judge_minor(number),
            Step::Random => self.go(Step::SessionIdLength, 1),
            Step::SessionIdLength => self.begin_session_id(number),
            Step::SessionId => self.go(Step::CiphersLength, 2),
            Step::CiphersLength => self.begin_ciphers(number),
            Step::Ciphers => self.go(Step::CompressionLength, 1),
            Step::CompressionLength => self.begin_compression(number),
            Step::Compression => self.end_compression(),
            Step::ExtensionsLength => self.begin_extensions(number),
            Step::ExtensionType => self.judge_extension_type(number),
            Step::ExtensionLength => self.begin_extension(number),
            Step::Extension => self.go(Step::ExtensionType, KIND),
            Step::NameExtensionLength => self.begin_name_extension(number),
            Step::NameListLength => self.begin_name_list(number),
            Step::NameType => self.judge_name_type(number),
            Step::NameLength => self.begin_name(number),
            Step::Name => self.end_name(),
            Step::Done => Ok(()),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "every way on has the same face")]
    fn go(&mut self, step: Step, wanted: usize) -> Result<(), HelloError> {
        self.step = step;
        self.wanted = wanted;
        Ok(())
    }

    pub(super) fn begin_message(&mut self, kind: usize) -> Result<(), HelloError> {
        match kind {
            CLIENT_HELLO => self.go(Step::MessageLength, 3),
            other => Err(HelloError::OtherMessage(low_octet(other))),
        }
    }

    pub(super) fn begin_body(&mut self, length: usize) -> Result<(), HelloError> {
        self.message = MESSAGE_HEADER + length;
        self.message_left = length;
        self.keep_limit()?;
        check(length >= SHORTEST_MESSAGE, Field::Message)?;
        self.go(Step::Major, 1)
    }

    pub(super) fn judge_major(&mut self, major: usize) -> Result<(), HelloError> {
        match major {
            3 => self.go(Step::Minor, 1),
            other => Err(HelloError::Version(low_octet(other))),
        }
    }

    pub(super) fn judge_minor(&mut self, minor: usize) -> Result<(), HelloError> {
        match minor {
            0 => Err(HelloError::Ssl3),
            _ => self.go(Step::Random, RANDOM),
        }
    }

    pub(super) fn begin_session_id(&mut self, length: usize) -> Result<(), HelloError> {
        let fits = length + AFTER_SESSION_ID <= self.message_left;
        check(length <= LONGEST_SESSION_ID && fits, Field::SessionId)?;
        self.go(Step::SessionId, length)
    }

    pub(super) fn begin_ciphers(&mut self, length: usize) -> Result<(), HelloError> {
        let fits = length + AFTER_CIPHERS <= self.message_left;
        check(length > 0 && length.is_multiple_of(2) && fits, Field::CipherSuites)?;
        self.go(Step::Ciphers, length)
    }

    pub(super) fn begin_compression(&mut self, length: usize) -> Result<(), HelloError> {
        check(length > 0 && length <= self.message_left, Field::Compression)?;
        // What follows is nothing or a length of two octets.
        check(length + 1 != self.message_left, Field::Extensions)?;
        self.go(Step::Compression, length)
    }

    pub(super) fn end_compression(&mut self) -> Result<(), HelloError> {
        match self.message_left {
            0 if self.nameless => self.go(Step::Done, 0),
            0 => Err(HelloError::NoName),
            _ => self.go(Step::ExtensionsLength, 2),
        }
    }

    pub(super) fn begin_extensions(&mut self, length: usize) -> Result<(), HelloError> {
        check(length == self.message_left, Field::Extensions)?;
        self.go(Step::ExtensionType, KIND)
    }

    /// Between two extensions; the last one ends where the message does.
    #[inline]
    pub(super) fn await_extension(&mut self) -> Result<(), HelloError> {
        match self.message_left {
            0 if self.named || self.nameless => self.go(Step::Done, 0),
            0 => Err(HelloError::NoName),
            left => check(left >= EXTENSION_HEADER, Field::Extension),
        }
    }

    pub(super) fn judge_extension_type(&mut self, kind: usize) -> Result<(), HelloError> {
        match kind {
            SERVER_NAME if self.nameless => self.go(Step::ExtensionLength, 2),
            SERVER_NAME if self.named => Err(HelloError::SecondExtension),
            SERVER_NAME => {
                self.named = true;
                self.go(Step::NameExtensionLength, 2)
            }
            _ => self.go(Step::ExtensionLength, 2),
        }
    }

    pub(super) fn begin_extension(&mut self, length: usize) -> Result<(), HelloError> {
        check(length <= self.message_left, Field::Extension)?;
        self.go(Step::Extension, length)
    }

    pub(super) fn begin_name_extension(&mut self, length: usize) -> Result<(), HelloError> {
        check(length <= self.message_left, Field::Extension)?;
        if length < SHORTEST_NAME_EXTENSION {
            return Err(HelloError::EmptyName);
        }
        self.name_left = length - 2;
        self.go(Step::NameListLength, 2)
    }

    pub(super) fn begin_name_list(&mut self, length: usize) -> Result<(), HelloError> {
        check(length == self.name_left, Field::NameList)?;
        self.name_left = length - 3;
        self.go(Step::NameType, 1)
    }

    pub(super) fn judge_name_type(&mut self, kind: usize) -> Result<(), HelloError> {
        match kind {
            HOST_NAME => self.go(Step::NameLength, 2),
            other => Err(HelloError::NameType(low_octet(other))),
        }
    }

    pub(super) fn begin_name(&mut self, length: usize) -> Result<(), HelloError> {
        check(length <= self.name_left, Field::Name)?;
        match length {
            0 => Err(HelloError::EmptyName),
            short if short < self.name_left => Err(HelloError::SeveralNames),
            long if long > MAX_WRITTEN => Err(HelloError::Name(NameError::TooLong)),
            _ => self.go(Step::Name, length),
        }
    }

    pub(super) fn end_name(&mut self) -> Result<(), HelloError> {
        self.name.end().map_err(HelloError::Name)?;
        self.go(Step::ExtensionType, KIND)
    }
}

#[inline]
fn check(agrees: bool, field: Field) -> Result<(), HelloError> {
    if agrees { Ok(()) } else { Err(HelloError::Length(field)) }
}

/// Of a number that was read from one octet, so nothing is lost.
fn low_octet(number: usize) -> u8 {
    number.to_le_bytes()[0]
}
