//! Which endpoint a connection is led to, and what that gets.

use super::*;

on_both_forms! {
    bytes_reach_the_route_of_the_name
    the_next_endpoint_gets_the_same_hello
    without_an_endpoint_the_client_learns_it_at_once
    an_endpoint_that_does_not_answer_gives_way_to_the_next
    an_endpoint_that_closes_without_a_byte_gives_way_to_the_next
    an_endpoint_that_is_silent_gives_way_to_the_next
    an_endpoint_is_waited_for_no_longer_than_the_limit_says
    the_last_endpoint_that_is_silent_is_told_of
    what_is_more_than_a_hello_goes_to_nobody_else
    what_was_answered_goes_to_nobody_else
    a_route_that_leads_back_is_a_loop_and_the_same_hello_later_is_not
    dials_in_progress_are_bounded_for_each_route
}

fn bytes_reach_the_route_of_the_name() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let sent = [hello(&NAME.to_uppercase(), 1), b"early data".to_vec()].concat();
    let mut client = gateway.connect();
    for byte in &sent {
        client.write_all(&[*byte]).unwrap();
    }
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, sent.len()), sent);
    served.write_all(b"answer").unwrap();
    drop(served);
    client.shutdown(Half::Write).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"answer");
    gateway.expect(Ending::Completed, 1);
    let text = gateway.shared.metrics.text();
    let up = format!("strait_bytes_total{{direction=\"up\",route=\"route\"}} {}", sent.len());
    assert!(text.contains(&up), "{text}");
}

fn the_next_endpoint_gets_the_same_hello() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[dead(), dead(), address])]);
    let client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1));
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
}

fn without_an_endpoint_the_client_learns_it_at_once() {
    let gateway = Gateway::with(vec![route(&[dead()])]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    gateway.publish(vec![RouteSpec { endpoints: Vec::new(), ..route(&[]) }]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::NoHealthyEndpoint, 1);
}

fn an_endpoint_that_does_not_answer_gives_way_to_the_next() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&any_port().into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    // Once its queue is full, the kernel answers no further SYN.
    let step = Duration::from_millis(200);
    let queued: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&silent, step).ok()).collect();

    let (endpoint, address) = listen();
    let limits = Limits { connect_timeout: step, connect_total: PATIENCE, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[silent, address])]);
    let client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1));
    finish(client, served);

    let limits = Limits { connect_total: step, ..limits };
    let settings = Arc::new(Settings { limits, ..Settings::default() });
    gateway.shared.live.publish(table(vec![route(&[silent, address])]), settings);
    let mut client = gateway.send(&hello(NAME, 2));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError), "no time for the next");
    gateway.expect(Ending::ConnectFailed, 1);
    drop(queued);
}

fn an_endpoint_that_closes_without_a_byte_gives_way_to_the_next() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    for (number, resets) in (1..).zip([false, true, false]) {
        // The one before may not have ended yet, and the same hello again is a loop.
        let hello = hello(NAME, number);
        let client = gateway.send(&hello);
        let mut failing = accept(&first);
        if resets {
            // What is unread at a close is answered with a reset.
            failing.peek(&mut [0]).unwrap();
        } else {
            assert_eq!(read(&mut failing, hello.len()), hello);
        }
        drop(failing);
        let mut served = accept(&second);
        assert_eq!(read(&mut served, hello.len()), hello);
        finish(client, served);
    }
    gateway.expect(Ending::Completed, 3);
    let generation = gateway.shared.live.load();
    let route = Arc::clone(generation.table.routes().next().unwrap());
    let health = |at: usize| route.candidates[at].endpoint.health();
    // Unless a loaded machine took longer than the ejection.
    let failed = route.candidates[0].endpoint.well_for(Instant::now());
    assert!(failed.is_none_or(|well| well < PATIENCE), "{failed:?}");
    assert_eq!(health(1), Health::Healthy);
}

/// With a limit for the first byte that is as short as the engine's clock is exact.
fn impatient(endpoints: &[SocketAddr]) -> Gateway {
    let limits = Limits { first_byte_timeout: Duration::from_millis(100), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(endpoints)]);
    gateway
}

fn an_endpoint_that_is_silent_gives_way_to_the_next() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = impatient(&[at_first, at_second]);
    let hello = hello(NAME, 1);
    let mut client = gateway.send(&hello);
    let mut silent = accept(&first);
    let mut served = accept(&second);
    assert_eq!(rest(&mut silent).unwrap(), hello, "and then the end");
    assert_eq!(read(&mut served, hello.len()), hello);
    served.write_all(b"answer").unwrap();
    assert_eq!(read(&mut client, 6), b"answer");
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
    let counted = format!("bytes_total{{direction=\"up\",route=\"route\"}} {}\n", hello.len());
    let text = gateway.shared.metrics.text();
    assert!(text.contains(&counted), "the client has sent it once: {text}");
}

fn an_endpoint_is_waited_for_no_longer_than_the_limit_says() {
    // A busy machine may be late, but hardly each time.
    let took = (0..5).map(|number| {
        let ((first, at_first), (second, at_second)) = (listen(), listen());
        let gateway = impatient(&[at_first, at_second]);
        let _client = gateway.send(&hello(NAME, number));
        let (_silent, asked) = (accept(&first), Instant::now());
        let _served = accept(&second);
        asked.elapsed()
    });
    let late: Vec<_> = took.take_while(|took| *took > Duration::from_millis(600)).collect();
    assert!(late.len() < 5, "a limit of 100 ms: {late:?}");
}

fn the_last_endpoint_that_is_silent_is_told_of() {
    let (endpoint, address) = listen();
    let gateway = impatient(&[address]);
    let mut client = gateway.send(&hello(NAME, 1));
    let _silent = accept(&endpoint);
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    until("its end", || gateway.proxy.open_connections() == 0);
}

fn what_is_more_than_a_hello_goes_to_nobody_else() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    let sent = [hello(NAME, 1), b"early".to_vec()].concat();
    let mut client = gateway.send(&sent);
    let mut failing = accept(&first);
    assert_eq!(read(&mut failing, sent.len()), sent);
    drop(failing);
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::ConnectFailed, 1);
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn what_was_answered_goes_to_nobody_else() {
    let ((first, at_first), (second, at_second)) = (listen(), listen());
    let gateway = Gateway::with(vec![route(&[at_first, at_second])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut failing = accept(&first);
    failing.write_all(b"a").unwrap();
    assert_eq!(read(&mut client, 1), b"a");
    drop(failing);
    assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    gateway.expect(Ending::ResetByEndpoint, 1);
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn a_route_that_leads_back_is_a_loop_and_the_same_hello_later_is_not() {
    let gateway = Gateway::with(Vec::new());
    gateway.publish(vec![route(&[gateway.address])]);
    for times in 1..=2 {
        let mut client = gateway.send(&hello(NAME, 1));
        assert_eq!(read(&mut client, 7), alert(Alert::InternalError));
        drop(client);
        gateway.expect(Ending::Loop, times);
        until("the end of both", || gateway.proxy.open_connections() == 0);
    }
    let (endpoint, address) = listen();
    gateway.publish(vec![route(&[address])]);
    let _client = gateway.send(&hello(NAME, 1));
    accept(&endpoint);
}

fn dials_in_progress_are_bounded_for_each_route() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let route = Arc::clone(gateway.shared.live.load().table.lookup(NAME).unwrap().route);
    let dials: Vec<_> = (0..100_000).map_while(|_| route.dial_permit()).collect();
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::InternalError));
    gateway.expect(Ending::Overloaded, 1);
    assert!(gateway.shared.metrics.text().contains("limit_refusals_total{limit=\"dials\"} 1"));
    drop(dials);
    let _client = gateway.send(&hello(NAME, 2));
    accept(&endpoint);
}
