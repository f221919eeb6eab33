//! Takes questions and sends what [`super::answer`] says, on a thread of its own: a flood of datagrams slows nothing else down.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

use crate::config::Settings;
use crate::routing::live::{Generation, Live};
use crate::telemetry::metrics::Metrics;

use super::answer::{Answer, Transport, answer, truncated};
use super::book::Names;
use super::listener::Listener;
use super::strangers::{Strangers, Verdict};

/// A question takes 300 octets at most without options; one that is longer than this is no question.
const LONGEST: usize = 4096;
/// Streams at once, of everybody and of those who are not of this cluster. A resolver has one or two.
const STREAMS: usize = 256;
const STREAMS_OF_STRANGERS: usize = 128;
/// From one question of a stream to the next, and for an answer to be taken (RFC 7766 §6.2.3 leaves it to the server).
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of the system, which would come again at once: too many descriptors, no memory.
const PAUSE: Duration = Duration::from_millis(50);

/// What all questions are answered from.
#[derive(Debug)]
pub struct Desk {
    live: Arc<Live<Settings>>,
    metrics: Arc<Metrics>,
    names: Mutex<Option<Arc<Names>>>,
}

/// A thread that serves once it is told to. Ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    begin: CancellationToken,
    _stop: DropGuard,
}

impl Server {
    /// Starts the thread; what may fail does so here. It answers nothing before [`Server::begin`] and `opened`.
    pub fn prepare(
        listener: Listener,
        desk: Arc<Desk>,
        opened: CancellationToken,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (begin, stop) = (CancellationToken::new(), stop.child_token());
        let (told, stopped) = (begin.clone(), stop.clone());
        let serve = async move {
            told.cancelled().await;
            opened.cancelled().await;
            serve(listener, desk).await
        };
        thread::Builder::new().name("dns".to_owned()).spawn(move || {
            if let Some(Err(error)) = runtime.block_on(stopped.run_until_cancelled(serve)) {
                error!(%error, "the name server has ended: please restart the gateway");
            }
        })?;
        Ok(Self { begin, _stop: stop.drop_guard() })
    }

    /// Has it answer.
    pub fn begin(&self) {
        self.begin.cancel();
    }
}

async fn serve(listener: Listener, desk: Arc<Desk>) -> io::Result<()> {
    let udp = UdpSocket::from_std(listener.udp)?;
    let tcp = TcpListener::from_std(listener.tcp)?;
    tokio::join!(datagrams(&udp, &desk), streams(&tcp, &desk));
    Ok(())
}

async fn datagrams(socket: &UdpSocket, desk: &Desk) {
    let mut strangers = Strangers::new(Instant::now());
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        let request = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = desk.datagram(request, source, &mut strangers) {
            // A datagram for which there is no room is one that is lost, as any may be.
            let _ = socket.try_send_to(&answer.bytes, source);
        }
    }
}

async fn streams(listener: &TcpListener, desk: &Arc<Desk>) {
    let all = Arc::new(Semaphore::new(STREAMS));
    let strangers = Arc::new(Semaphore::new(STREAMS_OF_STRANGERS));
    // Aborts those that are left when the server stops.
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let of_strangers =
            (!desk.is_local(peer.ip())).then(|| Arc::clone(&strangers).try_acquire_owned());
        let place = (Arc::clone(&all).try_acquire_owned(), of_strangers.transpose());
        let (Ok(place), Ok(of_strangers)) = place else {
            desk.metrics.dns.dropped("streams");
            continue;
        };
        let desk = Arc::clone(desk);
        running.spawn(async move {
            // Whoever breaks off has nothing to be told.
            let _ = converse(stream, &desk).await;
            drop((place, of_strangers));
        });
    }
}

/// Question after question; each has its length in front (RFC 1035 §4.2.2).
async fn converse(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let reading = async {
            let length = usize::from(stream.read_u16().await?);
            let request = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(request).await?;
            io::Result::Ok(length)
        };
        let length = timeout(PATIENCE, reading).await??;
        let request = buffer.get(..length).unwrap_or_default();
        let Some(answer) = desk.answer(request, Transport::Tcp) else {
            return Ok(());
        };
        let mut framed =
            u16::try_from(answer.bytes.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        framed.extend(answer.bytes);
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}

impl Desk {
    /// For the servers of one gateway.
    pub fn new(live: Arc<Live<Settings>>, metrics: Arc<Metrics>) -> Self {
        Self { live, metrics, names: Mutex::default() }
    }

    fn datagram(
        &self,
        request: &[u8],
        source: SocketAddr,
        strangers: &mut Strangers,
    ) -> Option<Answer> {
        if self.is_local(source.ip()) {
            return self.answer(request, Transport::Udp);
        }
        match strangers.judge(source.ip(), Instant::now()) {
            Verdict::Answer => self.answer(request, Transport::Udp),
            Verdict::Truncate => {
                self.metrics.dns.dropped("rate");
                truncated(request)
            }
            Verdict::Drop => {
                self.metrics.dns.dropped("rate");
                None
            }
        }
    }

    fn answer(&self, request: &[u8], over: Transport) -> Option<Answer> {
        let names = self.names(&self.live.load())?;
        let answer = answer(request, over, &*names);
        match &answer {
            Some(answer) => self.metrics.dns.answered(over.label(), answer.label()),
            None => self.metrics.dns.dropped("no_question"),
        }
        answer
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.live.load().table.is_local(address.to_canonical())
    }

    /// The names of the table in force, made by the first question after it came.
    fn names(&self, generation: &Generation<Settings>) -> Option<Arc<Names>> {
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|names| names.are_of(generation)) {
            *known = Names::of(generation).map(Arc::new);
        }
        known.clone()
    }
}
