//! HTTP/1.1 for a handful of clients, some of them slow or hostile.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::model::operator::From;

use super::access::{CurrentAccess, Peer};
use super::listener::{AdminListener, Bound, SocketFile};
use super::tls::{self, Tls};

/// Open connections of one listener. Some scrapers, probes and operators need a few of them.
pub(super) const MOST_CONNECTIONS: usize = 64;
/// From the connection, or the last response, to the end of the next request's header. Over a minute, so that the connection
/// of a scraper with the usual interval lives on.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Of a request's header; the smallest that hyper takes.
const HEADER_BYTES: usize = 8 * 1024;
/// From the connection to the end of its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers that are on their way when the gateway stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// After an accept that failed for want of descriptors or memory, which the next one would too.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled.
pub(super) async fn serve(
    listener: AdminListener,
    router: Router,
    access: CurrentAccess,
    stop: CancellationToken,
) -> io::Result<()> {
    let acceptor = Acceptor::from(listener)?;
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(stream) => open.serve(stream, &router, access.load().tls.clone()),
            Err(error) => {
                warn!(%error, "the admin listener could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(acceptor);
    open.finish().await;
    Ok(())
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file on drop")] SocketFile),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Acceptor {
    fn from(listener: AdminListener) -> io::Result<Self> {
        match listener.0 {
            Bound::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Bound::Unix(listener, file) => {
                UnixListener::from_std(listener).map(|listener| Self::Unix(listener, file))
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| Stream::Unix(stream))
            }
        }
    }
}

/// Open connections, oldest first.
#[derive(Default)]
struct Open {
    tasks: TaskTracker,
    /// Closes a connection at once when it is cancelled; dropped by the connection when it ends.
    closers: VecDeque<CancellationToken>,
    finish: CancellationToken,
}

impl Open {
    /// A new connection is always served. At the limit the oldest one gives way: whoever holds connections open and does not read
    /// cannot keep a probe out, and one that is answered lives far too short to become the oldest.
    fn serve(&mut self, stream: Stream, router: &Router, tls: Option<Tls>) {
        // A connection that has ended has cancelled its own closer.
        self.closers.retain(|closer| !closer.is_cancelled());
        if self.closers.len() >= MOST_CONNECTIONS
            && let Some(oldest) = self.closers.pop_front()
        {
            oldest.cancel();
        }
        let closer = CancellationToken::new();
        self.closers.push_back(closer.clone());
        self.tasks.spawn(connection(stream, tls, router.clone(), closer, self.finish.clone()));
    }

    async fn finish(self) {
        self.finish.cancel();
        self.tasks.close();
        // Nobody waits for the rest: the process ends.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.tasks.wait()).await;
        for closer in self.closers {
            closer.cancel();
        }
    }
}

async fn connection(
    stream: Stream,
    tls: Option<Tls>,
    router: Router,
    closer: CancellationToken,
    finish: CancellationToken,
) {
    let _ended = closer.clone().drop_guard();
    let from = stream.from();
    let peer = Peer { from, certificate: None };
    match (stream, tls) {
        (Stream::Unix(stream), _) => exchange(stream, peer, router, closer, finish).await,
        (Stream::Tcp(stream), None) => exchange(stream, peer, router, closer, finish).await,
        (Stream::Tcp(stream), Some(tls)) => {
            let handshake =
                timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.config()).accept(stream));
            match closer.run_until_cancelled(handshake).await {
                Some(Ok(Ok(stream))) => {
                    let name = tls::client(stream.get_ref().1);
                    let peer = Peer { from, certificate: name.map(|name| (name, tls)) };
                    exchange(stream, peer, router, closer, finish).await;
                }
                Some(Ok(Err(error))) => debug!(%from, %error, "an admin client and TLS"),
                Some(Err(_)) | None => {
                    debug!(%from, "an admin client has not ended its TLS handshake");
                }
            }
        }
    }
}

impl Stream {
    fn from(&self) -> From {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(From::Unknown, From::Address),
            Self::Unix(stream) => stream.peer_cred().map_or(From::Unknown, |peer| From::Process {
                user: peer.uid(),
                process: peer.pid(),
            }),
        }
    }
}

/// Requests and answers, until one side has enough.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    closer: CancellationToken,
    finish: CancellationToken,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = closer.cancelled() => Ok(()),
        () = finish.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "an admin connection failed");
    }
}
