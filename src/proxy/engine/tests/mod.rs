//! Pairs of real sockets on a core's own set, with far ends that do what far ends do.

use std::io;
use std::sync::{Arc, Mutex};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::reactor::{Driver, Reactor, Socket};

use super::super::buffer;
use super::super::dial::Dialling;
use super::*;

mod leaving;

impl<F: FnOnce(Carried)> Finish for F {
    fn finish(self: Box<Self>, carried: Carried) {
        self(carried);
    }

    fn unanswered(self: Box<Self>, carried: Carried, _client: Socket, _awaited: Box<Awaited>) {
        self(carried);
    }

    fn is_due_back(&self, _share: f64) -> bool {
        true
    }
}

/// Long enough for any machine; never waited for when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

const HOUR: Duration = Duration::from_hours(1);

/// Runs a test on a core.
fn on_a_core<T>(test: impl Future<Output = T>) -> T {
    let mut done = None;
    let until = async { done = Some(timeout(PATIENCE, test).await.expect("it comes to an end")) };
    Reactor::new().unwrap().run(&Driver::start().unwrap(), turn, until).unwrap();
    clear();
    done.unwrap()
}

/// A socket of the core with its far end.
async fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let near = listener.accept().await.unwrap().0;
    (Socket::from_std(near.into_std().unwrap()).unwrap(), far)
}

/// A connection that is carried, with its far ends.
struct Carriage {
    client: TcpStream,
    endpoint: TcpStream,
    counters: (IntCounter, IntCounter),
    told: Arc<Mutex<Option<Carried>>>,
}

async fn carriage(preface: &[u8], header: usize, idle: Duration) -> Carriage {
    let ((client_socket, client), (endpoint_socket, endpoint)) = (pair().await, pair().await);
    let (near_client, near_endpoint) = Socket::watched(client_socket, endpoint_socket).unwrap();
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let counter = || IntCounter::new("bytes", "bytes").unwrap();
    let counters = (counter(), counter());
    let connection = Connection {
        client: near_client,
        endpoint: near_endpoint,
        preface: Bytes::copy_from_slice(preface),
        said: preface.len() - header,
        counters: counters.clone(),
        idle,
        may_leave: true,
        away: false,
        awaited: Box::new(Awaited {
            dial: Dialling::default().enter([0; 32]).unwrap(),
            onward: None,
        }),
        finish: Box::new(move |carried| *tell.lock().unwrap() = Some(carried)),
    };
    carry(connection, &CancellationToken::new()).await;
    Carriage { client, endpoint, counters, told }
}

/// What the pair came to.
async fn end(told: &Mutex<Option<Carried>>) -> Carried {
    loop {
        if let Some(carried) = told.lock().unwrap().take() {
            return carried;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn noise(length: usize, mut seed: u32) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn received(mut from: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    received
}

#[test]
fn bytes_arrive_and_are_counted() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, counters, told } =
            carriage(b"HEADhello", 4, HOUR).await;
        let mut came = [0; 9];
        endpoint.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"HEADhello");
        endpoint.write_all(b"answer").await.unwrap();
        client.read_exact(&mut came[..6]).await.unwrap();
        assert_eq!(
            (counters.0.get(), counters.1.get()),
            (0, 6),
            "what goes first is counted before"
        );
        client.write_all(b"more").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(received(endpoint).await, b"more");
        assert_eq!(received(client).await, b"");
        let carried = end(&told).await;
        assert_eq!((carried.end, carried.up, carried.down), (End::Finished, 9, 6));
    });
}

#[test]
fn a_fin_leaves_the_other_direction_open() {
    let bulk = noise(20 << 20, 1);
    for from_client in [true, false] {
        on_a_core(async {
            let Carriage { client, endpoint, told, .. } = carriage(b"", 0, HOUR).await;
            let (mut ends, mut sends) =
                if from_client { (client, endpoint) } else { (endpoint, client) };
            ends.shutdown().await.unwrap();
            assert_eq!(sends.read(&mut [0; 9]).await.unwrap(), 0);
            let send = async {
                sends.write_all(&bulk).await.unwrap();
                drop(sends);
            };
            assert!(tokio::join!(send, received(ends)).1 == bulk);
            assert_eq!(end(&told).await.end, End::Finished);
        });
    }
}

#[test]
fn a_reset_is_carried_as_a_reset_behind_what_was_sent_before() {
    for from_client in [true, false] {
        on_a_core(async {
            let Carriage { client, endpoint, told, .. } = carriage(b"", 0, HOUR).await;
            let (mut breaks, mut other) =
                if from_client { (client, endpoint) } else { (endpoint, client) };
            breaks.write_all(b"last words").await.unwrap();
            let mut words = [0; 10];
            other.read_exact(&mut words).await.unwrap();
            assert_eq!(&words, b"last words");
            breaks.set_zero_linger().unwrap();
            drop(breaks);
            let error = other.read(&mut words).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            let by = if from_client { End::ResetByClient } else { End::ResetByEndpoint };
            assert_eq!(end(&told).await.end, by);
        });
    }
}

#[test]
fn a_side_that_does_not_read_slows_the_other_down_and_its_reset_is_noticed() {
    on_a_core(async {
        let Carriage { client, endpoint, counters, told } = carriage(b"", 0, HOUR).await;
        let chunk = noise(1 << 16, 1);
        let fill = async {
            loop {
                client.writable().await.unwrap();
                let _ = client.try_write(&chunk);
            }
        };
        // Nothing tells that all buffers are full but that nothing more goes in.
        let mut before = u64::MAX;
        {
            let mut fill = std::pin::pin!(fill);
            while counters.0.get() != before {
                before = counters.0.get();
                timeout(Duration::from_millis(200), &mut fill).await.unwrap_err();
            }
        }
        assert!(before > 0 && endpoint.peer_addr().is_ok());
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(end(&told).await.end, End::ResetByClient);
    });
}

/// Writes all of it in chunks of any size, with stalls, and reads at its own pace; what came.
async fn exchange(stream: TcpStream, bytes: Vec<u8>, mut random: u32) -> Vec<u8> {
    let (mut from, mut to) = stream.into_split();
    let send = async move {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // 1 octet to 256 KiB, small and large ones alike.
            let length = 1 + (random >> 8) as usize % (1 << ((random >> 4) % 19));
            let (chunk, more) = rest.split_at(length.min(rest.len()));
            to.write_all(chunk).await.unwrap();
            rest = more;
            if random.is_multiple_of(64) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut came = Vec::new();
        while from.read_buf(&mut came).await.unwrap() > 0 {
            if came.len().is_multiple_of(61) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        came
    };
    tokio::join!(send, receive).1
}

#[test]
fn what_goes_in_comes_out_in_both_directions_at_once() {
    let (up, down) = (noise(24 << 20, 1), noise(16 << 20, 2));
    on_a_core(async {
        let Carriage { client, endpoint, told, .. } = carriage(b"", 0, HOUR).await;
        let (came_down, came_up) =
            tokio::join!(exchange(client, up.clone(), 3), exchange(endpoint, down.clone(), 4));
        assert!(came_up == up, "up: {} of {}", came_up.len(), up.len());
        assert!(came_down == down, "down: {} of {}", came_down.len(), down.len());
        let carried = end(&told).await;
        assert_eq!((carried.end, carried.up), (End::Finished, up.len() as u64));
    });
}

#[test]
fn silence_ends_it_and_bytes_put_that_off() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, told, .. } =
            carriage(b"", 0, Duration::from_secs(5)).await;
        let times_out = |now| {
            advance(Duration::from_secs(now), Wanted::default());
        };
        times_out(5);
        client.write_all(b"a").await.unwrap();
        endpoint.read_exact(&mut [0]).await.unwrap();
        times_out(10);
        assert!(told.lock().unwrap().is_none(), "a byte came at 5 s");
        times_out(11);
        assert_eq!(end(&told).await.end, End::Idle);
        assert_eq!(received(client).await, b"");
    });
}

#[test]
fn the_stop_signal_ends_all_and_what_comes_after_it() {
    on_a_core(async {
        let Carriage { client, told, .. } = carriage(b"", 0, HOUR).await;
        let stop = CancellationToken::new();
        stop.cancel();
        attend(stop, watch::channel(0).1, Wanted::default).await;
        assert_eq!(end(&told).await.end, End::Stopped);
        assert_eq!(received(client).await, b"");
    });
}

#[test]
fn ended_pairs_leave_nothing_behind() {
    on_a_core(async {
        for round in 0..3 {
            let Carriage { mut client, endpoint, told, .. } = carriage(b"", 0, HOUR).await;
            client.write_all(&noise(1 << 20, round)).await.unwrap();
            drop((client, endpoint));
            end(&told).await;
        }
        ENGINE.with_borrow(|engine| {
            assert_eq!((engine.pairs.len(), engine.free.len()), (1, 1), "the place is used again");
            assert!(engine.pipes.are_home());
        });
    });
}

#[test]
fn the_endpoint_is_probed_once_the_connection_is_no_short_one() {
    on_a_core(async {
        let _carriage = carriage(b"", 0, HOUR).await;
        let probed = |now| {
            ENGINE.with_borrow_mut(|engine| {
                assert!(engine.advance(now, 4 * now)[0].1.is_empty());
                let pair = engine.pairs[0].as_ref().unwrap();
                socket2::SockRef::from(&pair.endpoint).keepalive().unwrap()
            })
        };
        assert!(!probed(PROBED_AFTER - 1));
        assert!(probed(PROBED_AFTER));
    });
}

#[test]
fn a_fault_costs_one_pair() {
    on_a_core(async {
        let faulty = carriage(b"", 0, HOUR).await;
        let mut other = carriage(b"", 0, HOUR).await;
        // A panic like any other: the thread's buffer is lent already.
        assert_eq!(buffer::with(|_| turn(0)), Turn::Done);
        assert_eq!(end(&faulty.told).await.end, End::Fault);
        assert_eq!(received(faulty.client).await, b"");
        other.client.write_all(b"on").await.unwrap();
        let mut came = [0; 2];
        other.endpoint.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"on");
    });
}

#[test]
fn a_hello_may_come_again_once_its_answer_has() {
    on_a_core(async {
        let dialling = Dialling::default();
        let dial = dialling.enter([7; 32]).unwrap();
        let counter = IntCounter::new("bytes", "bytes").unwrap();
        let mut down = Flow::down(counter, Box::new(Awaited { dial, onward: None }));
        let ((near, client), (from, mut endpoint)) = (pair().await, pair().await);
        let (near, from) = Socket::watched(near, from).unwrap();
        drop(client);
        assert!(dialling.enter([7; 32]).is_err());
        endpoint.write_all(b"answer").await.unwrap();
        // Also when the answer cannot be passed on any more.
        while dialling.enter([7; 32]).is_err() {
            let _ = down.turn(&from, &near, false, &mut Pipes::default());
            tokio::task::yield_now().await;
        }
    });
}
