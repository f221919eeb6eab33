//! A connection to `PostgreSQL`.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row};
use tokio_rustls::client;
use tokio_util::task::AbortOnDropHandle;

use crate::config::PostgresqlStore;
use crate::permissions::store::dial::{Budget, Dialer, PATIENCE, Tls, within};
use crate::permissions::store::{LISTING, MOST_BYTES, MOST_BYTES_OF_ALL, StoreError};

/// Notifications that wait to be read. Those that find no place are dropped: polling finds what they told of.
const WAITING: usize = 1024;
/// What an answer has besides values, and notifications that come between two questions.
const OVERHEAD: usize = 16 << 20;

/// A parameter of a statement.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How much an answer may be, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    bytes: usize,
    time: Duration,
}

impl Bound {
    /// An answer without values.
    pub(super) const NO_VALUES: Self = Self { bytes: 0, time: PATIENCE };
    /// All that the table has.
    pub(super) const ALL: Self = Self { bytes: MOST_BYTES_OF_ALL, time: LISTING };

    /// So many values. A key may have more than one row.
    pub(super) fn values(number: usize) -> Self {
        Self { bytes: MOST_BYTES_OF_ALL.min(number * MOST_BYTES * 2), time: PATIENCE }
    }
}

/// A connection that is logged in.
pub(super) struct Session {
    client: Client,
    budget: Budget,
    /// Payloads of notifications.
    pub(super) notices: mpsc::Receiver<String>,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    pub(super) async fn connect(
        dialer: &Dialer,
        store: &PostgresqlStore,
    ) -> Result<Self, StoreError> {
        let mut config = tokio_postgres::Config::new();
        config.dbname(&store.database).application_name("strait");
        if let Some(user) = &store.server.user {
            config.user(user);
        }
        let opened = async {
            if let Some(password) = dialer.password().await? {
                config.password(password);
            }
            let tls = dialer.tls().await?;
            config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
            let (stream, budget) = dialer.connect().await?;
            let login = Box::pin(config.connect_raw(stream, Connector(tls)));
            let login = async { login.await.map_err(|error| told(&error)) };
            let (client, connection) = within("login", login).await?;
            Ok((client, connection, budget))
        };
        let (client, connection, budget) = opened.await.map_err(StoreError::Unavailable)?;
        let (sender, notices) = mpsc::channel(WAITING);
        let driver = AbortOnDropHandle::new(tokio::spawn(drive(connection, sender)));
        Ok(Self { client, budget, notices, _driver: driver })
    }

    /// Asks.
    pub(super) async fn query(
        &self,
        what: &str,
        statement: &str,
        parameters: &[Parameter<'_>],
        bound: Bound,
    ) -> Result<Vec<Row>, StoreError> {
        self.budget.allow(bound.bytes + OVERHEAD);
        self.wait(what, bound.time, self.client.query_typed(statement, parameters)).await
    }

    /// Says something that has no answer, perhaps several statements.
    pub(super) async fn execute(&self, what: &str, statements: &str) -> Result<(), StoreError> {
        self.budget.allow(OVERHEAD);
        self.wait(what, PATIENCE, self.client.batch_execute(statements)).await
    }

    /// Between two questions: notifications may come.
    pub(super) fn rest(&self) {
        self.budget.allow(OVERHEAD);
    }

    async fn wait<T>(
        &self,
        what: &str,
        time: Duration,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        let Ok(answer) = tokio::time::timeout(time, asked).await else {
            let message = format!("{what}: no answer within {} s", time.as_secs());
            return Err(StoreError::Unavailable(message));
        };
        answer.map_err(|error| failed(what, &error))
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, notices: mpsc::Sender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // An end or an error shows in the client's next question.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(notification) = message {
            let _ = notices.try_send(notification.payload().to_owned());
        }
    }
}

/// Whether trying again may help decides what kind of failure it is.
fn failed(what: &str, error: &tokio_postgres::Error) -> StoreError {
    let is_refused = error.code().is_some_and(|code| {
        let passing = ["08", "40", "53", "55", "57", "58", "XX"];
        !passing.iter().any(|class| code.code().starts_with(class))
            && *code != SqlState::IN_FAILED_SQL_TRANSACTION
    });
    let message = format!("{what}: {}", told(error));
    if is_refused { StoreError::Refused(message) } else { StoreError::Unavailable(message) }
}

/// The server's own words, or what lies under an error: by itself it says no more than what it was about.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// TLS for the client. Without any it is never asked.
struct Connector(Option<Tls>);

/// The client wants to know of a stream what it could bind a login to. The server is proven by its certificate already.
struct Encrypted<S>(client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connector {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let tls = self.0.ok_or_else(|| io::Error::other("there is to be no TLS"))?;
            tls.connect(stream).await.map(Encrypted)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
