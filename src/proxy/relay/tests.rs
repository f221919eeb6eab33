use super::super::engine::Wanted;
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

    fn has_something(&self) -> bool {
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
    Terms { up: counter(), down: counter(), idle, stop, leaving: None }
}

/// Relays between two sockets while their far ends do something.
async fn relayed<F: Future>(
    preface: &[u8],
    far: impl FnOnce(TcpStream, TcpStream) -> F,
) -> (End, F::Output) {
    let ((mut near_client, client), (mut near_endpoint, endpoint)) = (pair().await, pair().await);
    let stop = CancellationToken::new();
    let far = tokio::time::timeout(PATIENCE, far(client, endpoint));
    let relay = async {
        let terms = terms(HOUR, &stop);
        let end = Relay::new(
            &mut near_client,
            &mut near_endpoint,
            Bytes::copy_from_slice(preface),
            preface.len(),
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
        5,
        terms,
    );
    let far = async {
        let mut came = [0; 9];
        endpoint.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"HEADhello");
        endpoint.write_all(b"answer").await.unwrap();
    };
    assert_eq!(tokio::join!(relay.until_answer(), far).0, None);
    assert_eq!((up.get(), down.get()), (0, 6), "while it runs; what goes first is counted before");
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
    let ((mut near_client, client), (mut near_endpoint, endpoint)) = (pair().await, pair().await);
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
    drop(relay);
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

#[tokio::test(start_paused = true)]
async fn in_a_drain_it_ends_between_two_calls_and_passes_nothing_on_any_more() {
    let (mut near_client, mut client) = duplex(4096);
    let (mut near_endpoint, mut endpoint) = duplex(4096);
    let (stop, drain) = (CancellationToken::new(), CancellationToken::new());
    let by = (Instant::now() + HOUR).into_std();
    let wanted = || Wanted { drained_by: drain.is_cancelled().then_some(by), ..Wanted::default() };
    let leaving = Some(Leaving { wanted: &wanted, drain: &drain, back: None });
    let terms = Terms { leaving, ..terms(HOUR, &stop) };
    let mut relay = Relay::new(&mut near_client, &mut near_endpoint, Bytes::new(), 0, terms);
    let far = async {
        let (mut room, mut came) = ([0; 1000], Vec::new());
        client.write_all(&noise(1000)).await.unwrap();
        endpoint.read_exact(&mut room).await.unwrap();
        drain.cancel();
        // A call that is not answered yet is waited for.
        tokio::time::sleep(Duration::from_mins(1)).await;
        endpoint.write_all(&noise(500)).await.unwrap();
        client.read_exact(&mut room[..500]).await.unwrap();
        let answered = Instant::now();
        assert_eq!(client.read(&mut room).await.unwrap(), 0);
        assert!(answered.elapsed() >= Duration::from_secs(1));
        client.write_all(b"the next call").await.unwrap();
        drop(client);
        endpoint.read_to_end(&mut came).await.unwrap();
        assert_eq!(came, b"");
        drop(endpoint);
    };
    let (end, ()) = tokio::join!(relay.until_end(), far);
    assert_eq!(end, End::Quiet);
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
        100,
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
