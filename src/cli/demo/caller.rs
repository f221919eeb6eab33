//! An app that calls: it dials a gateway from its own address and says in the SNI which app it wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::model::ending::Alert;

/// A call that takes longer has failed: over the gateway's own bound for dialling (`limits.connectTotal`, 3 s), so that its
/// answer comes first.
const PATIENCE: Duration = Duration::from_secs(10);

/// The alerts that callers of the demo get.
const ALERTS: [(AlertDescription, Alert, &str); 3] = [
    (AlertDescription::AccessDenied, Alert::AccessDenied, "this app is not for that network"),
    (
        AlertDescription::UnrecognisedName,
        Alert::UnrecognizedName,
        "whoever may call nothing learns no names",
    ),
    (AlertDescription::InternalError, Alert::InternalError, "no endpoint answers"),
];

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// `namespace/app`.
    pub(super) id: &'static str,
    /// Where it sits, as it is told: `in west`.
    pub(super) place: &'static str,
    /// The address that it calls from: what `allow` rules see of it.
    pub(super) source: Ipv4Addr,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The app's answer.
    Arrived(String),
    /// With a TLS alert: its name and what it means.
    Refused(String),
    /// Neither: no connection, no answer in time, or another app than the wanted one.
    Failed(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.id, self.place)
    }
}

impl Caller {
    /// Asks the app behind `name` at a gateway.
    pub(super) async fn call(
        &self,
        gateway: SocketAddr,
        name: &str,
        tls: Arc<ClientConfig>,
        question: &str,
    ) -> Outcome {
        let asking = ask(self.source, gateway, name, tls, question);
        match tokio::time::timeout(PATIENCE, Box::pin(asking)).await {
            Ok(Ok(answer)) => Outcome::Arrived(answer),
            Ok(Err(error)) => judge(&error),
            Err(_) => Outcome::Failed(format!("no answer within {}s", PATIENCE.as_secs())),
        }
    }
}

async fn ask(
    source: Ipv4Addr,
    gateway: SocketAddr,
    name: &str,
    tls: Arc<ClientConfig>,
    question: &str,
) -> io::Result<String> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = dial(source, gateway).await?;
    let mut stream = TlsConnector::from(tls).connect(name, stream).await?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

async fn dial(source: Ipv4Addr, gateway: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    socket.connect(gateway).await
}

/// What the gateway says with an alert.
fn meaning(alert: AlertDescription) -> String {
    let known = ALERTS.iter().find(|(known, ..)| *known == alert);
    known.map_or_else(
        || format!("{alert:?}"),
        |(_, alert, words)| format!("{}, {words}", alert.label()),
    )
}

/// An alert from the other side is a refusal; what else went wrong is a failure.
fn judge(error: &io::Error) -> Outcome {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(&rustls::Error::AlertReceived(alert)) => Outcome::Refused(meaning(alert)),
        Some(_) | None => Outcome::Failed(error.to_string()),
    }
}
