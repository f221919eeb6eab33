//! The API over real sockets, asked by a real HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use arc_swap::ArcSwap;
use axum::Extension;

use crate::model::operator::Operator;

use super::access::Access;
use super::server::MOST_CONNECTIONS;
use super::*;

/// So long that only something that hangs takes it, on whatever machine.
const FOREVER: Duration = Duration::from_mins(1);

struct Gateway {
    address: SocketAddr,
    unready: Arc<Mutex<Option<String>>>,
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

fn status_of_tests() -> Status {
    Status {
        cluster: "west".into(),
        version: "0".into(),
        pid: 1,
        ready: true,
        generation: 3,
        ..Status::default()
    }
}

fn answers(unready: &Arc<Mutex<Option<String>>>) -> Arc<Answers> {
    let unready = Arc::clone(unready);
    Arc::new(Answers {
        ready: Box::new(move || unready.lock().unwrap().clone().map_or(Ok(()), Err)),
        status: Box::new(status_of_tests),
        explain: Box::new(|name, asker| match name {
            "panic" => panic!("asked to"),
            name => json!({ "name": name, "asker": asker.to_string() }),
        }),
        metrics: Box::new(|| "strait_table_routes 5\n".into()),
        api: api(),
    })
}

/// Routes of another module, which tell who asks.
fn api() -> Router {
    let who = async |Extension(operator): Extension<Operator>| {
        json_response(StatusCode::OK, &json!({ "who": operator.to_string() }))
    };
    Router::new().route("/v1/who", get(who).put(who))
}

fn start(scope: Scope) -> Gateway {
    start_at("127.0.0.1:0", scope, Access::default())
}

fn start_at(address: &str, scope: Scope, access: Access) -> Gateway {
    let listener = AdminListener::tcp(address.parse().unwrap(), &[]).unwrap();
    let (unready, stop) = (Arc::default(), CancellationToken::new());
    let address = listener.address().unwrap();
    let access = Arc::new(ArcSwap::from_pointee(access));
    let served = tokio::spawn(serve(listener, scope, answers(&unready), access, stop.clone()));
    Gateway { address, unready, stop, served }
}

fn request(
    method: &str,
    path: &str,
    host: &str,
    body: &'static str,
) -> hyper::Request<Full<Bytes>> {
    let request = hyper::Request::builder().method(method).uri(path).header("host", host);
    request.body(Full::from(body)).unwrap()
}

async fn send<S>(stream: S, request: hyper::Request<Full<Bytes>>) -> (u16, String, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let code = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    let _ = connection.await;
    (code, kind, String::from_utf8(body.to_vec()).unwrap())
}

impl Gateway {
    async fn ask(&self, request: hyper::Request<Full<Bytes>>) -> (u16, String, String) {
        send(tokio::net::TcpStream::connect(self.address).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (code, kind, body) = self.ask(request("GET", path, "localhost:1", "")).await;
        assert_eq!(kind, "application/json", "{body}");
        (code, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn probes_are_answered() {
    let gateway = start(Scope::Probes);
    assert_eq!(gateway.get("/healthz").await, (200, json!({ "healthy": true })));
    assert_eq!(gateway.get("/readyz").await, (200, json!({ "ready": true })));
    *gateway.unready.lock().unwrap() = Some("draining".into());
    let unready = json!({ "ready": false, "reason": "draining" });
    assert_eq!(gateway.get("/readyz").await, (503, unready));
    assert_eq!(gateway.get("/healthz").await.0, 200);
    let scraped = gateway.ask(request("GET", "/metrics", "127.0.0.1", "")).await;
    let kind = "text/plain; version=0.0.4; charset=utf-8".to_owned();
    assert_eq!(scraped, (200, kind, "strait_table_routes 5\n".to_owned()));
}

#[tokio::test]
async fn the_rest_is_for_the_admin_listener_alone() {
    let (admin, probes) = (start(Scope::Admin), start(Scope::Probes));
    for path in ["/status", "/explain?name=a"] {
        assert_eq!(admin.get(path).await.0, 200);
        assert_eq!(probes.get(path).await.0, 404);
    }
    let (_, status) = admin.get("/status").await;
    assert_eq!(serde_json::from_value::<Status>(status).unwrap(), status_of_tests());
    let (_, missing) = probes.get("/").await;
    assert_eq!(missing["error"], "there is /healthz, /readyz and /metrics here");
}

#[tokio::test]
async fn explain_says_what_it_needs() {
    let gateway = start(Scope::Admin);
    let told = gateway.get("/explain?name=a%20b&from=2001:db8::1").await;
    assert_eq!(told, (200, json!({ "name": "a b", "asker": "2001:db8::1" })));
    assert_eq!(gateway.get("/explain?name=a&from=").await.1["asker"], "the client");
    let told = gateway.get("/explain?name=a&cluster=east&app=shop/frontend").await;
    assert_eq!(told.1["asker"], "shop/frontend of cluster east");
    for wrong in ["app=shop/a", "cluster=east&from=10.0.0.1", "cluster=east&app=frontend"] {
        let (code, error) = gateway.get(&format!("/explain?name=a&{wrong}")).await;
        assert!(code == 400 && error["error"].is_string(), "{wrong}: {error}");
    }
    let (code, error) = gateway.get("/explain").await;
    assert!(code == 400 && error["error"].as_str().unwrap().starts_with("which name?"), "{error}");
    let (code, error) = gateway.get("/explain?name=a&from=here").await;
    assert!(code == 400 && error["error"].as_str().unwrap().contains("no IP address"), "{error}");
    let (code, error) = gateway.get("/explain?name=panic").await;
    assert!(code == 500 && error["error"].as_str().unwrap().contains("log"), "{error}");
}

#[tokio::test]
async fn other_methods_and_bodies_are_refused() {
    let gateway = start(Scope::Admin);
    let (code, _, body) = gateway.ask(request("DELETE", "/status", "localhost", "")).await;
    assert!(code == 405 && body.contains("DELETE is not understood"), "{code} {body}");
    let (code, _, body) = gateway.ask(request("GET", "/status", "localhost", "{}")).await;
    assert!(code == 413 && body.contains("no body"), "{code} {body}");
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_to_loopback_reads_nothing() {
    let gateway = start(Scope::Admin);
    for host in
        ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.8.8.8", "[::1]:9901", "[::1]"]
    {
        assert_eq!(gateway.ask(request("GET", "/status", host, "")).await.0, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9901",
        "localhost.evil.example",
        "10.0.0.1:9901",
        "",
        "[::2]",
    ] {
        let (code, _, body) = gateway.ask(request("GET", "/status", host, "")).await;
        assert_eq!(code, 421, "{host} {body}");
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn asking_for_tokens(folder: &std::path::Path) -> Access {
    let file = folder.join("tokens");
    std::fs::write(&file, format!("deploy:{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Access { token_file: Some(file), tls: None }
}

/// A request with one more header.
fn with(
    name: &'static str,
    value: &str,
    mut request: hyper::Request<Full<Bytes>>,
) -> hyper::Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_listener_that_others_reach_answers_probes_alone_until_it_knows_whom_to_believe() {
    let gateway = start_at("0.0.0.0:0", Scope::Admin, Access::default());
    for (path, expected) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 403), ("/status", 403), ("/v1/who", 403)]
    {
        let (code, _, body) = gateway.ask(request("GET", path, "localhost", "")).await;
        assert_eq!(code, expected, "{path} {body}");
    }
    let (.., body) = gateway.ask(request("GET", "/status", "localhost", "")).await;
    assert!(body.contains("listeners.admin.tokenFile"), "{body}");
}

#[tokio::test]
async fn who_has_a_token_of_the_file_may_ask_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "127.0.0.1:0"] {
        let gateway = start_at(address, Scope::Admin, asking_for_tokens(folder.path()));
        let ask = |token: &str| {
            let asked = request("GET", "/v1/who", "localhost", "");
            gateway.ask(with("authorization", &format!("Bearer {token}"), asked))
        };
        let (code, _, body) = ask(TOKEN).await;
        assert!(code == 200 && body.contains("token deploy from 127.0.0.1:"), "{body}");
        assert_eq!(ask(&TOKEN[1..]).await.0, 401);
        assert_eq!(gateway.get("/healthz").await.0, 200);
        let (code, _, body) = gateway.ask(request("GET", "/v1/who", "localhost", "")).await;
        assert!(code == 401 && body.contains("Authorization: Bearer"), "{body}");
        // What the file holds is what counts, at once.
        std::fs::write(folder.path().join("tokens"), format!("{TOKEN}2\n")).unwrap();
        assert_eq!(ask(TOKEN).await.0, 401);
        assert_eq!(ask(&format!("{TOKEN}2")).await.0, 200);
        std::fs::remove_file(folder.path().join("tokens")).unwrap();
        assert_eq!(ask(&format!("{TOKEN}2")).await.0, 401);
    }
}

#[tokio::test]
async fn changes_are_asked_for_as_json_and_by_no_foreign_page() {
    let gateway = start(Scope::Admin);
    let put = || request("PUT", "/v1/who", "localhost:1", "{}");
    let json = || with("content-type", "application/json", put());
    assert_eq!(gateway.ask(put()).await.0, 415);
    assert_eq!(gateway.ask(with("content-type", "text/plain", put())).await.0, 415);
    assert_eq!(gateway.ask(json()).await.0, 200);
    assert_eq!(gateway.ask(with("origin", "http://localhost:1", json())).await.0, 200);
    assert_eq!(gateway.ask(with("origin", "http://evil.example", json())).await.0, 403);
    assert_eq!(gateway.ask(with("host", "evil.example", json())).await.0, 421);
    let probes = start(Scope::Probes);
    assert_eq!(probes.get("/v1/who").await.0, 404);
}

#[tokio::test]
async fn slow_clients_do_not_keep_a_probe_out() {
    let gateway = start(Scope::Probes);
    let mut slow = Vec::new();
    for _ in 0..MOST_CONNECTIONS * 2 {
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /metrics HT").await.unwrap();
        slow.push(stream);
    }
    let probe = tokio::time::timeout(FOREVER, gateway.get("/healthz")).await;
    assert_eq!(probe.expect("the probe is answered").0, 200);
    // The oldest has given way; the newest is still served.
    let oldest = slow.remove(0).into_std().unwrap();
    let newest = slow.pop().unwrap().into_std().unwrap();
    let read = tokio::task::spawn_blocking(move || (closed(oldest), complete(newest)));
    assert_eq!(read.await.unwrap(), (true, true));
}

/// Whether the connection has ended, by FIN or by RST.
fn closed(mut stream: TcpStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Whether the rest of the request gets its response.
fn complete(mut stream: TcpStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    stream.write_all(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.starts_with("HTTP/1.1 200 ")
}

#[tokio::test]
async fn a_unix_socket_serves_whatever_the_host_header_says_and_goes_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = AdminListener::unix(&path).unwrap();
    let (unready, stop) = (Arc::default(), CancellationToken::new());
    let access = CurrentAccess::default();
    let answers = answers(&unready);
    let served = tokio::spawn(serve(listener, Scope::Admin, answers, access, stop.clone()));
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (code, _, body) = send(stream, request("GET", "/status", "anything", "")).await;
    assert!(code == 200 && body.contains("\"generation\":3"), "{code} {body}");
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (.., body) = send(stream, request("GET", "/v1/who", "anything", "")).await;
    let user = rustix::process::getuid().as_raw();
    assert!(body.contains(&format!("user {user} (process {})", std::process::id())), "{body}");
    stop.cancel();
    served.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_listening() {
    let gateway = start(Scope::Admin);
    let idle = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(gateway.get("/healthz").await.0, 200);
    gateway.stop.cancel();
    gateway.served.await.unwrap().unwrap();
    let idle = idle.into_std().unwrap();
    assert!(tokio::task::spawn_blocking(move || closed(idle)).await.unwrap());
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn clients_that_do_not_wait_for_their_answers_take_few_threads() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(AT_A_TIME + 1)));
    let (counting, waiting) = (Arc::clone(&begun), Arc::clone(&ended));
    let slow = Answers {
        ready: Box::new(|| Ok(())),
        status: Box::new(status_of_tests),
        explain: Box::new(|_, _| Value::Null),
        metrics: Box::new(move || {
            if counting.fetch_add(1, SeqCst) < AT_A_TIME {
                waiting.wait();
            }
            String::new()
        }),
        api: Router::new(),
    };
    let desk = Desk { answers: Arc::new(slow), places: Arc::new(Semaphore::new(AT_A_TIME)) };
    let ask = || tokio::spawn(metrics(State(desk.clone())));
    let asked: Vec<_> = (0..10).map(|_| ask()).collect();
    while begun.load(SeqCst) < AT_A_TIME {
        tokio::task::yield_now().await;
    }
    asked.iter().for_each(JoinHandle::abort);
    assert_eq!(readyz(State(desk.clone())).await.status(), StatusCode::OK);
    assert_eq!(desk.places.available_permits(), 0, "those that nobody waits for count as well");
    tokio::task::spawn_blocking(move || ended.wait()).await.unwrap();
    assert_eq!(metrics(State(desk)).await.status(), StatusCode::OK);
    assert_eq!(begun.load(SeqCst), AT_A_TIME + 1, "those that had gone were not computed");
}
