//! Joins the exchange with links: how gateways of other clusters are dialled for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::cluster::Current;
use crate::cluster::link::LinkError;
use crate::cluster::preamble::{self, Preamble};
use crate::discovery::exchange::{Stream, Undialled, Ways};
use crate::model::cluster::exchange_name;
use crate::proxy_protocol::Addresses;
use crate::reactor::Socket;
use crate::telemetry::metrics::Metrics;

/// What stands in place of a connection's id: no caller is behind this link.
const ID: &[u8] = b"exchange";

/// Dials with the links that are in force when it does. The source says why there is none.
pub(super) fn ways(links: &Arc<Current>, metrics: &Arc<Metrics>) -> Ways {
    let links = Arc::clone(links);
    let dial = move |cluster: Arc<str>, gateway| {
        let links = Arc::clone(&links);
        Box::pin(async move { dial(&links, &cluster, gateway).await }) as _
    };
    Ways { dial: Arc::new(dial), metrics: Arc::clone(metrics) }
}

async fn dial(
    links: &Current,
    cluster: &Arc<str>,
    gateway: SocketAddr,
) -> Result<Box<dyn Stream>, Undialled> {
    let unreached = |error: io::Error| Undialled { answered: false, why: error.to_string() };
    let (socket, ends) = connect(gateway).await.map_err(unreached)?;
    let answered = |why: String| Undialled { answered: true, why };
    let links = links.load().ok_or_else(|| answered("there are no links".to_owned()))?;
    let refused = |error: LinkError| answered(error.to_string());
    let stream = links.open(socket, cluster, &exchange_name(cluster)).await;
    let mut stream = stream.map_err(refused)?;
    // HTTP/2 without TLS of its own.
    let (unique_id, plain) = (ID.to_vec(), true);
    let preamble = Preamble { ends, unique_id, app: None, traceparent: None, plain };
    stream.ask(&preamble::encode(&preamble)).await.map_err(refused)?;
    Ok(Box::new(stream))
}

async fn connect(gateway: SocketAddr) -> io::Result<(Socket, Addresses)> {
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let ends = Addresses { source: stream.local_addr()?, destination: stream.peer_addr()? };
    Ok((Socket::from_std(stream.into_std()?)?, ends))
}
