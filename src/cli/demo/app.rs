//! An app that is called: a server that says who it is, what it got, and from whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::DemoError;
use super::certificates::presented_id;

/// Longest question that an app reads, in bytes.
const QUESTION: u64 = 1024;

/// A caller that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whom an app takes a caller for that proves nothing.
pub(super) const UNPROVEN: &str = "somebody unproven";

/// An app of one cluster, running or stopped. Its address stays the same.
pub(super) struct App {
    /// `namespace/app`.
    pub(super) id: &'static str,
    /// Where it listens while it runs.
    pub(super) address: SocketAddr,
    cluster: &'static str,
    tls: Option<Arc<ServerConfig>>,
    running: Option<AbortOnDropHandle<()>>,
}

/// What an app says to a question: all that a caller needs to know that the right one has got it.
pub(super) struct Answer<'a> {
    /// `namespace/app`.
    pub(super) app: &'a str,
    /// Where it runs.
    pub(super) cluster: &'a str,
    /// What it was asked.
    pub(super) question: &'a str,
    /// By whom: the SPIFFE id that the caller has proven.
    pub(super) caller: &'a str,
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, cluster, question, caller } = self;
        write!(out, "{app} in {cluster} got {question} from {caller}")
    }
}

impl App {
    /// Starts an app at an address; port 0 takes a free one. Without `tls` it speaks none, as a sidecar without mTLS.
    pub(super) async fn start(
        id: &'static str,
        cluster: &'static str,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, DemoError> {
        let mut app = Self { id, address, cluster, tls, running: None };
        app.resume().await?;
        Ok(app)
    }

    /// Listens, again if it has been stopped.
    pub(super) async fn resume(&mut self) -> Result<(), DemoError> {
        let unusable = |source| DemoError::Address { address: self.address, source };
        let listener = TcpListener::bind(self.address).await.map_err(unusable)?;
        self.address = listener.local_addr().map_err(unusable)?;
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        let serving = serve(listener, acceptor, self.id, self.cluster);
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(serving)));
        Ok(())
    }

    /// Stops listening and drops every connection, as a crashed pod does.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // The listener is closed only when the task is gone; until then the kernel would still accept calls.
            let _ = running.await;
        }
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    app: &'static str,
    cluster: &'static str,
) {
    // The set ends with this function, and every connection with the set.
    let mut connections = JoinSet::new();
    loop {
        // A failed accept concerns a caller that has already gone.
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let acceptor = acceptor.clone();
        // An error concerns the caller, who sees it.
        connections.spawn(async move {
            match acceptor {
                Some(acceptor) => Box::pin(in_tls(stream, acceptor, app, cluster)).await,
                None => converse(stream, app, cluster, UNPROVEN).await,
            }
        });
    }
}

async fn in_tls(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    app: &str,
    cluster: &str,
) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let proven = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = proven.and_then(presented_id).unwrap_or_else(|| UNPROVEN.to_owned());
    converse(stream, app, cluster, &caller).await
}

/// An answer to each question, for as long as the caller keeps the connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    app: &str,
    cluster: &str,
    caller: &str,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut stream).take(QUESTION);
        let read = tokio::time::timeout(PATIENCE, bounded.read_line(&mut line)).await;
        if read.map_err(io::Error::from)?? == 0 {
            return stream.shutdown().await;
        }
        let answer = Answer { app, cluster, question: line.trim_end(), caller };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
        stream.flush().await?;
    }
}
