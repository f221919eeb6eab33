//! Pairs that are closed between two calls.

use super::*;

/// A call that is answered, and the look of the engine at it.
async fn answered_call(client: &mut TcpStream, endpoint: &mut TcpStream) {
    let (call, answer) = ([1; 200], [2; 300]);
    client.write_all(&call).await.unwrap();
    endpoint.read_exact(&mut [0; 200]).await.unwrap();
    endpoint.write_all(&answer).await.unwrap();
    client.read_exact(&mut [0; 300]).await.unwrap();
    advance(Duration::ZERO, old(0));
}

/// All that are older than `seconds`.
fn old(seconds: u64) -> Wanted {
    Wanted { max_age: Duration::from_secs(seconds), ..Wanted::default() }
}

/// All, at once.
fn drained() -> Wanted {
    Wanted { drained_by: Some(std::time::Instant::now()), ..Wanted::default() }
}

#[test]
fn a_quiet_pair_gets_its_fins_and_no_later_call_reaches_the_endpoint() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, told, .. } = carriage(b"", 0, HOUR).await;
        answered_call(&mut client, &mut endpoint).await;
        advance(Duration::from_millis(900), drained());
        advance(Duration::from_secs(1), drained());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the client's FIN");
        // A call that was on its way: nobody can carry its answer, so it must not run.
        client.write_all(&[3; 200]).await.unwrap();
        assert_eq!(received(endpoint).await, b"");
        drop(client);
        let carried = end(&told).await;
        assert_eq!((carried.end, carried.up, carried.down), (End::Quiet, 200, 300));
    });
}

/// Whose FIN came first, of a pair that is closed: epoll tells of descriptors in the order in which they became ready.
async fn first_to_hear() -> u64 {
    const CLIENT: u64 = 0;
    const ENDPOINT: u64 = 1;
    let Carriage { mut client, mut endpoint, .. } = carriage(b"", 0, HOUR).await;
    answered_call(&mut client, &mut endpoint).await;
    let heard = epoll::create(CreateFlags::CLOEXEC).unwrap();
    // Not in the order that is expected.
    for (end, number) in [(&endpoint, ENDPOINT), (&client, CLIENT)] {
        epoll::add(&heard, end, EventData::new_u64(number), EventFlags::RDHUP).unwrap();
    }
    advance(Duration::from_secs(1), drained());
    let mut events = Vec::with_capacity(2);
    while events.is_empty() {
        let _ = epoll::wait(&heard, spare_capacity(&mut events), None);
    }
    events[0].data.u64()
}

#[test]
fn the_client_hears_of_the_end_before_the_endpoint() {
    const ROUNDS: u64 = 20;
    let endpoint_first: u64 = (0..ROUNDS).map(|_| on_a_core(first_to_hear())).sum();
    // The kernel may deliver on another core what was sent first; in the other order it would be all of them.
    assert!(endpoint_first <= ROUNDS / 4, "{endpoint_first} of {ROUNDS}");
}

#[test]
fn an_answer_that_is_not_taken_yet_keeps_a_pair() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, counters, told } = carriage(b"", 0, HOUR).await;
        answered_call(&mut client, &mut endpoint).await;
        let answer = noise(1 << 16, 1);
        let mut before = 0;
        // Nothing tells that all buffers are full but that nothing more goes in.
        while counters.1.get() != before {
            before = counters.1.get();
            let fill = async {
                loop {
                    endpoint.writable().await.unwrap();
                    let _ = endpoint.try_write(&answer);
                }
            };
            timeout(Duration::from_millis(200), fill).await.unwrap_err();
        }
        let due = |look| ENGINE.with_borrow_mut(|engine| engine.due(drained(), look));
        assert!(due(4).is_empty() && due(12).is_empty(), "what it holds would be lost");
        assert!(told.lock().unwrap().is_none());
        drop(client);
    });
}

#[test]
fn what_comes_until_the_last_moment_keeps_a_pair() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, told, .. } = carriage(b"", 0, HOUR).await;
        answered_call(&mut client, &mut endpoint).await;
        let due = ENGINE.with_borrow_mut(|engine| engine.due(drained(), 4));
        assert_eq!(due.len(), 1);
        // Since the counters were read, and not yet seen by the core.
        client.write_all(&[3; 200]).await.unwrap();
        ENGINE.with_borrow_mut(|engine| engine.leave(due[0], 4)).unwrap();
        endpoint.read_exact(&mut [0; 200]).await.unwrap();
        advance(Duration::from_secs(100), drained());
        endpoint.write_all(&[2; 300]).await.unwrap();
        client.read_exact(&mut [0; 300]).await.unwrap();
        assert!(told.lock().unwrap().is_none(), "unanswered, it is not quiet");
    });
}

#[test]
fn far_ends_that_do_not_answer_a_fin_are_closed_soon() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, told, .. } = carriage(b"", 0, HOUR).await;
        answered_call(&mut client, &mut endpoint).await;
        advance(Duration::from_secs(1), drained());
        advance(Duration::from_millis(1900), drained());
        assert!(told.lock().unwrap().is_none());
        advance(Duration::from_secs(2), drained());
        assert_eq!(end(&told).await.end, End::Quiet);
        drop((client, endpoint));
    });
}

#[test]
fn a_pair_is_closed_when_it_is_old_and_not_before() {
    on_a_core(async {
        let Carriage { mut client, mut endpoint, told, .. } = carriage(b"", 0, HOUR).await;
        answered_call(&mut client, &mut endpoint).await;
        advance(Duration::from_secs(89), old(100));
        let leaving = |engine: &Engine| engine.tokens(|pair| pair.quiet.is_leaving());
        assert!(ENGINE.with_borrow(leaving).is_empty());
        advance(Duration::from_secs(111), old(100));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop((client, endpoint));
        assert_eq!(end(&told).await.end, End::Quiet);
    });
}

#[test]
fn a_herd_is_closed_over_the_time_and_who_may_not_leave_stays() {
    on_a_core(async {
        let mut herd = Vec::new();
        for _ in 0..8 {
            let mut carriage = carriage(b"", 0, HOUR).await;
            answered_call(&mut carriage.client, &mut carriage.endpoint).await;
            herd.push(carriage);
        }
        ENGINE.with_borrow_mut(|engine| engine.pairs[0].as_mut().unwrap().may_leave = false);
        // Seven may go, in four looks besides those that the FINs take.
        let by = std::time::Instant::now() + quiet::LOOK * 8;
        let wanted = Wanted { drained_by: Some(by), ..Wanted::default() };
        let due = ENGINE.with_borrow_mut(|engine| engine.due(wanted, 8));
        assert!((2..=3).contains(&due.len()), "{due:?}");
        let rest = ENGINE.with_borrow_mut(|engine| engine.due(drained(), 8));
        assert_eq!(rest.len(), 7);
        assert!(!rest.contains(&0));
    });
}
