//! An app that is called: a TLS server that says who it is and what it got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::DemoError;
use super::certificates::presented_id;

/// Longest question that an app reads, in bytes.
const QUESTION: u64 = 1024;

/// A caller that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// An app of one cluster, running or stopped. Its address stays the same.
pub(super) struct App {
    /// `namespace/app`.
    pub(super) id: &'static str,
    /// Where it listens while it runs.
    pub(super) address: SocketAddr,
    cluster: &'static str,
    tls: Arc<ServerConfig>,
    running: Option<AbortOnDropHandle<()>>,
}

impl App {
    /// Starts an app at an address; port 0 takes a free one.
    pub(super) async fn start(
        id: &'static str,
        cluster: &'static str,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
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
        let who: Arc<str> = format!("{} in {}", self.id, self.cluster).into();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(serve(listener, acceptor, who))));
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

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, who: Arc<str>) {
    // The set ends with this function, and every connection with the set.
    let mut connections = JoinSet::new();
    loop {
        // A failed accept concerns a caller that has already gone.
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let answering = answer(stream, acceptor.clone(), Arc::clone(&who));
        connections.spawn(tokio::time::timeout(PATIENCE, answering));
    }
}

/// One question, one answer. An error concerns the caller, who sees it.
async fn answer(stream: TcpStream, acceptor: TlsAcceptor, who: Arc<str>) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let caller = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = caller.and_then(presented_id).unwrap_or_else(|| "nobody known".to_owned());
    let mut question = String::new();
    BufReader::new((&mut stream).take(QUESTION)).read_line(&mut question).await?;
    let answer = format!("{who} got: {} from {caller}\n", question.trim_end());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
