//! Why bytes are no acceptable hello: what the log says, what the client is told, what an operator may do.

use std::fmt;

use super::LONGEST_RECORD;
use crate::model::ending::{Alert, Ending};
use crate::model::name::NameError;

/// Why bytes are no acceptable hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloError {
    /// Not TLS at all. What it is instead is known as far as the bytes at hand tell.
    NotTls(Spoken),
    /// A record of this content type where only a handshake record may stand.
    OtherRecord(u8),
    /// A record whose version's major byte is this, not 3.
    RecordVersion(u8),
    /// A record without a byte, which no handshake message may be spread over (RFC 8446 §5.1).
    EmptyRecord,
    /// A record over 2^14 bytes (RFC 8446 §5.1).
    LongRecord(usize),
    /// More raw bytes than `limits.helloBytes`, which is given.
    OverLimit(usize),
    /// A handshake message of this type comes first.
    OtherMessage(u8),
    /// The hello's version has this major byte, not 3.
    Version(u8),
    /// SSL 3.0, which nobody may speak any more (RFC 7568).
    Ssl3,
    /// A length that does not agree with those around it.
    Length(Field),
    /// No server name extension.
    NoName,
    /// A server name extension without a name.
    EmptyName,
    /// A second server name extension (RFC 8446 §4.2).
    SecondExtension,
    /// More than one name in the extension (RFC 6066 §3).
    SeveralNames,
    /// A name of this type, not 0, `host_name`.
    NameType(u8),
    /// The server name is no name that a route can have.
    Name(NameError),
}

/// A part of the hello that has a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The handshake message.
    Message,
    /// `legacy_session_id`
    SessionId,
    /// `cipher_suites`
    CipherSuites,
    /// `legacy_compression_methods`
    Compression,
    /// `extensions`, all of them.
    Extensions,
    /// One extension.
    Extension,
    /// `server_name_list`
    NameList,
    /// The host name.
    Name,
}

/// What a peer speaks that does not speak TLS, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/2 without TLS, as a daprd without mTLS speaks it.
    Http2,
    /// HTTP/1 without TLS.
    Http1,
    /// A PROXY protocol header.
    ProxyHeader,
    /// SSH.
    Ssh,
    /// SSL 2.0, or a hello in its format.
    Ssl2,
    /// DTLS.
    Dtls,
    /// Anything else.
    Unknown,
}

impl Spoken {
    /// What speaks like this, going by as much as there is.
    pub(super) fn of(start: &[u8]) -> Self {
        const HTTP1: [&[u8]; 9] = [
            b"GET ",
            b"HEAD ",
            b"POST ",
            b"PUT ",
            b"DELETE ",
            b"CONNECT ",
            b"OPTIONS ",
            b"TRACE ",
            b"PATCH ",
        ];
        if start.starts_with(b"PRI ") {
            Self::Http2
        } else if HTTP1.iter().any(|method| start.starts_with(method)) {
            Self::Http1
        } else if start.starts_with(b"PROXY ") || start.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            Self::ProxyHeader
        } else if start.starts_with(b"SSH-") {
            Self::Ssh
        } else if matches!(start, [0x80..=0xff, _, 1, ..]) {
            Self::Ssl2
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Http2 => "plain HTTP/2",
            Self::Http1 => "plain HTTP",
            Self::ProxyHeader => "a PROXY protocol header",
            Self::Ssh => "SSH",
            Self::Ssl2 => "SSL 2.0",
            Self::Dtls => "DTLS",
            Self::Unknown => "something else",
        })
    }
}

impl HelloError {
    /// Bytes that do not begin as TLS does.
    pub(in crate::proxy) fn plain(start: &[u8]) -> Self {
        Self::NotTls(Spoken::of(start))
    }

    /// The ending of a connection that is refused for this.
    pub fn ending(self) -> Ending {
        match self {
            Self::NotTls(_) => Ending::NotTls,
            Self::NoName | Self::EmptyName => Ending::NoServerName,
            Self::OtherRecord(_)
            | Self::RecordVersion(_)
            | Self::EmptyRecord
            | Self::LongRecord(_)
            | Self::OverLimit(_)
            | Self::OtherMessage(_)
            | Self::Version(_)
            | Self::Ssl3
            | Self::Length(_)
            | Self::SecondExtension
            | Self::SeveralNames
            | Self::NameType(_)
            | Self::Name(_) => Ending::MalformedHello,
        }
    }

    /// What to tell the client (RFC 8446 §6.2); one that does not speak TLS would not understand any.
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::NotTls(_) => None,
            Self::OtherRecord(_) | Self::OtherMessage(_) => Some(Alert::UnexpectedMessage),
            Self::LongRecord(_) | Self::OverLimit(_) => Some(Alert::RecordOverflow),
            // RFC 7568 §3 asks for this one where SSL 3.0 is offered.
            Self::Version(_) | Self::Ssl3 => Some(Alert::ProtocolVersion),
            Self::RecordVersion(_) | Self::EmptyRecord | Self::Length(_) | Self::EmptyName => {
                Some(Alert::DecodeError)
            }
            Self::NoName => Some(Alert::MissingExtension),
            Self::SecondExtension | Self::SeveralNames | Self::NameType(_) => {
                Some(Alert::IllegalParameter)
            }
            Self::Name(_) => Some(Alert::UnrecognizedName),
        }
    }

    /// What an operator of Dapr may do about it, where there is something.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoName => Some(
                "a daprd whose name resolver is kubernetes (the default there) or mdns dials IP addresses and sends no name; \
                 let the callers resolve with nameformat, sqlite or consul to names",
            ),
            Self::NotTls(spoken) => spoken.hint(),
            Self::Name(NameError::IpLiteral) => Some(
                "let the callers resolve with nameformat, sqlite or consul to names, not to addresses",
            ),
            Self::OverLimit(_) => Some("limits.helloBytes is the limit"),
            Self::OtherRecord(_)
            | Self::RecordVersion(_)
            | Self::EmptyRecord
            | Self::LongRecord(_)
            | Self::OtherMessage(_)
            | Self::Version(_)
            | Self::Ssl3
            | Self::Length(_)
            | Self::EmptyName
            | Self::SecondExtension
            | Self::SeveralNames
            | Self::NameType(_)
            | Self::Name(
                NameError::Empty
                | NameError::TooLong
                | NameError::LabelTooLong
                | NameError::EmptyLabel
                | NameError::BadByte(_),
            ) => None,
        }
    }
}

impl Spoken {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Http2 => Some(
                "this sidecar runs without mTLS; switch it on for the caller (a sentry must run)",
            ),
            Self::Http1 => Some(
                "the gateway takes sidecars' mTLS only; an app calls through its own sidecar's HTTP port",
            ),
            Self::ProxyHeader => Some(
                "name the sender's network in this listener's proxyProtocol.from if it is to be believed",
            ),
            Self::Ssh | Self::Ssl2 | Self::Dtls | Self::Unknown => None,
        }
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls(spoken) => write!(out, "the client speaks {spoken}, not TLS"),
            Self::OtherRecord(kind) => {
                write!(
                    out,
                    "a record of type {kind} where the hello's records (type 22) must stand"
                )
            }
            Self::RecordVersion(major) => write!(out, "a record of major version {major}, not 3"),
            Self::EmptyRecord => out.write_str("an empty record within the hello"),
            Self::LongRecord(length) => {
                write!(out, "a record of {length} bytes, over {LONGEST_RECORD}")
            }
            Self::OverLimit(limit) => write!(out, "the hello is longer than {limit} bytes"),
            Self::OtherMessage(kind) => {
                write!(
                    out,
                    "a handshake message of type {kind} where the hello (type 1) must stand"
                )
            }
            Self::Version(major) => write!(out, "a hello of major version {major}, not 3"),
            Self::Ssl3 => out.write_str("a hello of SSL 3.0"),
            Self::Length(field) => write!(out, "the length of the hello's {field} is wrong"),
            Self::NoName => out.write_str("the hello has no server name"),
            Self::EmptyName => out.write_str("the hello's server name is empty"),
            Self::SecondExtension => out.write_str("the hello has two server name extensions"),
            Self::SeveralNames => out.write_str("the hello has several server names"),
            Self::NameType(kind) => {
                write!(out, "the server name is of type {kind}, not a host name")
            }
            Self::Name(error) => write!(out, "the server name is refused: {error}"),
        }
    }
}

impl std::error::Error for HelloError {}

impl fmt::Display for Field {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Message => "message",
            Self::SessionId => "session id",
            Self::CipherSuites => "cipher suites",
            Self::Compression => "compression methods",
            Self::Extensions => "extensions",
            Self::Extension => "extension",
            Self::NameList => "server name list",
            Self::Name => "server name",
        })
    }
}
