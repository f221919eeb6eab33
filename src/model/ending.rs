//! Why a connection ended: the closed list that labels, logs and hints share.

/// Why a connection ended. Each accepted connection has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Both sides finished by themselves.
    Completed,
    /// The client left before it had sent a whole hello; also a connection closed without a byte.
    ClientGone,
    /// The PROXY header that this listener demands is missing or wrong.
    BadProxyHeader,
    /// No whole hello within `limits.helloTimeout`.
    HelloTimeout,
    /// The first bytes are not TLS.
    NotTls,
    /// TLS, but no well-formed hello.
    MalformedHello,
    /// A hello without a server name.
    NoServerName,
    /// No route for the name.
    UnknownName,
    /// An imported app, but nobody knows which app calls: its address stands for none, or for more than one.
    UnknownCaller,
    /// A route, but its policy does not admit the client.
    Denied,
    /// The other cluster's gateway took the link, and then refused what was asked for over it.
    RefusedByFar,
    /// One side of a link did not accept the other: no link came to be.
    LinkRefused,
    /// A route, but no endpoint that could be tried.
    NoHealthyEndpoint,
    /// Every endpoint that was tried failed.
    ConnectFailed,
    /// The client reset the established connection.
    ResetByClient,
    /// The endpoint reset the established connection.
    ResetByEndpoint,
    /// No byte in either direction for `limits.idleTimeout`.
    IdleTimeout,
    /// Closed because the gateway stops.
    Drained,
    /// The egress address or the name that it came by was to be another app's.
    Revoked,
    /// Over a limit.
    Overloaded,
    /// This gateway is already dialling for the same hello: a route leads back to it.
    Loop,
    /// Our fault.
    Internal,
}

/// TLS alert descriptions that a refusal may carry (RFC 8446 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// A record of another kind than the handshake asks for.
    UnexpectedMessage = 10,
    /// The hello is over the limit.
    RecordOverflow = 22,
    /// A field of the hello has a value that it must not have.
    IllegalParameter = 47,
    /// A length in the hello lies.
    DecodeError = 50,
    /// The policy does not admit the client.
    AccessDenied = 49,
    /// A version that carries no server name.
    ProtocolVersion = 70,
    /// No endpoint, or our fault.
    InternalError = 80,
    /// No server name.
    MissingExtension = 109,
    /// No route for the name, or none that the client may know of.
    UnrecognizedName = 112,
}

impl Alert {
    /// The RFC's name of it.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnexpectedMessage => "unexpected_message",
            Self::RecordOverflow => "record_overflow",
            Self::IllegalParameter => "illegal_parameter",
            Self::DecodeError => "decode_error",
            Self::AccessDenied => "access_denied",
            Self::ProtocolVersion => "protocol_version",
            Self::InternalError => "internal_error",
            Self::MissingExtension => "missing_extension",
            Self::UnrecognizedName => "unrecognized_name",
        }
    }
}

impl Ending {
    /// Every ending, for metrics and documentation.
    pub const ALL: [Self; 22] = [
        Self::Completed,
        Self::ClientGone,
        Self::BadProxyHeader,
        Self::HelloTimeout,
        Self::NotTls,
        Self::MalformedHello,
        Self::NoServerName,
        Self::UnknownName,
        Self::UnknownCaller,
        Self::Denied,
        Self::RefusedByFar,
        Self::LinkRefused,
        Self::NoHealthyEndpoint,
        Self::ConnectFailed,
        Self::ResetByClient,
        Self::ResetByEndpoint,
        Self::IdleTimeout,
        Self::Drained,
        Self::Revoked,
        Self::Overloaded,
        Self::Loop,
        Self::Internal,
    ];

    /// The metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::HelloTimeout => "hello_timeout",
            Self::NotTls => "not_tls",
            Self::MalformedHello => "malformed_hello",
            Self::NoServerName => "no_server_name",
            Self::UnknownName => "unknown_name",
            Self::UnknownCaller => "unknown_caller",
            Self::Denied => "denied",
            Self::RefusedByFar => "refused_by_far",
            Self::LinkRefused => "link_refused",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::ResetByClient => "reset_by_client",
            Self::ResetByEndpoint => "reset_by_endpoint",
            Self::IdleTimeout => "idle_timeout",
            Self::Drained => "drained",
            Self::Revoked => "revoked",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::Internal => "internal",
        }
    }

    /// Whether the connection was refused: it never reached an endpoint.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::BadProxyHeader
            | Self::HelloTimeout
            | Self::NotTls
            | Self::MalformedHello
            | Self::NoServerName
            | Self::UnknownName
            | Self::UnknownCaller
            | Self::Denied
            | Self::RefusedByFar
            | Self::LinkRefused
            | Self::NoHealthyEndpoint
            | Self::ConnectFailed
            | Self::Overloaded
            | Self::Loop
            | Self::Internal => true,
            Self::Completed
            | Self::ClientGone
            | Self::ResetByClient
            | Self::ResetByEndpoint
            | Self::IdleTimeout
            | Self::Drained
            | Self::Revoked => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_ending_has_a_label_of_its_own() {
        let labels: HashSet<_> = Ending::ALL.iter().map(|ending| ending.label()).collect();
        assert_eq!(labels.len(), Ending::ALL.len());
        assert!(
            labels
                .iter()
                .all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        );
    }
}
