//! Sidecars as daprd has them: gRPC callers and callees that prove who they are.
//!
//! TLS with a certificate on both sides and ALPN `h2` alone. A caller knows whom it reaches by the SPIFFE path, whatever the host
//! name; a callee takes every client of the common root. A caller has one connection, on which all its calls go.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc::sync_channel};
use std::thread;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::{Connected, Server};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::common::PATIENCE;
use super::common::authority::{Authority, Certificate, spiffe_path};

const METHOD: &str = "/strait.test.Calls/Call";
/// As daprd pings on its connections to other sidecars.
const PING: Duration = Duration::from_secs(10);
/// What a caller says of a sidecar that is not the one it wanted.
pub(crate) const ANOTHER_APP: &str = "the sidecar is another app's";

/// A machine with sidecars. What runs on it is in the network of the thread that has made it.
pub(crate) struct Host {
    tasks: Handle,
    _stop: DropGuard,
}

impl Host {
    pub(crate) fn new() -> Self {
        let (send, started) = sync_channel(1);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            send.send(runtime.handle().clone()).unwrap();
            runtime.block_on(stopped.cancelled());
        });
        Self { tasks: started.recv().unwrap(), _stop: stop.drop_guard() }
    }

    /// Runs something of the test's own.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Starts the sidecar of an app; without an authority it speaks plain text.
    pub(crate) fn serve(&self, at: SocketAddr, app: &str, root: Option<&Authority>) -> SocketAddr {
        let tls = root.map(|root| callee(root.roots(), &root.sidecar(app)));
        let calls = Calls { app: app.into() };
        let (send, started) = sync_channel(1);
        self.tasks.spawn(async move {
            let listener = TcpListener::bind(at).await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            serve(listener, calls, tls).await;
        });
        started.recv().unwrap()
    }

    /// Connects a sidecar with that of an app.
    pub(crate) fn connect(&self, from: &Sidecar, way: &Way, app: &str) -> Result<Caller, String> {
        let tls = match way {
            Way::Plain(_) => None,
            Way::Named(..) | Way::Dialled(_) => Some(from.client(app)),
        };
        let dials = Arc::new(AtomicUsize::new(0));
        let dialling = Dialling { from: from.from, way: way.clone(), tls };
        let counted = Arc::clone(&dials);
        let connector = service_fn(move |_| {
            counted.fetch_add(1, Ordering::AcqRel);
            let dialling = dialling.clone();
            async move { dialling.open().await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://app")
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PATIENCE)
            .keep_alive_while_idle(true);
        // As a task: what is waited for here is polled by this thread, whose network is another one.
        let connect = async move { endpoint.connect_with_connector(connector).await };
        let channel = self.tasks.spawn(connect);
        let channel = self.tasks.block_on(channel).unwrap().map_err(|error| told(&error))?;
        Ok(Caller { tasks: self.tasks.clone(), calls: Grpc::new(channel), dials })
    }
}

/// The whole of an error: tonic's say little themselves.
fn told(error: &dyn Error) -> String {
    let because = error.source().map(|source| format!(": {}", told(source)));
    format!("{error}{}", because.unwrap_or_default())
}

/// Who calls, and from where.
pub(crate) struct Sidecar {
    pub(crate) from: IpAddr,
    /// None: it has no certificate.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) roots: RootCertStore,
}

impl Sidecar {
    pub(crate) fn new(from: IpAddr, app: &str, root: &Authority) -> Self {
        Self { from, certificate: Some(root.sidecar(app)), roots: root.roots() }
    }

    fn client(&self, callee: &str) -> TlsConnector {
        let chain = WebPkiServerVerifier::builder(Arc::new(self.roots.clone())).build().unwrap();
        let verifier = ByPath { chain, path: spiffe_path(callee) };
        let config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.certificate {
            Some(own) => config.with_client_auth_cert(own.chain(), own.key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Go's TLS, which daprd has, resumes only where it is told to; and what is resumed is not verified.
        config.resumption = Resumption::disabled();
        Arc::new(config).into()
    }
}

/// How a caller comes to an app.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// By the app's name, which stands in the hello, at an ingress listener.
    Named(SocketAddr, &'static str),
    /// By an address alone: a hello without a server name.
    Dialled(SocketAddr),
    /// By an address, without TLS: HTTP/2 with prior knowledge (RFC 9113 §3.3).
    Plain(SocketAddr),
}

#[derive(Clone)]
struct Dialling {
    from: IpAddr,
    way: Way,
    tls: Option<TlsConnector>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialling {
    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let (at, name) = match &self.way {
            Way::Named(at, name) => (*at, ServerName::try_from(*name).unwrap()),
            Way::Dialled(at) | Way::Plain(at) => (*at, at.ip().into()),
        };
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(at).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => Ok(Box::new(tls.connect(name, stream).await?)),
            None => Ok(Box::new(stream)),
        }
    }
}

/// A caller with its connection, which it opens again by itself when it is closed.
pub(crate) struct Caller {
    tasks: Handle,
    calls: Grpc<Channel>,
    dials: Arc<AtomicUsize>,
}

/// Who has answered, who the callee says has called, and what it has heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) app: String,
    pub(crate) caller: String,
    pub(crate) body: String,
}

impl Caller {
    pub(crate) fn call(&mut self, body: &str) -> Result<Answer, String> {
        let calls = &mut self.calls;
        let answer = self.tasks.block_on(async {
            calls.ready().await.map_err(|error| Status::unavailable(told(&error)))?;
            let method = PathAndQuery::from_static(METHOD);
            calls.unary(Request::new(body.to_owned()), method, ProstCodec::default()).await
        });
        let answer: String = answer.map_err(|status| told(&status))?.into_inner();
        let mut parts = answer.splitn(3, '\n').map(str::to_owned);
        let mut part = || parts.next().ok_or_else(|| format!("not an answer: {answer}"));
        Ok(Answer { app: part()?, caller: part()?, body: part()? })
    }

    /// The app that answers; an error where it has not heard what was said.
    pub(crate) fn who(&mut self) -> Result<String, String> {
        let answer = self.call("who?")?;
        (answer.body == "who?").then_some(answer.app).ok_or_else(|| "other bytes".to_owned())
    }

    /// How many connections it has opened so far.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::Acquire)
    }
}

/// Verifies all but the host name, and the app by the path of the certificate's only URI.
#[derive(Debug)]
struct ByPath {
    chain: Arc<WebPkiServerVerifier>,
    path: String,
}

impl ServerCertVerifier for ByPath {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end, rest, name, ocsp, now) {
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        let id = spiffe_id(end).unwrap_or_default();
        // `spiffe://`, the trust domain, the path.
        if id
            .strip_prefix("spiffe://")
            .is_some_and(|id| id.find('/').is_some_and(|at| id[at..] == self.path))
        {
            return Ok(ServerCertVerified::assertion());
        }
        let told: Arc<dyn Error + Send + Sync> =
            Arc::from(Box::from(format!("{ANOTHER_APP}: {id}")));
        Err(CertificateError::Other(OtherError(told)).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The only URI of a certificate.
fn spiffe_id(certificate: &CertificateDer<'_>) -> Option<String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        Some((*uri).to_owned())
    });
    uris.next().filter(|_| uris.next().is_none())
}

fn callee(roots: RootCertStore, own: &Certificate) -> TlsAcceptor {
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut config = config.with_single_cert(own.chain(), own.key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// Serves until its host goes.
async fn serve(listener: TcpListener, calls: Calls, tls: Option<TlsAcceptor>) {
    let (send, accepted) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, send) = (tls.clone(), send.clone());
            // By itself: one that is slow in its handshake keeps nobody waiting.
            tokio::spawn(async move {
                if let Ok(accepted) = Accepted::new(stream, tls).await {
                    let _ = send.send(accepted).await;
                }
            });
        }
    });
    let accepted = ReceiverStream::new(accepted).map(Ok::<_, Infallible>);
    Server::builder().serve_with_incoming(calls, accepted).await.unwrap();
    pending::<()>().await;
}

/// A connection of a callee.
pub(crate) struct Accepted {
    stream: Box<dyn Stream>,
    caller: Arc<str>,
}

impl Accepted {
    /// Of a callee that does not ask who calls.
    pub(crate) fn of(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: Box::new(stream), caller: "nobody".into() }
    }

    async fn new(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let Some(tls) = tls else {
            return Ok(Self::of(stream));
        };
        let stream = tls.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let caller = chain.first().and_then(spiffe_id).unwrap_or_default().into();
        Ok(Self { stream: Box::new(stream), caller })
    }
}

impl Connected for Accepted {
    type ConnectInfo = Arc<str>;

    fn connect_info(&self) -> Arc<str> {
        Arc::clone(&self.caller)
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The only method: says which app this is, who has called, and what it has heard.
#[derive(Clone)]
struct Calls {
    app: Arc<str>,
}

impl NamedService for Calls {
    const NAME: &'static str = "strait.test.Calls";
}

impl Service<http::Request<tonic::body::Body>> for Calls {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<String, String>::default();
            Ok(tonic::server::Grpc::new(codec).unary(calls, request).await)
        })
    }
}

impl UnaryService<String> for Calls {
    type Response = String;
    type Future = std::future::Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let caller = request.extensions().get::<Arc<str>>().cloned().unwrap_or_default();
        let said = format!("{}\n{caller}\n{}", self.app, request.into_inner());
        std::future::ready(Ok(Response::new(said)))
    }
}
