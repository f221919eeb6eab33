//! Documents over HTTP, as JSON. [`openapi`] is its description, made of the types in [`wire`].
//!
//! Who may ask, and that a change is asked for as JSON by no foreign page, is seen to by whoever serves these routes. He puts an
//! [`Operator`] into each request, whom the log names with every change.

mod conditions;
mod openapi;
mod problems;
mod watch;
pub mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::allowed::{AllowedApps, RemoteApp};
use crate::model::app::AppId;
use crate::model::operator::Operator;
use crate::problem::Problem;
use crate::routing::discover::Discovery;

use super::format;
use super::in_force::{Entry, InForce};
use super::service::{Changed, Precondition, Service, ServiceError};
use super::store::MOST_BYTES;

pub use openapi::openapi;

/// Bytes of a body that are read before the connection is given up: who sends a document that is too long is to read the answer.
const MOST_READ: usize = 1 << 20;
/// From a request's header to the end of its body.
const BODY: Duration = Duration::from_secs(10);
/// Longest time that a request may wait until its change is in force, in seconds.
const LONGEST_WAIT: u64 = 60;
/// Answers that are computed at a time, of those that take long: threads are few, and tables are built on them too.
const AT_A_TIME: usize = 2;

/// What the routes ask.
#[derive(Clone)]
pub struct Desk {
    service: Arc<Service>,
    discover: Arc<Discover>,
    watches: Arc<Semaphore>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What an app may call, by the table in force.
pub type Discover = dyn Fn(&AppId) -> Discovery + Send + Sync;

type Answer = Result<Response, Problem>;

impl Desk {
    /// Watches end when `stop` is cancelled.
    pub fn new(service: Arc<Service>, discover: Arc<Discover>, stop: CancellationToken) -> Self {
        let watches = Arc::new(Semaphore::new(watch::MOST));
        Self { service, discover, watches, places: Arc::new(Semaphore::new(AT_A_TIME)), stop }
    }

    /// The routes; all of them begin with `/v1`.
    pub fn router(self) -> Router {
        let document = get(read).put(set).delete(remove).post(change);
        Router::new()
            .route("/v1/allowed", get(list).fallback(only_get))
            .route("/v1/allowed/{namespace}/{app}", document.fallback(not_of_documents))
            .route("/v1/discover/{namespace}/{app}", get(discover).fallback(only_get))
            .route("/v1/openapi.json", get(described).fallback(only_get))
            .route("/v1/{*rest}", any(async || problems::not_found()))
            .with_state(self)
    }

    /// Computes on a thread that may be kept busy.
    async fn compute<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let computed = tokio::task::spawn_blocking(move || {
            let _place = place;
            compute()
        });
        computed.await.map_err(|_| problems::internal())
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Desk").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    #[serde(default)]
    watch: bool,
    app: Option<String>,
}

/// `GET /v1/allowed`
async fn list(State(desk): State<Desk>, listing: Result<Query<Listing>, QueryRejection>) -> Answer {
    let usage = "ask for /v1/allowed, with app=NAMESPACE/APP for one caller and watch=true for what changes";
    let Query(Listing { watch, app }) =
        listing.map_err(|error| problems::bad_request(error.body_text(), usage))?;
    let only = app.map(|app| caller_of(&app)).transpose()?;
    if watch {
        return watch::open(&desk, only);
    }
    let in_force = Arc::clone(&desk.service.follow().borrow());
    // Written there as well: ten thousand of them are megabytes.
    let listed = move || written(&documents(&in_force, only.as_ref()));
    Ok(as_json(StatusCode::OK, desk.compute(listed).await?))
}

/// `GET /v1/allowed/{namespace}/{app}`: as the store has it now, so that who has written reads what he wrote.
async fn read(
    State(desk): State<Desk>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Answer {
    let caller = caller(path)?;
    let document = match desk.service.get(&caller).await {
        Err(ServiceError::NoStore) => return configured(&desk, &caller),
        document => document?,
    };
    let etag = conditions::etag(&document.version);
    let mut response = if conditions::is_known(&headers, &document.version) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json(StatusCode::OK, &wire::AllowedApps::from(&document.says))
    };
    response.headers_mut().extend(etag.map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// Without a store: what the configuration says.
fn configured(desk: &Desk, caller: &AppId) -> Answer {
    let in_force = Arc::clone(&desk.service.follow().borrow());
    let found = in_force.entries().remove(&(Some(caller.clone()), wire::Source::Configuration));
    let found = found.ok_or_else(|| problems::nothing_configured(caller))?;
    Ok(json(StatusCode::OK, &found.says()))
}

/// `PUT /v1/allowed/{namespace}/{app}`
async fn set(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<(String, String)>, PathRejection>,
    waiting: Result<Query<Waiting>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (caller, wait) = (caller(path)?, Waiting::of(waiting)?);
    let wanted = conditions::precondition(&headers)?;
    let says = format::parse(&caller, &text(body).await?)?;
    let created = wanted == Precondition::Absent;
    let order = Order { operator, caller, change: Change::Set(says), wanted };
    let written = desk.execute(order, wait).await?;
    Ok(answer(if created { StatusCode::CREATED } else { StatusCode::OK }, &written))
}

/// `DELETE /v1/allowed/{namespace}/{app}`
async fn remove(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<(String, String)>, PathRejection>,
    waiting: Result<Query<Waiting>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let (caller, wait) = (caller(path)?, Waiting::of(waiting)?);
    let wanted = conditions::precondition(&headers)?;
    let order = Order { operator, caller, change: Change::Delete, wanted };
    Ok(answer(StatusCode::OK, &desk.execute(order, wait).await?))
}

/// `POST /v1/allowed/{namespace}/{app}:allow` and `…:revoke`
async fn change(
    State(desk): State<Desk>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<(String, String)>, PathRejection>,
    waiting: Result<Query<Waiting>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let wait = Waiting::of(waiting)?;
    let Path((namespace, last)) = path.map_err(|error| bad_path(&error))?;
    // No app id holds a colon.
    let (app, verb) =
        last.rsplit_once(':').ok_or_else(|| problems::not_allowed("POST", METHODS))?;
    let caller = caller_of(&format!("{namespace}/{app}"))?;
    let wanted = conditions::precondition(&headers)?;
    let remote = match verb {
        "allow" | "revoke" => format::parse_remote(&caller, &text(body).await?)?,
        _ => return Err(problems::not_found()),
    };
    let change = if verb == "allow" { Change::Allow(remote) } else { revoke(remote)? };
    let order = Order { operator, caller, change, wanted };
    Ok(answer(StatusCode::OK, &desk.execute(order, wait).await?))
}

/// `GET /v1/discover/{namespace}/{app}`
async fn discover(
    State(desk): State<Desk>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Answer {
    let caller = caller(path)?;
    let discover = Arc::clone(&desk.discover);
    let discovered = desk.compute(move || discover(&caller)).await?;
    Ok(json(StatusCode::OK, &discovered))
}

/// `GET /v1/openapi.json`
async fn described(State(desk): State<Desk>) -> Answer {
    Ok(json(StatusCode::OK, &desk.compute(openapi).await?))
}

const METHODS: &str = "GET, PUT, DELETE, and POST for :allow and :revoke";

async fn only_get(method: Method) -> Problem {
    problems::not_allowed(method.as_str(), "GET")
}

async fn not_of_documents(method: Method) -> Problem {
    problems::not_allowed(method.as_str(), "GET, PUT, DELETE, POST")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

impl Waiting {
    fn of(written: Result<Query<Self>, QueryRejection>) -> Result<Duration, Problem> {
        match written {
            Ok(Query(Self { wait })) if wait <= LONGEST_WAIT => Ok(Duration::from_secs(wait)),
            Ok(_) => Err(format!("nobody waits for longer than {LONGEST_WAIT} s")),
            Err(error) => Err(error.body_text()),
        }
        .map_err(|wrong| {
            problems::bad_request(wrong, "wait=5 waits 5 seconds until it is in force")
        })
    }
}

/// A change, by whom, and under which condition.
#[derive(Debug, Clone)]
struct Order {
    operator: Operator,
    caller: AppId,
    change: Change,
    wanted: Precondition,
}

#[derive(Debug, Clone)]
enum Change {
    Set(AllowedApps),
    Allow(RemoteApp),
    Revoke(AppId),
    Delete,
}

/// A revocation takes the whole app. Fewer clusters are another permission, not less of this one.
fn revoke(remote: RemoteApp) -> Result<Change, Problem> {
    if remote.clusters.is_empty() {
        return Ok(Change::Revoke(remote.app));
    }
    let fix =
        "leave `clusters` out; to change the clusters, allow the app anew with those that remain";
    Err(problems::bad_request("an app is revoked in all clusters", fix))
}

impl Desk {
    /// Does it, and waits until it is in force for as long as the request asks.
    async fn execute(&self, order: Order, wait: Duration) -> Result<wire::Written, Problem> {
        let began = Instant::now();
        let (service, caller) = (Arc::clone(&self.service), order.caller.clone());
        // A task of its own: a client that goes cannot leave a change behind of which the log knows nothing.
        let executed = tokio::spawn(async move { order.execute(&service).await });
        let Changed { document, changed } = executed.await.map_err(|_| problems::internal())??;
        let version = document.as_ref().map(|document| &document.version);
        let in_force = if wait.is_zero() {
            None
        } else {
            Some(self.service.until_in_force(&caller, version, wait).await)
        };
        let after = in_force.filter(|reached| *reached).map(|_| began.elapsed().as_millis());
        Ok(wire::Written {
            app: caller.to_string(),
            changed,
            version: version.map(ToString::to_string),
            document: document.as_ref().map(|document| (&document.says).into()),
            in_force,
            in_force_after_ms: after.map(|after| u64::try_from(after).unwrap_or(u64::MAX)),
        })
    }
}

impl Order {
    async fn execute(self, service: &Service) -> Result<Changed, ServiceError> {
        let Self { operator, caller, change, wanted } = self;
        let (what, called) = change.told();
        let done = match change {
            Change::Set(says) => service.set(says, &wanted).await,
            Change::Allow(remote) => service.allow(&caller, &remote, &wanted).await,
            Change::Revoke(target) => service.revoke(&caller, &target, &wanted).await,
            Change::Delete => service.delete(&caller, &wanted).await,
        };
        match &done {
            Ok(Changed { document, changed }) => {
                let version = document.as_ref().map(|document| document.version.to_string());
                info!(%operator, %caller, what, called, version, changed, "allowed apps");
            }
            Err(error) => {
                warn!(%operator, %caller, what, called, %error, "allowed apps: not changed");
            }
        }
        done
    }
}

impl Change {
    /// What the log calls it, and of what.
    fn told(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Set(says) => ("set", Some(format::text(says))),
            Self::Allow(remote) if remote.clusters.is_empty() => {
                ("allow", Some(remote.app.to_string()))
            }
            Self::Allow(remote) => {
                ("allow", Some(format!("{} in {}", remote.app, remote.clusters.join(", "))))
            }
            Self::Revoke(target) => ("revoke", Some(target.to_string())),
            Self::Delete => ("delete", None),
        }
    }
}

fn documents(in_force: &InForce, only: Option<&AppId>) -> wire::Documents {
    let entries = in_force
        .entries()
        .into_iter()
        .filter(|((app, _), _)| only.is_none() || app.as_ref() == only);
    wire::Documents {
        documents: entries.map(|((_, source), entry)| listed(source, &entry)).collect(),
    }
}

fn listed(source: wire::Source, entry: &Entry) -> wire::InForce {
    let version = entry.version().map(ToString::to_string);
    wire::InForce { source, version, document: entry.says() }
}

fn caller(path: Result<Path<(String, String)>, PathRejection>) -> Result<AppId, Problem> {
    let Path((namespace, app)) = path.map_err(|error| bad_path(&error))?;
    caller_of(&format!("{namespace}/{app}"))
}

fn caller_of(written: &str) -> Result<AppId, Problem> {
    let wrong = |error| format!("{} is no app: {error}", written.escape_debug());
    let fix = "write namespace/app: /v1/allowed/shop/frontend";
    AppId::parse(written).map_err(|error| problems::bad_request(wrong(error), fix))
}

fn bad_path(error: &PathRejection) -> Problem {
    problems::bad_request(error.body_text(), "write namespace/app: /v1/allowed/shop/frontend")
}

/// The text of a body, as long as a document may be.
async fn text(body: Body) -> Result<String, Problem> {
    let bytes = timeout(BODY, bytes(body)).await.map_err(|_| problems::too_slow())??;
    let fix = "send JSON, which is UTF-8";
    String::from_utf8(bytes).map_err(|error| problems::bad_request(error.to_string(), fix))
}

async fn bytes(mut body: Body) -> Result<Vec<u8>, Problem> {
    let (mut bytes, mut read) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| problems::bad_request(error.to_string(), "send it again"))?;
        let data = frame.data_ref().map(|data| &**data).unwrap_or_default();
        read += data.len();
        if read > MOST_READ {
            break;
        }
        if read <= MOST_BYTES {
            bytes.extend_from_slice(data);
        }
    }
    if read > MOST_BYTES { Err(problems::too_large(MOST_BYTES)) } else { Ok(bytes) }
}

fn answer(status: StatusCode, written: &wire::Written) -> Response {
    let mut response = json(status, written);
    let version = written.version.as_deref().map(crate::model::allowed::Version::from);
    let etag = version.as_ref().and_then(conditions::etag);
    response.headers_mut().extend(etag.map(|etag| (header::ETAG, etag)));
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    as_json(status, written(body))
}

fn written(body: &impl Serialize) -> String {
    // Fails only for maps with keys that are no text, which no answer has.
    serde_json::to_string(body).unwrap_or_default() + "\n"
}

fn as_json(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
