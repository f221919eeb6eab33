//! Who asks the gateway to do something, as far as that is known: what the log says of him.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// One who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Where from.
    pub from: From,
    /// What he has proven to hold; nothing where being on this machine is enough.
    pub by: Option<Proof>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// An address.
    Address(SocketAddr),
    /// A process of this machine, by a socket file.
    Process {
        /// Its user id, which the system tells.
        user: u32,
        /// Its process id; some systems do not tell it.
        process: Option<i32>,
    },
    /// The system does not say.
    Unknown,
}

/// What somebody has proven to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The bearer token of this name.
    Token(Arc<str>),
    /// A client certificate, by the name in it.
    Certificate(Arc<str>),
}

impl fmt::Display for Operator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            None => write!(out, "{}", self.from),
            Some(Proof::Token(name)) => write!(out, "token {name} from {}", self.from),
            Some(Proof::Certificate(name)) => write!(out, "certificate {name} from {}", self.from),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "{address}"),
            Self::Process { user, process: Some(process) } => {
                write!(out, "user {user} (process {process})")
            }
            Self::Process { user, process: None } => write!(out, "user {user}"),
            Self::Unknown => out.write_str("an unknown place"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_with_what_he_has_proven() {
        let process = From::Process { user: 1000, process: Some(7) };
        let at = From::Address("10.0.0.7:4000".parse().unwrap());
        for (from, by, told) in [
            (process, None, "user 1000 (process 7)"),
            (at, Some(Proof::Token("deploy".into())), "token deploy from 10.0.0.7:4000"),
            (at, Some(Proof::Certificate("ops".into())), "certificate ops from 10.0.0.7:4000"),
        ] {
            assert_eq!(Operator { from, by }.to_string(), told);
        }
    }
}
