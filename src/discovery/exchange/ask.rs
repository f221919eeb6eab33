//! Asks one gateway, again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tower::service_fn;

use crate::exchange::proto::discover_response::Word as Said;
use crate::exchange::proto::{DiscoverRequest, DiscoverResponse};
use crate::exchange::{Counted, HEARTBEAT, MAX_MESSAGE};
use crate::routing::table::Peer;
use crate::telemetry::links::Direction;

use super::translate::translate;
use super::{Heard, Stream, Undialled, Ways};

/// A gateway to which no link leads within this time is down: links take a few round trips.
const DIAL: Duration = Duration::from_millis(500);
/// Three words in a row that do not come.
const MISSED: Duration = HEARTBEAT.saturating_mul(3);
/// A gateway that was heard is asked again at once, in case only the connection was lost; then after this, twice this and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The method of `exchange.proto`.
const DISCOVER: &str = "/strait.v1.Exchange/Discover";

/// What a gateway has said, or that it says nothing.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) gateway: SocketAddr,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    /// All that it exports.
    State(Heard),
    /// That it still does.
    Same,
    /// Nothing, any more.
    Silent(Silence),
}

/// Why nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silence {
    /// Whether something answers there.
    pub(super) answers: bool,
    /// Whether it said what it must not say.
    pub(super) wrong: bool,
    pub(super) why: String,
}

/// Asks until it is dropped.
pub(super) async fn ask(peer: Peer, gateway: SocketAddr, ways: Ways, words: mpsc::Sender<Asked>) {
    let mut pause = Duration::ZERO;
    loop {
        let mut heard = false;
        let silence = match timeout(DIAL, (ways.dial)(Arc::clone(&peer.cluster), gateway)).await {
            Ok(Ok(stream)) => {
                let _open = ways.metrics.links.open(&peer.cluster, Direction::Out);
                listen(&peer, gateway, stream, &words, &mut heard).await
            }
            Ok(Err(Undialled { answered: answers, why })) => Silence { answers, wrong: false, why },
            Err(_elapsed) => Silence::deaf(format!("no link within {} ms", DIAL.as_millis())),
        };
        if silence.wrong {
            ways.metrics.links.wrong(&peer.cluster);
        } else if heard {
            pause = Duration::ZERO;
        }
        if words.send(Asked { gateway, word: Word::Silent(silence) }).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

impl Silence {
    fn deaf(why: String) -> Self {
        Self { answers: false, wrong: false, why }
    }

    fn wrong(why: String) -> Self {
        Self { answers: true, wrong: true, why }
    }

    fn of(status: &Status) -> Self {
        let why = status.message().chars().take(200).collect();
        // Too large (tonic says so), or no message of this protocol.
        let wrong = [Code::OutOfRange, Code::Internal, Code::Unimplemented];
        if wrong.contains(&status.code()) { Self::wrong(why) } else { Self::deaf(why) }
    }
}

/// Passes on what is said, until nothing is.
async fn listen(
    peer: &Peer,
    gateway: SocketAddr,
    stream: Box<dyn Stream>,
    words: &mpsc::Sender<Asked>,
    heard: &mut bool,
) -> Silence {
    let missed = || Silence::deaf(format!("nothing said for {} ms", MISSED.as_millis()));
    let mut said = match timeout(MISSED, discover(stream)).await {
        Ok(Ok(said)) => said,
        Ok(Err(silence)) => return silence,
        Err(_elapsed) => return missed(),
    };
    loop {
        let word = match timeout(MISSED, said.message()).await {
            Ok(Ok(Some(DiscoverResponse { word }))) => word,
            Ok(Ok(None)) => return Silence::deaf("the gateway has ended the exchange".to_owned()),
            Ok(Err(status)) => return Silence::of(&status),
            Err(_elapsed) => return missed(),
        };
        let word = match word {
            Some(Said::State(state)) => match translate(&peer.cluster, &peer.wanted, state) {
                Ok(state) => Word::State(state),
                Err(wrong) => return Silence::wrong(wrong.to_string()),
            },
            // A word of a later version: it is alive.
            Some(Said::Heartbeat(_)) | None => Word::Same,
        };
        *heard = true;
        if words.send(Asked { gateway, word }).await.is_err() {
            return Silence::deaf("nobody listens".to_owned());
        }
    }
}

async fn discover(stream: Box<dyn Stream>) -> Result<Streaming<DiscoverResponse>, Silence> {
    let channel = channel(stream).await.map_err(|error| Silence::deaf(error.to_string()))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    client.ready().await.map_err(|error| Silence::deaf(error.to_string()))?;
    // Not by the generated client, which reads a message before anybody can see how much it is.
    let method = PathAndQuery::from_static(DISCOVER);
    let said = client.server_streaming(Request::new(DiscoverRequest {}), method, Counted).await;
    said.map(tonic::Response::into_inner).map_err(|status| Silence::of(&status))
}

/// HTTP/2 over this one stream. It is not connected anew: whoever asks dials again.
async fn channel(stream: Box<dyn Stream>) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connect = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::other("the link has ended"));
        std::future::ready(stream)
    });
    Endpoint::from_static("http://exchange").connect_with_connector(connect).await
}
