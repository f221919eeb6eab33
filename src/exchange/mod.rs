//! What gateways tell each other over links: the protocol, and the side that answers. The side that asks is a source,
//! `discovery::exchange`.

mod answer;
mod counted;
mod link;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::cluster::Inquiry;
use crate::routing::live::Live;

pub use counted::Counted;
use proto::exchange_server::{Exchange, ExchangeServer};
use proto::{DiscoverRequest, DiscoverResponse};

/// What `proto/strait/v1/exchange.proto` makes. Kept in the tree: `tests/proto.rs` compares.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::wildcard_enum_match_arm,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    reason = "it is generated"
)]
pub mod proto {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/strait.v1.rs"));
}

/// From one word on a stream to the next, at most. Three of them missing is a gateway lost, well within the second in which a
/// failed cluster is to be left.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// Most apps of a state. Two hundred are many for a cluster.
pub const MOST_APPS: usize = 10_000;
/// Most names of an app: one for each template of `names`.
pub const MOST_NAMES: usize = 16;
/// Most bytes of a message: 10,000 apps with names of 60 letters under three templates take 2.5 MB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A request says nothing.
const MAX_REQUEST: usize = 1 << 10;

/// Answers on every link that comes, until `stop`; then the streams end, so that the others leave for another gateway.
pub async fn serve<S: Send + Sync + 'static>(
    live: Arc<Live<S>>,
    inquiries: mpsc::Receiver<Inquiry>,
    stop: CancellationToken,
) {
    let answering = Answering { live, stop: stop.clone() };
    let service = ExchangeServer::new(answering).max_decoding_message_size(MAX_REQUEST);
    // One question on each link: whoever asks for more waits.
    let server = Server::builder().max_concurrent_streams(1).http2_max_header_list_size(8 << 10);
    let incoming = ReceiverStream::new(inquiries).map(link::Link).map(Ok::<_, std::io::Error>);
    let ended = server.serve_with_incoming_shutdown(service, incoming, stop.cancelled_owned());
    if let Err(error) = ended.await {
        warn!(%error, "the exchange with other clusters ended");
    }
}

struct Answering<S> {
    live: Arc<Live<S>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl<S: Send + Sync + 'static> Exchange for Answering<S> {
    type DiscoverStream = ReceiverStream<Result<DiscoverResponse, Status>>;

    async fn discover(
        &self,
        request: Request<DiscoverRequest>,
    ) -> Result<Response<Self::DiscoverStream>, Status> {
        // Always there: the link brings it.
        let asking = request.extensions().get::<link::Asking>();
        let asking = asking.ok_or_else(|| Status::internal("the link has no cluster"))?;
        // One word ahead: who does not read is not waited for with more.
        let (words, said) = mpsc::channel(1);
        let (live, stop) = (Arc::clone(&self.live), self.stop.clone());
        tokio::spawn(answer::tell(live, Arc::clone(&asking.0), words, stop));
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

#[cfg(test)]
mod tests;
