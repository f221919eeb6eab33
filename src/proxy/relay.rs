//! The portable copier: bytes both ways between two streams until both have ended, or one breaks.
//!
//! Bytes go through the thread's one buffer. Only what the other side does not take at once is kept, at most one buffer a
//! direction, and reading waits until that is gone: so a side that does not read slows the other down, and an idle pair
//! holds nothing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::reactor::Socket;
use crate::socket;

use super::buffer;

/// Reads of one direction before others on this thread get their turn: 1 MiB with full buffers.
const TURN: u32 = 16;

/// A side that nobody reads, because the other takes no more or its FIN has come, is looked at so often whether it broke:
/// readiness to read says nothing then, and without this a dead pair would stay for the whole idle limit.
const UNREAD_CHECK: Duration = Duration::from_secs(1);

/// What the copier needs of a side beyond reading and writing.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Closing it from now on tells its far end that the connection broke.
    fn reset_on_close(&self);

    /// Whether it is broken; for a side that nobody reads now.
    fn is_broken(&self) -> bool;
}

impl Stream for Socket {
    fn reset_on_close(&self) {
        // Fails only on a socket that is broken already.
        let _ = socket::reset_on_close(self);
    }

    fn is_broken(&self) -> bool {
        Self::is_broken(self)
    }
}

/// How a relay ended, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides sent a FIN.
    Finished,
    /// The client broke the connection.
    ResetByClient,
    /// The endpoint broke the connection.
    ResetByEndpoint,
    /// No byte in either direction for the idle limit.
    Idle,
    /// Closed by us between two calls.
    Quiet,
    /// The stop signal.
    Stopped,
    /// A panic of ours.
    Fault,
}

/// What limits and counts a relay.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// Counts bytes from the client, while they come.
    pub(crate) up: IntCounter,
    /// Counts bytes from the endpoint, while they come.
    pub(crate) down: IntCounter,
    /// Ends it when no byte came for so long.
    pub(crate) idle: Duration,
    /// Ends it at once.
    pub(crate) stop: &'a CancellationToken,
}

/// Two streams joined.
#[derive(Debug)]
pub(crate) struct Relay<'a, C, E> {
    client: &'a mut C,
    endpoint: &'a mut E,
    up: Direction,
    down: Direction,
    idle: Duration,
    stop: &'a CancellationToken,
    /// When the last byte came.
    moved: Instant,
}

/// What a stage of the relay came to.
enum Step {
    Ended(End),
    Answered,
}

impl<'a, C: Stream, E: Stream> Relay<'a, C, E> {
    /// Joins two streams. The endpoint first gets `preface`: `header` octets of our own, which do not count, and then what was
    /// read from the client already.
    pub(crate) fn new(
        client: &'a mut C,
        endpoint: &'a mut E,
        preface: Bytes,
        header: usize,
        terms: Terms<'a>,
    ) -> Self {
        let Terms { up, down, idle, stop } = terms;
        let mut up = Direction::new(up);
        up.count(preface.len().saturating_sub(header));
        up.kept = preface;
        let moved = Instant::now();
        Self { client, endpoint, up, down: Direction::new(down), idle, stop, moved }
    }

    /// Relays until the endpoint has sent its first byte or its FIN; an end before that is returned.
    pub(crate) async fn until_answer(&mut self) -> Option<End> {
        match self.run(true).await {
            Step::Answered => None,
            Step::Ended(end) => Some(end),
        }
    }

    /// Relays until the end.
    pub(crate) async fn until_end(&mut self) -> End {
        loop {
            // Never answers: `run` was not asked to stop there. The loop says it without a panic.
            if let Step::Ended(end) = self.run(false).await {
                return end;
            }
        }
    }

    /// Bytes that came from the client.
    pub(crate) fn bytes_up(&self) -> u64 {
        self.up.bytes
    }

    /// Bytes that came from the endpoint.
    pub(crate) fn bytes_down(&self) -> u64 {
        self.down.bytes
    }

    async fn run(&mut self, until_answer: bool) -> Step {
        let mut stopped = pin!(self.stop.cancelled());
        let mut timer = pin!(sleep_until(self.moved + self.idle));
        let step = poll_fn(|context| {
            if let Poll::Ready(end) = self.poll_copy(context) {
                return Poll::Ready(Step::Ended(end));
            }
            if until_answer && (self.down.bytes > 0 || self.down.ended) {
                return Poll::Ready(Step::Answered);
            }
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(Step::Ended(End::Stopped));
            }
            self.poll_timer(timer.as_mut(), context).map(Step::Ended)
        })
        .await;
        if let Step::Ended(end) = step {
            self.close(end);
        }
        step
    }

    /// Moves what can be moved in both directions.
    fn poll_copy(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let before = self.up.bytes + self.down.bytes;
        let up = self.up.poll(context, self.client, self.endpoint);
        // Also when the first one broke: what the broken side sent before still goes to the other.
        let down = self.down.poll(context, self.endpoint, self.client);
        if self.up.bytes + self.down.bytes != before {
            self.moved = Instant::now();
        }
        match (up, down) {
            (Err(Broken::From), _) | (Ok(()), Err(Broken::To)) => Poll::Ready(End::ResetByClient),
            (Err(Broken::To), _) | (Ok(()), Err(Broken::From)) => Poll::Ready(End::ResetByEndpoint),
            (Ok(()), Ok(())) if self.up.carried && self.down.carried => Poll::Ready(End::Finished),
            (Ok(()), Ok(())) => Poll::Pending,
        }
    }

    /// Looks after what no read or write wakes us for. The timer runs behind: bytes do not touch it, it finds on expiry how long
    /// there were none, because setting a timer costs more than noting the time.
    fn poll_timer(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<End> {
        let unread = self.up.is_unread() || self.down.is_unread();
        if unread {
            let soon = Instant::now() + UNREAD_CHECK;
            if soon < timer.deadline() {
                timer.as_mut().reset(soon);
            }
        }
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if self.up.is_unread() && self.client.is_broken() {
                return Poll::Ready(End::ResetByClient);
            }
            if self.down.is_unread() && self.endpoint.is_broken() {
                return Poll::Ready(End::ResetByEndpoint);
            }
            let idle = self.moved + self.idle;
            if idle <= now {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(if unread { idle.min(now + UNREAD_CHECK) } else { idle });
        }
        Poll::Pending
    }

    /// A broken side breaks the other; every other end closes as usual.
    fn close(&self, end: End) {
        match end {
            End::ResetByClient => self.endpoint.reset_on_close(),
            End::ResetByEndpoint => self.client.reset_on_close(),
            End::Finished | End::Idle | End::Quiet | End::Stopped | End::Fault => {}
        }
    }
}

/// Which side of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    From,
    To,
}

/// One direction of a relay.
#[derive(Debug)]
struct Direction {
    counter: IntCounter,
    bytes: u64,
    /// What was read and not taken yet.
    kept: Bytes,
    /// Written since the last flush.
    unflushed: bool,
    /// The FIN has come.
    ended: bool,
    /// The FIN has been passed on.
    carried: bool,
}

impl Direction {
    fn new(counter: IntCounter) -> Self {
        let kept = Bytes::new();
        Self { counter, bytes: 0, kept, unflushed: false, ended: false, carried: false }
    }

    fn count(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.counter.inc_by(bytes);
    }

    /// Whether the next byte of its source, or its breaking, would go unnoticed.
    fn is_unread(&self) -> bool {
        self.ended || !self.kept.is_empty()
    }

    /// Moves bytes until one side has to be waited for; both ends' wakers are set then.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Result<(), Broken> {
        for _ in 0..TURN {
            if self.carried {
                return Ok(());
            }
            let moved = if !self.kept.is_empty() {
                self.unflushed = true;
                write_kept(context, &mut self.kept, to)
            } else if self.ended {
                self.poll_carry(context, to)
            } else {
                self.poll_move(context, from, to)
            };
            match moved {
                Poll::Ready(moved) => moved?,
                Poll::Pending => return self.flush(context, to),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    /// One read, and writes until it is gone or the other side takes no more.
    fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        buffer::with(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let came = ready!(Pin::new(from).poll_read(context, &mut read));
            came.map_err(|_| Broken::From)?;
            let mut rest = read.filled();
            self.ended = rest.is_empty();
            self.count(rest.len());
            while !rest.is_empty() {
                match write_some(context, to, rest)? {
                    Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                    Poll::Pending => {
                        self.kept = Bytes::copy_from_slice(rest);
                        return Poll::Pending;
                    }
                }
                self.unflushed = true;
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        to: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        ready!(Pin::new(to).poll_shutdown(context)).map_err(|_| Broken::To)?;
        self.carried = true;
        Poll::Ready(Ok(()))
    }

    /// A TLS stream may hold a record back until it is told that nothing follows for now.
    fn flush(&mut self, context: &mut Context<'_>, to: &mut impl Stream) -> Result<(), Broken> {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(to).poll_flush(context)
        {
            flushed.map_err(|_| Broken::To)?;
            self.unflushed = false;
        }
        Ok(())
    }
}

/// Writes all that is kept; then its memory is given back.
fn write_kept(
    context: &mut Context<'_>,
    kept: &mut Bytes,
    to: &mut impl Stream,
) -> Poll<Result<(), Broken>> {
    while !kept.is_empty() {
        let written = ready!(write_some(context, to, kept)?);
        kept.advance(written);
    }
    *kept = Bytes::new();
    Poll::Ready(Ok(()))
}

/// Writes at least one byte; a stream that takes none is broken.
fn write_some(
    context: &mut Context<'_>,
    to: &mut impl Stream,
    bytes: &[u8],
) -> Result<Poll<usize>, Broken> {
    match Pin::new(to).poll_write(context, bytes) {
        Poll::Ready(Ok(0) | Err(_)) => Err(Broken::To),
        Poll::Ready(Ok(written)) => Ok(Poll::Ready(written)),
        Poll::Pending => Ok(Poll::Pending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    /// Long enough for any machine; never waited for when all is well.
    const PATIENCE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);

    impl Stream for DuplexStream {
        fn reset_on_close(&self) {}

        fn is_broken(&self) -> bool {
            false
        }
    }

    /// A socket with its far end.
    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let near = listener.accept().await.unwrap().0;
        (Socket::from_std(near.into_std().unwrap()).unwrap(), far)
    }

    fn counter() -> IntCounter {
        IntCounter::new("bytes", "bytes").unwrap()
    }

    fn terms(idle: Duration, stop: &CancellationToken) -> Terms<'_> {
        Terms { up: counter(), down: counter(), idle, stop }
    }

    /// Relays between two sockets while their far ends do something.
    async fn relayed<F: Future>(
        preface: &[u8],
        far: impl FnOnce(TcpStream, TcpStream) -> F,
    ) -> (End, F::Output) {
        let ((mut near_client, client), (mut near_endpoint, endpoint)) =
            (pair().await, pair().await);
        let stop = CancellationToken::new();
        let far = tokio::time::timeout(PATIENCE, far(client, endpoint));
        let relay = async {
            let terms = terms(HOUR, &stop);
            let end = Relay::new(
                &mut near_client,
                &mut near_endpoint,
                Bytes::copy_from_slice(preface),
                0,
                terms,
            )
            .until_end()
            .await;
            drop((near_client, near_endpoint));
            end
        };
        let (end, done) = tokio::join!(timeout(PATIENCE, relay), far);
        (end.expect("the relay ends"), done.expect("the far ends finish"))
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * 31 / 8) % 251).unwrap()).collect()
    }

    async fn received(mut from: TcpStream) -> Vec<u8> {
        let mut received = Vec::new();
        from.read_to_end(&mut received).await.unwrap();
        received
    }

    #[tokio::test]
    async fn bytes_arrive_and_are_counted() {
        let ((mut near_client, mut client), (mut near_endpoint, mut endpoint)) =
            (pair().await, pair().await);
        let stop = CancellationToken::new();
        let terms = terms(HOUR, &stop);
        let (up, down) = (terms.up.clone(), terms.down.clone());
        let mut relay = Relay::new(
            &mut near_client,
            &mut near_endpoint,
            Bytes::from_static(b"HEADhello"),
            4,
            terms,
        );
        let far = async {
            let mut came = [0; 9];
            endpoint.read_exact(&mut came).await.unwrap();
            assert_eq!(&came, b"HEADhello");
            endpoint.write_all(b"answer").await.unwrap();
        };
        assert_eq!(tokio::join!(relay.until_answer(), far).0, None);
        assert_eq!((up.get(), down.get()), (5, 6), "while it runs, without our own header");
        client.write_all(b"more").await.unwrap();
        let far = async {
            client.shutdown().await.unwrap();
            endpoint.shutdown().await.unwrap();
            assert_eq!(received(endpoint).await, b"more");
            assert_eq!(received(client).await, b"answer");
        };
        assert_eq!(tokio::join!(relay.until_end(), far).0, End::Finished);
        assert_eq!((relay.bytes_up(), relay.bytes_down()), (9, 6));
    }

    #[tokio::test]
    async fn a_fin_of_the_client_leaves_the_other_direction_open() {
        let bulk = noise(20 << 20);
        let (end, came) = relayed(b"hello", async |mut client, mut endpoint| {
            client.shutdown().await.unwrap();
            let mut hello = Vec::new();
            endpoint.read_to_end(&mut hello).await.unwrap();
            assert_eq!(hello, b"hello", "the FIN arrives behind the bytes");
            let send = async {
                endpoint.write_all(&bulk).await.unwrap();
                drop(endpoint);
            };
            tokio::join!(send, received(client)).1
        })
        .await;
        assert_eq!(end, End::Finished);
        assert!(came == bulk);
    }

    #[tokio::test]
    async fn a_fin_of_the_endpoint_leaves_the_other_direction_open() {
        let bulk = noise(20 << 20);
        let (end, came) = relayed(b"", async |mut client, mut endpoint| {
            endpoint.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
            let send = async {
                client.write_all(&bulk).await.unwrap();
                drop(client);
            };
            tokio::join!(send, received(endpoint)).1
        })
        .await;
        assert_eq!(end, End::Finished);
        assert!(came == bulk);
    }

    async fn expect_reset(mut far: TcpStream) {
        let error = far.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_reset_is_carried_as_a_reset() {
        let (end, ()) = relayed(b"", async |client, endpoint| {
            client.set_zero_linger().unwrap();
            drop(client);
            expect_reset(endpoint).await;
        })
        .await;
        assert_eq!(end, End::ResetByClient);

        let (end, ()) = relayed(b"", async |client, endpoint| {
            endpoint.set_zero_linger().unwrap();
            drop(endpoint);
            expect_reset(client).await;
        })
        .await;
        assert_eq!(end, End::ResetByEndpoint);
    }

    #[tokio::test]
    async fn what_was_sent_before_a_reset_arrives() {
        let (end, ()) = relayed(b"", async |mut client, mut endpoint| {
            endpoint.write_all(b"last words").await.unwrap();
            endpoint.set_zero_linger().unwrap();
            drop(endpoint);
            let mut words = [0; 10];
            client.read_exact(&mut words).await.unwrap();
            assert_eq!(&words, b"last words");
        })
        .await;
        assert_eq!(end, End::ResetByEndpoint);
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_slows_the_other_down() {
        let ((mut near_client, client), (mut near_endpoint, endpoint)) =
            (pair().await, pair().await);
        let stop = CancellationToken::new();
        let mut relay =
            Relay::new(&mut near_client, &mut near_endpoint, Bytes::new(), 0, terms(HOUR, &stop));
        let chunk = noise(1 << 16);
        let mut full = false;
        while !full || relay.up.kept.is_empty() {
            full = client.try_write(&chunk).is_err();
            let ended = timeout(Duration::from_millis(1), relay.until_end()).await;
            assert!(ended.is_err(), "{ended:?}");
        }
        assert!(relay.up.kept.len() <= buffer::SIZE);
        assert!(relay.down.kept.is_empty());

        // And its reset is noticed although nobody reads it.
        client.set_zero_linger().unwrap();
        drop(client);
        let end = timeout(PATIENCE, relay.until_end()).await.expect("the reset is noticed");
        assert_eq!(end, End::ResetByClient);
        drop((near_client, near_endpoint, endpoint));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_both_directions_ends_it() {
        let (mut near_client, mut client) = duplex(64);
        let (mut near_endpoint, mut endpoint) = duplex(64);
        let stop = CancellationToken::new();
        let limit = Duration::from_secs(10);
        let start = Instant::now();
        let mut relay =
            Relay::new(&mut near_client, &mut near_endpoint, Bytes::new(), 0, terms(limit, &stop));
        let far = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"a").await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            endpoint.write_all(b"b").await.unwrap();
        };
        assert_eq!(tokio::join!(relay.until_end(), far).0, End::Idle);
        assert_eq!(start.elapsed().as_secs(), 28, "9 s, 9 s and then the limit");
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_signal_ends_it() {
        let (mut near_client, _client) = duplex(64);
        let (mut near_endpoint, _endpoint) = duplex(64);
        let stop = CancellationToken::new();
        let mut relay =
            Relay::new(&mut near_client, &mut near_endpoint, Bytes::new(), 0, terms(HOUR, &stop));
        let (end, ()) = tokio::join!(relay.until_end(), async { stop.cancel() });
        assert_eq!(end, End::Stopped);
    }

    #[tokio::test]
    async fn what_waits_goes_before_what_comes_in_chunks_of_any_size() {
        // Small duplex buffers force every write to be partial.
        let (mut near_client, client) = duplex(7);
        let (mut near_endpoint, endpoint) = duplex(11);
        let stop = CancellationToken::new();
        let mut relay = Relay::new(
            &mut near_client,
            &mut near_endpoint,
            noise(100).into(),
            0,
            terms(HOUR, &stop),
        );
        let (up, down) = (noise(10_000), noise(20_000));
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_endpoint, mut to_endpoint) = tokio::io::split(endpoint);
        let send_up = async {
            to_client.write_all(&up).await.unwrap();
            to_client.shutdown().await.unwrap();
        };
        let send_down = async {
            to_endpoint.write_all(&down).await.unwrap();
            to_endpoint.shutdown().await.unwrap();
        };
        let (mut came_up, mut came_down) = (Vec::new(), Vec::new());
        let (end, ..) = tokio::join!(
            relay.until_end(),
            send_up,
            send_down,
            from_endpoint.read_to_end(&mut came_up),
            from_client.read_to_end(&mut came_down)
        );
        assert_eq!(end, End::Finished);
        assert_eq!(came_up, [noise(100), up].concat());
        assert_eq!(came_down, down);
    }
}
