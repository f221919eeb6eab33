//! A link: opened by the near gateway, accepted by the far one, and then a stream of the caller's bytes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CommonState, Error, HandshakeKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::reactor::Socket;

use super::identity::Reason;
use super::preamble::{self, Preamble, PreambleError};
use super::reply::{self, Code, Refusal, Reply, ReplyError};
use super::trust::Role;
use super::wire::Wire;
use super::{ALPN, Links};

type Certificate = CertificateDer<'static>;

/// An open link. Its end is told: a `close_notify` for the end of one direction, and nothing at all, or a reset, for a connection
/// that broke.
pub struct LinkStream(Box<TlsStream<Wire>>);

/// A link that has come, with what was said on it so far.
#[derive(Debug)]
pub struct Arrived {
    /// Waits for a reply.
    pub stream: LinkStream,
    /// Whose it is: proven by certificate.
    pub cluster: Arc<str>,
    /// What that cluster claims.
    pub preamble: Preamble,
}

/// A link that was not accepted.
#[derive(Debug)]
pub struct Unaccepted {
    /// Why.
    pub error: LinkError,
    /// The other side has been told, if it can be. What it still sends is not to be answered with a reset, which could overtake
    /// that.
    pub socket: Socket,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such cluster is configured.
    #[error("no cluster {0} is configured")]
    NotConfigured(Arc<str>),
    /// A name that no `ClientHello` can carry.
    #[error("{0} is no server name")]
    Name(Arc<str>),
    /// The other gateway's certificate proves nothing that is of use.
    #[error("{0}")]
    Certificate(Reason),
    /// The other side did not accept our certificate, or something else of our handshake.
    #[error("the other side ends the handshake with the alert {0:?}")]
    Alert(AlertDescription),
    /// What the other side speaks is not TLS as a link has it.
    #[error("the TLS handshake fails: {0}")]
    Tls(Error),
    /// TLS, but not for a link.
    #[error(
        "the other side does not speak strait/1: what answers there is no gateway, or does not export the name"
    )]
    NoLink,
    /// What comes first is no preamble.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// What comes first is no reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The far gateway does not carry the call.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection broke.
    #[error("the connection to the other gateway broke: {0}")]
    Broken(#[from] io::Error),
}

impl LinkError {
    /// The log field and metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Certificate(reason) => reason.label(),
            Self::NotConfigured(_) => "not_configured",
            Self::Name(_) => "name",
            Self::Alert(_) => "alert",
            Self::Tls(_) => "tls",
            Self::NoLink => "no_link",
            Self::Preamble(_) => "preamble",
            Self::Reply(_) => "reply",
            Self::Refused(_) => "refused",
            Self::Broken(_) => "broken",
        }
    }

    /// What hides in an error of the TLS stream.
    fn of(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match tls {
            None => Self::Broken(error),
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Self::NoLink,
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(tls) => match Reason::of_tls(tls) {
                Some(reason) => Self::Certificate(reason),
                None => Self::Tls(tls.clone()),
            },
        }
    }
}

impl Links {
    /// Opens a link to a gateway of `cluster`, for the app that it knows as `name`: a handshake, and no more. Time is its caller's
    /// to limit.
    pub async fn open(
        &self,
        socket: Socket,
        cluster: &Arc<str>,
        name: &str,
    ) -> Result<LinkStream, LinkError> {
        let unknown = || LinkError::NotConfigured(Arc::clone(cluster));
        let near = self.near.get(cluster).ok_or_else(unknown)?;
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| LinkError::Name(name.into()))?;
        let connector = TlsConnector::from(Arc::clone(&near.config));
        let connecting = connector.connect(server, Wire::new(Bytes::new(), socket)).into_fallible();
        // On the heap, as the stream is: whoever waits for a link does not keep the room of a handshake.
        let connected = Box::pin(connecting).await.map(|stream| LinkStream::new(stream.into()));
        let stream = match connected {
            Ok(stream) => stream,
            Err((error, wire)) => {
                wire.give_up().await;
                return Err(LinkError::of(error));
            }
        };
        stream.must_be_link()?;
        // A resumed session has verified nothing, and what it was made with may have expired since.
        let (end, rest) = stream.certificates().map_err(LinkError::Certificate)?;
        near.expected.judge(end, rest, UnixTime::now()).map_err(LinkError::Certificate)?;
        Ok(stream)
    }

    /// Accepts a link from which `received` was read already, up to the end of its preamble. Time is its caller's to limit.
    pub async fn accept(&self, socket: Socket, received: Bytes) -> Result<Arrived, Unaccepted> {
        let wire = Wire::new(received, socket);
        let accepting = TlsAcceptor::from(Arc::clone(&self.far)).accept(wire).into_fallible();
        let accepted = Box::pin(accepting).await.map(|stream| LinkStream::new(stream.into()));
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err((error, wire)) => {
                let (error, socket) = (LinkError::of(error), wire.give_up().await);
                return Err(Unaccepted { error, socket });
            }
        };
        let introduced = match self.proven(&stream) {
            Ok(cluster) => stream.preamble().await.map(|preamble| (cluster, preamble)),
            Err(error) => Err(error),
        };
        match introduced {
            Ok((cluster, preamble)) => Ok(Arrived { stream, cluster, preamble }),
            Err(error) => Err(stream.unaccepted(error).await),
        }
    }

    /// Whose link it is; asked of a resumed session too, which has verified nothing.
    fn proven(&self, stream: &LinkStream) -> Result<Arc<str>, LinkError> {
        stream.must_be_link()?;
        let proven = stream
            .certificates()
            .and_then(|(end, rest)| self.trust.prove(Role::Client, end, rest, UnixTime::now()));
        proven.map_err(LinkError::Certificate)
    }
}

impl LinkStream {
    /// After the handshake, of which the end may not have been sent: it goes with what comes next.
    fn new(mut stream: TlsStream<Wire>) -> Self {
        stream.get_mut().0.has_shaken_hands();
        Self(Box::new(stream))
    }

    /// Sends `first`, the preamble and what the caller has said so far, and waits for the far side's word. Time is its caller's
    /// to limit.
    pub async fn ask(&mut self, first: &[u8]) -> Result<(), LinkError> {
        self.write_all(first).await.map_err(LinkError::of)?;
        self.flush().await.map_err(LinkError::of)?;
        match self.reply().await? {
            Reply::Accepted => Ok(()),
            Reply::Refused(refusal) => Err(LinkError::Refused(refusal)),
        }
    }

    /// Tells the near gateway that an endpoint is connected: from now on the bytes are the endpoint's.
    pub async fn accept(&mut self) -> io::Result<()> {
        self.write_all(&reply::encode(&Reply::Accepted)).await?;
        self.flush().await
    }

    /// Tells the near gateway why it is not, and ends the link. The socket is left to be read until the other side is done.
    pub async fn refuse(mut self, refusal: Refusal) -> Socket {
        // Whoever is gone cannot be told.
        if self.write_all(&reply::encode(&Reply::Refused(refusal))).await.is_ok() {
            let _ = self.shutdown().await;
        }
        match *self.0 {
            TlsStream::Client(stream) => stream.into_inner().0.into_socket(),
            TlsStream::Server(stream) => stream.into_inner().0.into_socket(),
        }
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.session().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What the link goes over.
    pub fn socket(&self) -> &Socket {
        self.0.get_ref().0.socket()
    }

    pub(super) fn session(&self) -> &CommonState {
        self.0.get_ref().1
    }

    /// What the other side has shown, in this handshake or in the one that is resumed: its own certificate and the chain behind.
    pub(super) fn certificates(&self) -> Result<(&Certificate, &[Certificate]), Reason> {
        let shown = self.session().peer_certificates().unwrap_or_default();
        shown.split_first().ok_or(Reason::NoCertificate)
    }

    fn must_be_link(&self) -> Result<(), LinkError> {
        if self.session().alpn_protocol() == Some(ALPN) { Ok(()) } else { Err(LinkError::NoLink) }
    }

    async fn unaccepted(self, error: LinkError) -> Unaccepted {
        let code = match error {
            LinkError::Certificate(_) => Code::Certificate,
            LinkError::NotConfigured(_)
            | LinkError::Name(_)
            | LinkError::Alert(_)
            | LinkError::Tls(_)
            | LinkError::NoLink
            | LinkError::Preamble(_)
            | LinkError::Reply(_)
            | LinkError::Refused(_)
            | LinkError::Broken(_) => Code::BadPreamble,
        };
        Unaccepted { error, socket: self.refuse(Refusal::new(code, "")).await }
    }

    async fn preamble(&mut self) -> Result<Preamble, LinkError> {
        let mut received = Vec::new();
        loop {
            match preamble::parse(&received) {
                preamble::Progress::NeedMore(missing) => self.more(&mut received, missing).await?,
                preamble::Progress::Whole { preamble, .. } => return Ok(*preamble),
                preamble::Progress::Wrong(error) => return Err(error.into()),
            }
        }
    }

    async fn reply(&mut self) -> Result<Reply, LinkError> {
        let mut received = Vec::new();
        loop {
            match reply::parse(&received) {
                reply::Progress::NeedMore(missing) => self.more(&mut received, missing).await?,
                reply::Progress::Whole { reply, .. } => return Ok(reply),
                reply::Progress::Wrong(error) => return Err(error.into()),
            }
        }
    }

    /// Reads at most so many bytes: what follows a header is not ours. What comes is judged at once, however little it is.
    async fn more(&mut self, received: &mut Vec<u8>, missing: usize) -> Result<(), LinkError> {
        let read = (&mut *self).take(missing as u64).read_buf(received).await;
        match read.map_err(LinkError::of)? {
            0 => Err(LinkError::Broken(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for LinkStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("LinkStream").field(self.socket()).finish()
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, into)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}
