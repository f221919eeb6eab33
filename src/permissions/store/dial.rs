//! Connections to a store's server: TCP and TLS, bounded in time and in bytes.
//!
//! The clients of Redis and `PostgreSQL` hold what a server sends until they have all of it, and take lengths from the server. So
//! what may come is bounded below them, where the bytes come in, and each operation says how much it may be.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::StoreServer;
use crate::discovery::dns;
use crate::model::name::Name;
use crate::tls;

/// Longest time for one step: a connect, a login, a question with its answer. A server that takes longer is as good as none, and who
/// waits is a command or the next try.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// What may come before anything was asked: handshakes and the login.
const BYTES_OF_LOGIN: usize = 1 << 20;
/// Longest password; managed databases use tokens of 2 KiB.
const MOST_BYTES_OF_PASSWORD: u64 = 64 << 10;

/// How to get to a server.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    pub(super) server: StoreServer,
    pub(super) names: dns::Settings,
}

/// TLS with the server, ready to begin.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// How many bytes a server may still send.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// A TCP connection that ends with an error where the server sends more than its [`Budget`].
#[derive(Debug)]
pub(super) struct Metered {
    inner: TcpStream,
    budget: Budget,
}

/// Waits for a step, but no longer than [`PATIENCE`].
pub(super) async fn within<T, E: ToString>(
    what: &str,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(|error| format!("{what}: {}", error.to_string())),
        Err(_) => Err(format!("{what}: no answer within {} s", PATIENCE.as_secs())),
    }
}

impl Dialer {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<(Metered, Budget), String> {
        let inner = within("connect", self.tcp()).await?;
        // Without it a question of two packets waits for the other side's delayed acknowledgement.
        inner.set_nodelay(true).map_err(|error| error.to_string())?;
        let budget = Budget(Arc::new(AtomicUsize::new(BYTES_OF_LOGIN)));
        Ok((Metered { inner, budget: budget.clone() }, budget))
    }

    /// What TLS needs, its files read anew; `None` where there is to be none.
    pub(super) async fn tls(&self) -> Result<Option<Tls>, String> {
        let Some(file) = self.server.ca_file.clone() else { return Ok(None) };
        let anchors = blocking(move || tls::anchors(&file)).await?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(anchors)
            .with_no_client_auth();
        let name =
            ServerName::try_from(self.server.host.clone()).map_err(|error| error.to_string())?;
        Ok(Some(Tls { connector: TlsConnector::from(Arc::new(config)), name }))
    }

    /// The password, read anew.
    pub(super) async fn password(&self) -> Result<Option<String>, String> {
        let Some(file) = self.server.password_file.clone() else { return Ok(None) };
        blocking(move || password(&file)).await.map(Some)
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::other("the name has no address");
        for address in self.addresses().await.map_err(io::Error::other)? {
            match TcpStream::connect(SocketAddr::new(address, self.server.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let host = &self.server.host;
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = Name::parse(host).map_err(|error| format!("{host}: {error}"))?;
        // A large future, and a connect is rare: kept out of all that await it.
        Box::pin(dns::lookup(&self.names, &name)).await
    }
}

impl Tls {
    /// Shakes hands.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.connector.connect(self.name, stream).await
    }
}

impl Budget {
    /// From now on so many bytes may come.
    pub(super) fn allow(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let less = |left: usize| left.checked_sub(bytes);
        let done = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        done.map(drop).map_err(|_| io::Error::other("the server sends more than was asked for"))
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let bytes = buffer.filled().len().saturating_sub(before);
        match read {
            Poll::Ready(Ok(())) => {
                // An error has read nothing.
                Poll::Ready(self.budget.spend(bytes).inspect_err(|_| buffer.set_filled(before)))
            }
            Poll::Ready(Err(_)) | Poll::Pending => read,
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Reads a file on a thread that may block.
pub(super) async fn blocking<T: Send + 'static, E: ToString + Send + 'static>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(read).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The first line, which must be the only one: an editor ends it, `printf` does not.
fn password(file: &Path) -> Result<String, String> {
    let wrong = |what: &str| format!("passwordFile {}: {what}", file.display());
    let metadata = std::fs::metadata(file).map_err(|error| wrong(&error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES_OF_PASSWORD {
        return Err(wrong("it is no regular file of at most 64 KiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        return Err(wrong("a password is one line, and not empty"));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn a_password_is_one_line_with_or_without_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            password(&file)
        };
        assert_eq!(read("geheim").as_deref(), Ok("geheim"));
        assert_eq!(read("geheim\n").as_deref(), Ok("geheim"));
        assert_eq!(read(" ge heim \r\n").as_deref(), Ok(" ge heim "));
        for bad in ["", "\n", "a\nb\n"] {
            let error = read(bad).unwrap_err();
            assert!(
                error.contains("one line") && !error.contains('a'.to_string().repeat(2).as_str())
            );
        }
        assert!(password(folder.path()).is_err());
    }

    #[tokio::test]
    async fn what_comes_beyond_the_budget_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[7; 4096]).await;
        });
        let inner = TcpStream::connect(address).await.unwrap();
        let budget = Budget(Arc::new(AtomicUsize::new(0)));
        budget.allow(1000);
        let mut metered = Metered { inner, budget };
        let mut read = Vec::new();
        let error = metered.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.to_string(), "the server sends more than was asked for");
        assert!(read.len() <= 1000);
    }
}
