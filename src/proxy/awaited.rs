//! From a connected endpoint to the first byte of its answer.
//!
//! Until then nothing has happened that could not happen elsewhere: the endpoint has got a hello, and a handshake that begins twice
//! is what TLS allows for. An endpoint that takes the hello and closes, or says nothing, has failed like one that refuses the
//! connect, and the next one gets the same hello.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::model::ending::Ending;
use crate::proxy_protocol::Addresses;
use crate::routing::endpoint::Endpoint;

use super::core::Core;
use super::dial::{Dial, Way};
use super::hello;
use super::refuse::Refused;
use super::relay::End;

/// What is held until the endpoint answers.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) dial: Dial,
    /// `None` for plain bytes: what answers late, or never, may be meant to.
    pub(super) onward: Option<Onward>,
}

/// What becomes of a hello that is not answered.
#[derive(Debug)]
pub(super) struct Onward {
    pub(super) core: Arc<Core>,
    /// Who is to answer. `None` at the end of a link: the gateway has answered, and the endpoint is the far side's to judge.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// How long the answer may take; zero for no limit.
    patience: Duration,
    /// Until when it has to be there, once the endpoint has got all that it needs for it.
    due: Option<Instant>,
    pub(super) way: Way,
    pub(super) announced: Option<Addresses>,
    /// What the endpoint has got, if there is another one that could get it.
    pub(super) said: Option<Said>,
    /// No other is tried after that.
    pub(super) until: Instant,
}

/// A hello as it was sent.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// `header` octets of our own, and what the client has sent.
    pub(super) bytes: Bytes,
    pub(super) header: usize,
}

impl Awaited {
    /// The first byte has come.
    pub(super) fn answered(self) {
        if let Some(endpoint) = self.onward.and_then(|onward| onward.endpoint) {
            endpoint.connected();
        }
    }

    /// The endpoint has ended the connection, or was silent for too long, and the client has not.
    pub(super) fn failed(&self) {
        if let Some(endpoint) = self.onward.as_ref().and_then(|onward| onward.endpoint.as_ref()) {
            endpoint.failed();
        }
    }

    /// Until when the answer has to be there.
    pub(super) fn due(&self) -> Option<Instant> {
        self.onward.as_ref().and_then(|onward| onward.due)
    }

    /// Whether an end that comes instead of the answer is the endpoint's failure.
    pub(super) fn is_failure(&self, end: End) -> bool {
        match end {
            End::ResetByEndpoint | End::Silent => self.onward.is_some(),
            End::Finished
            | End::ResetByClient
            | End::Idle
            | End::Quiet
            | End::Stopped
            | End::Fault => false,
        }
    }

    /// Whether the client is not to learn of such an end as it is: another endpoint may do, or else an alert tells.
    pub(super) fn decides(&self, end: End) -> bool {
        let others = self.onward.as_ref().is_some_and(|onward| onward.said.is_some());
        self.is_failure(end) && (others || end == End::Silent)
    }
}

impl Onward {
    pub(super) fn new(core: Arc<Core>, way: Way, announced: Option<Addresses>) -> Self {
        let limits = &way.settings.limits;
        let (patience, until) =
            (limits.first_byte_timeout, limits.first_byte_timeout + limits.connect_total);
        let until = Instant::now() + until;
        let (endpoint, due, said) = (None, None, None);
        Self { core, endpoint, patience, due, way, announced, said, until }
    }

    /// From now on the endpoint is waited for.
    pub(super) fn asked(&mut self) {
        self.due = (!self.patience.is_zero()).then(|| Instant::now() + self.patience);
    }

    /// What another endpoint may get, if this one has got no more than a hello. `sent` are the client's octets.
    pub(super) fn again(&mut self, sent: u64) -> Option<Vec<u8>> {
        let said = self.said.take()?;
        let hello = said.of_client();
        let all = u64::try_from(hello.len()) == Ok(sent);
        let may = all && Instant::now() < self.until && hello::is_hello_alone(hello);
        may.then(|| hello.to_vec())
    }
}

impl Said {
    /// What the client has sent.
    pub(super) fn of_client(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }
}

/// Why an endpoint that was connected was not it.
pub(super) fn unanswered(end: End, endpoint: &str) -> Refused {
    let what = match end {
        End::Silent => "no first byte within limits.firstByteTimeout",
        End::Finished
        | End::ResetByClient
        | End::ResetByEndpoint
        | End::Idle
        | End::Quiet
        | End::Stopped
        | End::Fault => "closed without an answer to the hello",
    };
    Refused::new(Ending::ConnectFailed, format!("{endpoint}: {what}"))
}
