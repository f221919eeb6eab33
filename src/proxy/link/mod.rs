//! Links as a connection sees them: what one of its sides may be, how the near side opens one and how the far side accepts one.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::cluster::link::{LinkError, LinkStream};
use crate::model::ending::Ending;
use crate::reactor::Socket;
use crate::socket;

use super::refuse::Refused;
use super::relay::{Stream, has_something};

pub(super) mod far;
pub(super) mod inquiries;
pub(super) mod near;

/// One side of a connection.
#[derive(Debug)]
pub(super) enum Leg {
    /// A sidecar's own connection.
    Plain(Socket),
    /// A link to another gateway.
    Link(LinkStream),
    /// The gateway itself, which another one asks.
    Inside(DuplexStream),
    /// In the hands of a handshake, and gone if that fails without giving it back.
    Lent,
}

impl Leg {
    /// What it goes over.
    pub(super) fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Link(stream) => Some(stream.socket()),
            Self::Inside(_) | Self::Lent => None,
        }
    }

    fn lent() -> io::Error {
        ErrorKind::NotConnected.into()
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, into),
            Self::Link(stream) => Pin::new(stream).poll_read(context, into),
            Self::Inside(stream) => Pin::new(stream).poll_read(context, into),
            Self::Lent => Poll::Ready(Err(Self::lent())),
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, from),
            Self::Link(stream) => Pin::new(stream).poll_write(context, from),
            Self::Inside(stream) => Pin::new(stream).poll_write(context, from),
            Self::Lent => Poll::Ready(Err(Self::lent())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Link(stream) => Pin::new(stream).poll_flush(context),
            Self::Inside(stream) => Pin::new(stream).poll_flush(context),
            Self::Lent => Poll::Ready(Err(Self::lent())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Link(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Lent => Poll::Ready(Err(Self::lent())),
        }
    }
}

impl Stream for Leg {
    fn reset_on_close(&self) {
        // Fails only on a socket that is broken already.
        let _ = self.socket().map(socket::reset_on_close);
    }

    fn is_broken(&self) -> bool {
        // What is inside ends with its stream.
        !matches!(self, Self::Inside(_)) && self.socket().is_none_or(Socket::is_broken)
    }

    fn has_something(&self) -> bool {
        self.socket().is_none_or(has_something)
    }
}

/// A link that was not to be, for the log; the other side has been told what it can be told.
fn refused(error: &LinkError) -> Refused {
    let hint = match error {
        LinkError::Certificate(reason) => Some(reason.hint()),
        LinkError::NotConfigured(_)
        | LinkError::Name(_)
        | LinkError::Alert(_)
        | LinkError::Tls(_)
        | LinkError::NoLink
        | LinkError::Preamble(_)
        | LinkError::Reply(_)
        | LinkError::Refused(_)
        | LinkError::Broken(_) => None,
    };
    let refused = Refused::new(Ending::LinkRefused, error.to_string());
    Refused { hint: hint.or(refused.hint), ..refused }
}
