//! The admin API, and the small part of it that probes and scrapes from outside may see.
//!
//! Names no peer: `app` hands in closures that answer, and the routes of what else is asked here. [`access`] says who may ask.

pub mod access;
pub mod listener;
mod server;
pub mod status;
pub mod tls;
mod tokens;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::model::app::AppId;
use crate::model::client::{Asker, Linked};

use access::{CurrentAccess, Door, admit, guard_changes};
use listener::AdminListener;
use status::Status;

/// What answers the requests. Called off the async threads: an answer may take its time.
pub struct Answers {
    /// Whether new connections are wanted, and if not, why.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// `/status`
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// `/explain`: the name as it was asked, and who would ask for it.
    pub explain: Box<Explain>,
    /// `/metrics`, in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// What begins with `/v1`. Its handlers find who asks as an [`Operator`](crate::model::operator::Operator) among a request's
    /// extensions.
    pub api: Router,
}

/// Explains the decision for a name.
pub type Explain = dyn Fn(&str, &Asker) -> Value + Send + Sync;

/// How much of the API a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: `listeners.admin`.
    Admin,
    /// `/healthz`, `/readyz` and `/metrics`: `listeners.metrics`, which others reach.
    Probes,
}

/// Serves until `stop` is cancelled. Who may ask is `access`'s to say; probes are for everybody.
pub async fn serve(
    listener: AdminListener,
    scope: Scope,
    answers: Arc<Answers>,
    access: CurrentAccess,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (loopback, near) = (listener.is_loopback(), listener.is_near());
    let router = router(scope, answers, loopback);
    let router = match scope {
        Scope::Probes => router,
        Scope::Admin => {
            let door = Door::new(Arc::clone(&access), near);
            router.layer(middleware::from_fn_with_state(door, admit))
        }
    };
    server::serve(listener, router, access, stop).await
}

/// Says what is wrong with a file of tokens: message and fix.
pub fn check_tokens(file: &std::path::Path) -> Result<(), (String, String)> {
    tokens::check(file)
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// Answers that one listener computes at a time, of those that take long. Clients that ask without pause, and do not wait for the
/// answer, must not take all of the threads on which configurations are read and tables built.
const AT_A_TIME: usize = 2;

/// What the handlers share.
#[derive(Clone)]
struct Desk {
    answers: Arc<Answers>,
    places: Arc<Semaphore>,
}

const PROBES: &str = "/healthz, /readyz and /metrics";
const EVERYTHING: &str =
    "/healthz, /readyz, /metrics, /status, /explain?name=&from=&cluster=&app= and /v1/openapi.json";

fn router(scope: Scope, answers: Arc<Answers>, loopback: bool) -> Router {
    let probes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    let (router, paths, api) = match scope {
        Scope::Probes => (probes, PROBES, Router::new()),
        Scope::Admin => {
            let router = probes.route("/status", get(status)).route("/explain", get(explain));
            (router, EVERYTHING, answers.api.clone().layer(middleware::from_fn(guard_changes)))
        }
    };
    let router = router
        .fallback(async move || error(StatusCode::NOT_FOUND, &format!("there is {paths} here")))
        .method_not_allowed_fallback(async |method: Method| {
            error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not understood: use GET"))
        })
        .layer(middleware::from_fn(no_body))
        .with_state(Desk { answers, places: Arc::new(Semaphore::new(AT_A_TIME)) })
        .merge(api);
    if loopback { router.layer(middleware::from_fn(loopback_host)) } else { router }
}

/// Lives as long as it can answer at all.
async fn healthz() -> Response {
    json_response(StatusCode::OK, &json!({ "healthy": true }))
}

async fn readyz(State(desk): State<Desk>) -> Response {
    match (desk.answers.ready)() {
        Ok(()) => json_response(StatusCode::OK, &json!({ "ready": true })),
        Err(reason) => {
            let body = json!({ "ready": false, "reason": reason });
            json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let text = desk.answer(|answers| (answers.metrics)()).await;
    // Version 0.0.4 of the text format, which every scraper reads.
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    text.map_or_else(|failed| failed, |text| (kind, text).into_response())
}

async fn status(State(desk): State<Desk>) -> Response {
    let status = desk.answer(|answers| json!((answers.status)())).await;
    status.map_or_else(|failed| failed, |status| json_response(StatusCode::OK, &status))
}

#[derive(Deserialize)]
struct Question {
    name: String,
    /// As text, so that its error can say what it should be.
    from: Option<String>,
    cluster: Option<String>,
    app: Option<String>,
}

impl Question {
    /// Who would ask for the name. A parameter without a value is as if it were not there.
    fn asker(&self) -> Result<Asker, &'static str> {
        let given = |written: &Option<String>| written.clone().filter(|text| !text.is_empty());
        match (given(&self.from), given(&self.cluster), given(&self.app)) {
            (None, None, None) => Ok(Asker::Unsaid),
            (Some(from), None, None) => from.parse().map(Asker::At).map_err(
                |_| "from is no IP address: write it without a port, such as 203.0.113.9 or 2001:db8::9",
            ),
            (None, Some(cluster), app) => {
                let app = app.map(|app| AppId::parse(&app)).transpose();
                let app = app.map_err(|_| "app is written namespace/app, such as shop/frontend")?;
                Ok(Asker::Linked(Linked { cluster: cluster.into(), app }))
            }
            (Some(_), Some(_), _) => Err("from or cluster: no rule sees an address behind a link"),
            (_, None, Some(_)) => Err("app goes with cluster: it is what a linked cluster says of its caller"),
        }
    }
}

async fn explain(
    State(desk): State<Desk>,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let Ok(Query(question)) = question else {
        let usage = "which name? /explain?name=checkout.shop.mesh.example&from=203.0.113.9; from may be left out, or cluster=east \
                     stand in its place";
        return error(StatusCode::BAD_REQUEST, usage);
    };
    let asker = match question.asker() {
        Ok(asker) => asker,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    let name = question.name;
    let explanation = desk.answer(move |answers| (answers.explain)(&name, &asker)).await;
    explanation.map_or_else(|failed| failed, |told| json_response(StatusCode::OK, &told))
}

impl Desk {
    /// Computes an answer on a thread that may be kept busy: a table of a million names takes a while to look through, and
    /// probes must be answered meanwhile. A client that goes leaves the queue.
    async fn answer<T: Send + 'static>(
        self,
        compute: impl FnOnce(&Answers) -> T + Send + 'static,
    ) -> Result<T, Response> {
        let Self { answers, places } = self;
        let place = places.acquire_owned().await;
        let computed = tokio::task::spawn_blocking(move || {
            // Until it is computed, whether somebody still waits for it or not.
            let _place = place;
            compute(&answers)
        });
        computed.await.map_err(|_| {
            error(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed: see the gateway's log")
        })
    }
}

/// No request here has a body, so none is read, of whatever size it says it is.
async fn no_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        let mut refused = error(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here");
        // What follows on the connection would be the body.
        refused.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        refused
    }
}

/// A loopback listener answers only requests that are meant for a loopback address. Without this, a page in a browser on this
/// machine could point its own name at 127.0.0.1 (DNS rebinding) and read the API as its own origin: the browser would send the
/// page's name in `Host`. A client without `Host` is no browser. Behind other addresses any name may be right.
async fn loopback_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter();
    let written = hosts.map(|host| host.to_str().unwrap_or_default());
    let written = written.chain(request.uri().authority().map(axum::http::uri::Authority::as_str));
    if written.map(host_without_port).all(is_loopback_host) {
        next.run(request).await
    } else {
        error(
            StatusCode::MISDIRECTED_REQUEST,
            "this listener is for this machine: ask for it as 127.0.0.1, [::1] or localhost",
        )
    }
}

fn host_without_port(written: &str) -> &str {
    match written.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => written.rsplit_once(':').map_or(written, |(host, _)| host),
    }
}

fn is_loopback_host(host: &str) -> bool {
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

fn error(code: StatusCode, message: &str) -> Response {
    json_response(code, &json!({ "error": message }))
}

fn json_response(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests;
