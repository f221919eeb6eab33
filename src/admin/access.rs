//! Who may ask the admin API.
//!
//! A listener at loopback or at a socket file trusts whoever reaches it, unless it asks for tokens or certificates; then it asks
//! everybody. Any other listener that asks for neither answers probes alone. The listener decides and not the address of who
//! comes: proxies and NAT make strangers of the network look like callers of this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{error, warn};

use crate::model::operator::{From, Operator, Proof};
use crate::problem::Problem;

use super::tls::Tls;
use super::tokens;

/// What a listener asks of those who come. The default asks for nothing.
#[derive(Debug, Default)]
pub struct Access {
    /// A file of bearer tokens, one a line.
    pub token_file: Option<PathBuf>,
    /// Serves TLS, and plain HTTP no more.
    pub tls: Option<Tls>,
}

/// The access in force. It is looked at for every connection and every request.
pub type CurrentAccess = Arc<ArcSwap<Access>>;

/// What a connection knows of who has opened it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) from: From,
    /// The name in the certificate, where one was shown and holds, and what it was verified with.
    pub(super) certificate: Option<(Arc<str>, Tls)>,
}

/// The door of a listener.
#[derive(Clone)]
pub(super) struct Door {
    access: CurrentAccess,
    /// Whether only this machine can reach the listener.
    near: bool,
    told: Arc<Told>,
}

impl Access {
    fn asks(&self) -> bool {
        self.token_file.is_some() || self.tls.as_ref().is_some_and(Tls::takes_certificates)
    }
}

impl Door {
    pub(super) fn new(access: CurrentAccess, near: bool) -> Self {
        Self { access, near, told: Arc::default() }
    }

    /// Who asks, if he may.
    async fn admit(&self, peer: Peer, headers: &HeaderMap) -> Result<Operator, Problem> {
        let access = self.access.load_full();
        let from = peer.from;
        if !access.asks() {
            return if self.near { Ok(Operator { from, by: None }) } else { Err(closed()) };
        }
        if let Some((name, verified)) = peer.certificate {
            // What was verified before a change may not be any more.
            let is_current = access.tls.as_ref().is_some_and(|tls| tls.is_same(&verified));
            let by = Some(Proof::Certificate(name));
            return if is_current { Ok(Operator { from, by }) } else { Err(outdated()) };
        }
        let (Some(file), Some(token)) = (&access.token_file, bearer(headers)) else {
            return Err(unknown(&access, "nothing says who asks"));
        };
        match find(file.clone(), token.to_owned()).await {
            Some(name) => Ok(Operator { from, by: Some(Proof::Token(name)) }),
            None => Err(unknown(&access, "the token is not one of those that are taken")),
        }
    }
}

/// Lets in who may ask, and has the rest know who that is. Probes are for everybody.
pub(super) async fn admit(
    State(door): State<Door>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return next.run(request).await;
    }
    let from = peer.from;
    match door.admit(peer, request.headers()).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(problem) => {
            if door.told.is_time() {
                let (method, path) = (request.method(), request.uri().path());
                warn!(%from, %method, path = %path.escape_debug(), "admin request refused: {}", problem.detail);
            }
            problem.into_response()
        }
    }
}

async fn find(file: PathBuf, token: String) -> Option<Arc<str>> {
    let path = file.display().to_string();
    let looked = tokio::task::spawn_blocking(move || tokens::find(&file, &token)).await;
    let found = looked.map_err(std::io::Error::other).flatten();
    found.unwrap_or_else(|error| {
        error!(file = path, %error, "the tokens of the admin API cannot be read: nobody's is taken");
        None
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    // RFC 9110 §11.1: the scheme is compared without case.
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn closed() -> Problem {
    let detail = "this listener is not of this machine alone, and nothing says who may ask it";
    let fix = "set listeners.admin.tokenFile or listeners.admin.tls.clientCa, or let it listen at 127.0.0.1 or unix:PATH";
    Problem::new(StatusCode::FORBIDDEN, ("closed", "Nobody may ask here"), detail, fix)
}

fn outdated() -> Problem {
    let detail = "certificates or authorities have changed since this connection was opened";
    let close = HeaderValue::from_static("close");
    let kind = ("outdated", "An older connection");
    // RFC 9110 §15.5.20: to be tried again over another connection.
    Problem::new(StatusCode::MISDIRECTED_REQUEST, kind, detail, "connect anew")
        .with_header(header::CONNECTION, close)
}

fn unknown(access: &Access, detail: &str) -> Problem {
    let certificates = access.tls.as_ref().is_some_and(Tls::takes_certificates);
    let fix = match (&access.token_file, certificates) {
        (Some(_), false) => {
            "send `Authorization: Bearer TOKEN` with a token of listeners.admin.tokenFile"
        }
        (None, _) => "show a certificate that listeners.admin.tls.clientCa has issued",
        (Some(_), true) => {
            "send `Authorization: Bearer TOKEN` with a token of listeners.admin.tokenFile, or show a certificate that listeners.admin.tls.clientCa has issued"
        }
    };
    let challenge = HeaderValue::from_static("Bearer realm=\"strait\"");
    Problem::new(StatusCode::UNAUTHORIZED, ("unauthorized", "Who asks is not known"), detail, fix)
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

/// When something was told last: at most once a second, so that strangers cannot fill the log.
struct Told {
    start: Instant,
    /// The second after the start in which it may be told again.
    next: AtomicU64,
}

impl Default for Told {
    fn default() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0) }
    }
}

impl Told {
    fn is_time(&self) -> bool {
        let now = self.start.elapsed().as_secs();
        self.next.fetch_max(now + 1, Ordering::Relaxed) <= now
    }
}

/// Changes are asked for by programs that know what they do, and by no page of another site in somebody's browser: a page can send
/// neither this content type nor another method without being asked for leave first (Fetch §3.2), which nobody gives it, and what it
/// sends has its `Origin`.
pub(super) async fn guard_changes(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let headers = request.headers();
    if !is_own_origin(headers) {
        let detail = "a page of another site asks";
        let fix = "ask from a page of this very address, or with a program that sends no Origin";
        return Problem::new(
            StatusCode::FORBIDDEN,
            ("foreign-origin", "Foreign origin"),
            detail,
            fix,
        )
        .into_response();
    }
    if !is_json(headers) {
        let fix = "send `Content-Type: application/json`, also where there is no body";
        let kind = ("content-type", "Not said to be JSON");
        let detail = "what changes something has to say that it is JSON";
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, detail, fix).into_response();
    }
    next.run(request).await
}

/// Whether no page asks, or one that was read from here.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        site.is_some_and(|(_, site)| host.is_some_and(|host| site.eq_ignore_ascii_case(host)))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(written: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = written.iter().map(|(name, value)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn only_a_page_of_the_very_same_address_may_change_anything() {
        let own = |origin: &str| {
            is_own_origin(&headers(&[("host", "127.0.0.1:9901"), ("origin", origin)]))
        };
        assert!(is_own_origin(&headers(&[("host", "127.0.0.1:9901")])));
        assert!(own("http://127.0.0.1:9901") && own("https://127.0.0.1:9901"));
        for foreign in [
            "http://127.0.0.1",
            "http://127.0.0.1:9902",
            "null",
            "http://evil.example",
            "127.0.0.1:9901",
        ] {
            assert!(!own(foreign), "{foreign}");
        }
        assert!(!is_own_origin(&headers(&[("origin", "http://127.0.0.1:9901")])), "no host");
    }

    #[test]
    fn json_is_what_says_so() {
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(&headers(&[("content-type", kind)])), "{kind}");
        }
        for kind in ["text/plain", "application/json5", "application/x-www-form-urlencoded", ""] {
            assert!(!is_json(&headers(&[("content-type", kind)])), "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn a_bearer_token_is_what_stands_behind_the_scheme() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer a.b")])), Some("a.b"));
        for other in ["Basic a", "Bearer", "a"] {
            assert_eq!(bearer(&headers(&[("authorization", other)])), None, "{other}");
        }
    }

    #[test]
    fn refusals_are_told_once_a_second() {
        let told = Told::default();
        assert!(told.is_time() && !told.is_time());
    }
}
