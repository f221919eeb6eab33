//! An app that calls: it dials from its own address, in one of the ways in which sidecars do, and keeps its connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::model::ending::Alert;

use super::app::{Answer, UNPROVEN};
use super::certificates::spiffe_id;
use super::tally::Verdict;

/// An attempt that takes longer has failed: over the gateway's own bound for dialling (`limits.connectTotal`, 3 s), so that its
/// answer comes first.
const PATIENCE: Duration = Duration::from_secs(10);

/// A sidecar tries a call that failed so many times again,
pub(super) const RETRIES: u32 = 3;
/// each time after this long: Dapr's resiliency for calls between apps, as it is unless configured.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The alerts that callers of the demo get.
const ALERTS: [(AlertDescription, Alert); 3] = [
    (AlertDescription::AccessDenied, Alert::AccessDenied),
    (AlertDescription::UnrecognisedName, Alert::UnrecognizedName),
    (AlertDescription::InternalError, Alert::InternalError),
];

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// `namespace/app`.
    pub(super) id: &'static str,
    /// The cluster that it runs in, if it is one of the demo's.
    pub(super) cluster: Option<&'static str>,
    /// The address that it calls from.
    pub(super) source: Ipv4Addr,
}

/// A caller, the app that it wants, and how it gets there.
#[derive(Clone)]
pub(super) struct Line {
    /// Who calls.
    pub(super) caller: Caller,
    /// Whom, `namespace/app`.
    pub(super) app: &'static str,
    /// How it dials.
    pub(super) way: Way,
    /// `None` for a sidecar without mTLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// What a sidecar's name resolver gives it.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// A name, which it sends as SNI, and a gateway's address.
    Name(String, SocketAddr),
    /// An address alone.
    Address(SocketAddr),
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The wanted app got it, in this cluster.
    Arrived(String),
    /// With a TLS alert.
    Refused(String),
    /// Neither: no connection, no answer in time.
    Failed(String),
    /// Another app answered, or to another question: what must never happen.
    Misdelivered(String),
}

/// How a call should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// At the app that is wanted, in whichever cluster.
    Arrives,
    /// With this alert.
    Refused(&'static str),
}

/// A call that was made.
#[derive(Debug)]
pub(super) struct Call {
    /// How it ended, after the last attempt.
    pub(super) outcome: Outcome,
    /// When it began.
    pub(super) began: Instant,
    /// How long it took, with its repetitions.
    pub(super) took: Duration,
    /// How often it was repeated.
    pub(super) repeated: u32,
    /// Whether it needed a new connection.
    pub(super) anew: bool,
}

/// A connection that is open: questions go out, answers come back.
pub(super) struct Conversation(BufReader<Box<dyn Stream>>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cluster {
            Some(cluster) => write!(out, "{} in {cluster}", self.id),
            None => write!(out, "{} from elsewhere", self.id),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, _) => write!(out, "{name}"),
            Self::Address(address) => write!(out, "{address}"),
        }
    }
}

impl Expected {
    /// What counts for a call that ended so.
    pub(super) fn verdict(self, outcome: &Outcome) -> Verdict {
        match (self, outcome) {
            (Self::Arrives, Outcome::Arrived(_)) => Verdict::Arrived,
            (Self::Refused(expected), Outcome::Refused(alert)) if expected == alert => {
                Verdict::Refused
            }
            (Self::Arrives | Self::Refused(_), _) => Verdict::Wrong,
        }
    }
}

impl Line {
    /// As a sidecar calls: on the connection that it has, or on a new one if that was closed, and so many times again if it does not
    /// end as it should.
    pub(super) async fn call(
        &self,
        pool: &mut Option<Conversation>,
        question: &str,
        expected: Expected,
        retries: u32,
    ) -> Call {
        let (began, mut repeated, mut anew) = (Instant::now(), 0, false);
        loop {
            let attempt = Box::pin(self.attempt(pool, question, &mut anew));
            let outcome = match timeout(PATIENCE, attempt).await {
                Ok(Ok(answer)) => self.judge(&answer, question),
                Ok(Err(error)) => told(&error),
                Err(_) => Outcome::Failed(format!("no answer within {}s", PATIENCE.as_secs())),
            };
            let ended = matches!(outcome, Outcome::Refused(_) | Outcome::Failed(_));
            if ended {
                *pool = None;
            }
            let again = ended && expected.verdict(&outcome) == Verdict::Wrong;
            if !again || repeated == retries {
                return Call { outcome, began, took: began.elapsed(), repeated, anew };
            }
            repeated += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        pool: &mut Option<Conversation>,
        question: &str,
        anew: &mut bool,
    ) -> io::Result<String> {
        if let Some(open) = pool
            && !open.is_over().await
        {
            return open.ask(question).await;
        }
        *anew = true;
        pool.insert(self.open().await?).ask(question).await
    }

    async fn open(&self) -> io::Result<Conversation> {
        let (name, address) = match &self.way {
            Way::Name(name, gateway) => {
                (ServerName::try_from(name.clone()).map_err(io::Error::other)?, *gateway)
            }
            // rustls sends no SNI for an address (RFC 6066 §3 allows none).
            Way::Address(address) => (ServerName::from(address.ip()), *address),
        };
        let stream = dial(self.caller.source, address).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?),
            None => Box::new(stream),
        };
        Ok(Conversation(BufReader::new(stream)))
    }

    /// Whether the answer is the wanted app's, to this question of this caller.
    fn judge(&self, answer: &str, question: &str) -> Outcome {
        let proven = self.tls.as_ref().map(|_| spiffe_id(self.caller.id));
        let cluster = answer.split(' ').nth(2).unwrap_or_default();
        let caller = proven.as_deref().unwrap_or(UNPROVEN);
        let expected = Answer { app: self.app, cluster, question, caller };
        if expected.to_string() == answer {
            Outcome::Arrived(cluster.to_owned())
        } else {
            Outcome::Misdelivered(answer.to_owned())
        }
    }
}

impl Conversation {
    async fn ask(&mut self, question: &str) -> io::Result<String> {
        self.0.write_all(format!("{question}\n").as_bytes()).await?;
        self.0.flush().await?;
        let mut answer = String::new();
        if self.0.read_line(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer.trim_end().to_owned())
    }

    /// Whether it was closed while nothing was asked, which a sidecar sees before its next call.
    pub(super) async fn is_over(&mut self) -> bool {
        // Nothing that was not asked for is ever said: what can be read now is the end.
        timeout(Duration::ZERO, self.0.fill_buf()).await.is_ok()
    }
}

async fn dial(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    socket.connect(address).await
}

/// An alert from the other side is a refusal; what else went wrong is a failure.
fn told(error: &io::Error) -> Outcome {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(&rustls::Error::AlertReceived(alert)) => {
            let known = ALERTS.iter().find(|(known, _)| *known == alert);
            let name = known.map(|(_, alert)| alert.label().to_owned());
            Outcome::Refused(name.unwrap_or_else(|| format!("{alert:?}")))
        }
        Some(_) | None => Outcome::Failed(error.to_string()),
    }
}
