//! What a link's TLS reads from and writes to: a socket, and what goes before and is held back.
//!
//! TLS flushes each flight of a handshake, and writes each record by itself. Here a flight waits until something has to be read, so
//! that it is sent at once, and the last one of each side goes with what follows it: the near gateway's with the preamble, the far
//! one's, which is a ticket, with the reply.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::reactor::Socket;

/// Octets that are held back at most. A flight has a few KiB, and what follows the last one is a hello.
const MOST_HELD: usize = 64 << 10;

/// A socket with what was read from it before it was known to be a link's.
#[derive(Debug)]
pub(super) struct Wire {
    head: Bytes,
    /// Written and not sent.
    held: BytesMut,
    /// Flushes are those of the handshake: they send nothing.
    shakes_hands: bool,
    socket: Socket,
}

impl Wire {
    pub(super) fn new(head: Bytes, socket: Socket) -> Self {
        Self { head, held: BytesMut::new(), shakes_hands: true, socket }
    }

    /// From now on a flush sends what is held.
    pub(super) fn has_shaken_hands(&mut self) {
        self.shakes_hands = false;
    }

    /// The socket, once what is held is sent: the alert of a handshake that has failed.
    pub(super) async fn give_up(mut self) -> Socket {
        self.shakes_hands = false;
        // Whoever is gone cannot be told.
        let _ = self.flush().await;
        self.socket
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.held.advance(sent),
            }
        }
        // Given free: a link may live for hours.
        self.held = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Whether what is written now is to be held; if not, nothing is held any more.
    fn poll_holds(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.held.len() >= MOST_HELD {
            ready!(self.poll_send(context))?;
        }
        Poll::Ready(Ok(self.shakes_hands || !self.held.is_empty()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            if !self.held.is_empty() {
                // The other side waits for it.
                ready!(self.poll_send(context))?;
            }
            return Pin::new(&mut self.socket).poll_read(context, into);
        }
        let some = self.head.len().min(into.remaining());
        into.put_slice(self.head.get(..some).unwrap_or_default());
        self.head.advance(some);
        // As above.
        if self.head.is_empty() {
            self.head = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !ready!(self.poll_holds(context))? {
            return Pin::new(&mut self.socket).poll_write_vectored(context, from);
        }
        let before = self.held.len();
        for some in from {
            self.held.extend_from_slice(some);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shakes_hands {
            return Poll::Ready(Ok(()));
        }
        if !self.held.is_empty() {
            ready!(self.poll_send(context))?;
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// `close_notify` alone ends a direction of a link: a FIN behind it would have SNI routers on the way end both, which nginx does
    /// by default.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shakes_hands = false;
        self.poll_flush(context)
    }
}
