//! Asks the admin API of a running gateway.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Method;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::https;

/// A response that is larger comes from no gateway: the largest, `/status` with a thousand routes, has some hundred KiB.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Where the admin API listens: `http://127.0.0.1:9901`, `127.0.0.1:9901`, `https://gw.example:9901` or
/// `unix:/run/strait/admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminUrl {
    /// `host:port`
    Tcp(String),
    /// `host:port`, where TLS is spoken.
    Tls(String),
    /// A socket file.
    Unix(PathBuf),
}

/// A gateway to ask, and what to prove there.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub url: AdminUrl,
    /// A bearer token.
    pub token: Option<String>,
    /// What TLS is spoken with, at an address that asks for it.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// GET, or what changes something.
    pub method: Method,
    /// With the query.
    pub path: &'a str,
    /// JSON; empty for none.
    pub body: String,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// As text.
    pub body: String,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or the way is barred.
    #[error(
        "cannot reach the admin API at {0}: {1}. Is the gateway running? Where it listens is `listeners.admin` of its configuration; \
         say it here with --admin"
    )]
    Unreachable(AdminUrl, io::Error),
    /// Somebody listens and says nothing.
    #[error("the admin API at {0} has not answered within {within} s", within = .1.as_secs())]
    Slow(AdminUrl, Duration),
    /// What answers is no admin API.
    #[error("what answers at {0} is no admin API: {1}")]
    Wrong(AdminUrl, String),
    /// It does not do what it is asked for: why, and what helps.
    #[error("the gateway at {0} does not do it: {1}. To mend it: {2}")]
    Refused(AdminUrl, String, String),
    /// What there is to prove cannot be read.
    #[error("{0}")]
    Unprovable(String),
}

/// Why a text is no [`AdminUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminUrlError {
    /// `ftp://`
    #[error("the admin API speaks HTTP: write http://HOST:PORT, https://HOST:PORT or unix:/PATH")]
    Scheme,
    /// A path behind the address.
    #[error("write only where it listens, without a path: http://HOST:PORT or unix:/PATH")]
    Path,
    /// No port, or no host.
    #[error(
        "the host or the port is missing: write http://127.0.0.1:9901, http://[::1]:9901 or unix:/PATH"
    )]
    Port,
}

impl Admin {
    /// One that asks for nothing.
    pub fn near(url: AdminUrl) -> Self {
        Self { url, token: None, tls: None }
    }
}

impl FromStr for AdminUrl {
    type Err = AdminUrlError;

    fn from_str(written: &str) -> Result<Self, AdminUrlError> {
        if let Some(path) = written.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(AdminUrlError::Port)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (with_tls, place) = match written.split_once("://") {
            Some(("http", place)) => (false, place.strip_suffix('/').unwrap_or(place)),
            Some(("https", place)) => (true, place.strip_suffix('/').unwrap_or(place)),
            Some(_) => return Err(AdminUrlError::Scheme),
            None => (false, written),
        };
        if place.contains('/') {
            return Err(AdminUrlError::Path);
        }
        let (host, port) = place.rsplit_once(':').ok_or(AdminUrlError::Port)?;
        // Two colons without brackets: an IPv6 address whose last group would be taken for the port.
        let ambiguous = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || ambiguous || port.parse::<u16>().is_err() {
            return Err(AdminUrlError::Port);
        }
        let place = place.to_owned();
        Ok(if with_tls { Self::Tls(place) } else { Self::Tcp(place) })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(place) => write!(out, "http://{place}"),
            Self::Tls(place) => write!(out, "https://{place}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// Gets a path; everything within one time limit.
pub async fn get(admin: &Admin, path: &str, within: Duration) -> Result<Answer, ClientError> {
    ask(admin, &Question { method: Method::GET, path, body: String::new() }, within).await
}

/// Asks; everything within one time limit.
pub async fn ask(
    admin: &Admin,
    question: &Question<'_>,
    within: Duration,
) -> Result<Answer, ClientError> {
    let asked = Box::pin(connect_and_ask(admin, question));
    let answered = tokio::time::timeout(within, asked).await;
    answered.unwrap_or_else(|_| Err(ClientError::Slow(admin.url.clone(), within)))
}

async fn connect_and_ask(admin: &Admin, question: &Question<'_>) -> Result<Answer, ClientError> {
    let unreachable = |error| ClientError::Unreachable(admin.url.clone(), error);
    let answer = match &admin.url {
        AdminUrl::Tcp(place) => {
            let stream = TcpStream::connect(place).await.map_err(unreachable)?;
            exchange(stream, place, admin, question).await
        }
        AdminUrl::Tls(place) => {
            let stream = TcpStream::connect(place).await.map_err(unreachable)?;
            // Boxed: a TLS connection is large, and most gateways are asked without.
            let stream = Box::pin(https::connect(stream, place, admin.tls.as_ref())).await;
            exchange(Box::new(stream.map_err(unreachable)?), place, admin, question).await
        }
        AdminUrl::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
            exchange(stream, "localhost", admin, question).await
        }
    };
    answer.map_err(|error| ClientError::Wrong(admin.url.clone(), error.to_string()))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    admin: &Admin,
    question: &Question<'_>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = request(host, admin, question)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await?.to_bytes();
        Ok(Answer { code, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // The connection moves the bytes of the exchange; when it ends first, the exchange tells why.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = exchange.as_mut() => answer,
        _ = connection => exchange.await,
    }
}

fn request(
    host: &str,
    admin: &Admin,
    question: &Question<'_>,
) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
    let Question { method, path, body } = question;
    let mut request = hyper::Request::builder().method(method).uri(*path).header(HOST, host);
    if *method != Method::GET {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = &admin.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Full::from(body.clone()))
}

/// A text as it may stand in a query: everything but the unreserved characters of RFC 3986 §2.3 is escaped.
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn addresses_of_the_admin_api() {
        let tcp = |place: &str| Ok(AdminUrl::Tcp(place.into()));
        assert_eq!("http://127.0.0.1:9901".parse(), tcp("127.0.0.1:9901"));
        assert_eq!("http://localhost:9901/".parse(), tcp("localhost:9901"));
        assert_eq!("[::1]:9901".parse(), tcp("[::1]:9901"));
        assert_eq!("https://gw.example:9901/".parse(), Ok(AdminUrl::Tls("gw.example:9901".into())));
        let unix: AdminUrl = "unix:/run/a.sock".parse().unwrap();
        assert_eq!(unix, AdminUrl::Unix("/run/a.sock".into()));
        assert_eq!(unix.to_string(), "unix:/run/a.sock");
        assert_eq!("unix:///run/a.sock".parse(), Ok(unix));
        for (written, wrong) in [
            ("ftp://127.0.0.1:9901", AdminUrlError::Scheme),
            ("http://127.0.0.1:9901/status", AdminUrlError::Path),
            ("127.0.0.1", AdminUrlError::Port),
            ("::1:9901", AdminUrlError::Port),
            (":9901", AdminUrlError::Port),
            ("host:99999", AdminUrlError::Port),
            ("unix:", AdminUrlError::Port),
        ] {
            assert_eq!(written.parse::<AdminUrl>(), Err(wrong), "{written}");
        }
    }

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(escaped("a-b.c_d~E9"), "a-b.c_d~E9");
        assert_eq!(escaped("a b&c=é%"), "a%20b%26c%3D%C3%A9%25");
    }

    /// A server that reads a request's header and sends what it is told, over and over.
    fn server(response: &'static str) -> Admin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(response.as_bytes());
                if response.is_empty() {
                    kept.push(stream);
                }
            }
        });
        Admin::near(AdminUrl::Tcp(place))
    }

    #[tokio::test]
    async fn a_response_comes_back_with_its_code() {
        let admin = server("HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nno\n");
        let answer = get(&admin, "/readyz", Duration::from_mins(1)).await.unwrap();
        assert_eq!(answer, Answer { code: 503, body: "no\n".into() });
    }

    #[tokio::test]
    async fn what_is_no_admin_api_is_told_apart() {
        let ssh = server("SSH-2.0-OpenSSH_9.9\r\n");
        let error = get(&ssh, "/", Duration::from_mins(1)).await.unwrap_err();
        assert!(matches!(error, ClientError::Wrong(..)), "{error}");
        let silent = server("");
        let error = get(&silent, "/", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ClientError::Slow(..)), "{error}");
        let nobody = Admin::near(AdminUrl::Unix("/nonexistent/admin.sock".into()));
        let error = get(&nobody, "/", Duration::from_mins(1)).await.unwrap_err().to_string();
        assert!(
            error.starts_with(
                "cannot reach the admin API at unix:/nonexistent/admin.sock: No such file"
            ),
            "{error}"
        );
        assert!(error.contains("Is the gateway running?"), "{error}");
    }
}
