//! What a client gets that is not served.

use super::*;

on_both_forms! {
    a_refused_client_that_never_stops_is_cut_off
    an_alert_arrives_although_the_client_goes_on_sending
    plain_text_gets_a_close
    strangers_cannot_tell_a_denied_name_from_an_unknown_one
    a_client_that_leaves_in_its_hello_is_let_go
    over_the_limit_the_newest_is_closed_cleanly
    a_refused_client_that_stays_is_listened_to_for_a_second_and_not_when_too_many_are
}

fn a_refused_client_that_never_stops_is_cut_off() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&hello("unknown.example", 1));
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let error = std::iter::repeat_with(|| client.write_all(&[0; 4096])).find_map(Result::err);
    assert!(matches!(error.unwrap().kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    until("its end", || gateway.proxy.open_connections() == 0);
}

fn an_alert_arrives_although_the_client_goes_on_sending() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&[hello("unknown.example", 1), vec![0; 20_000]].concat());
    let mut more = client.try_clone().unwrap();
    assert_eq!(read(&mut client, 7), alert(Alert::UnrecognizedName));
    more.write_all(&vec![0; 20_000]).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"", "a FIN, no RST");
    gateway.expect(Ending::UnknownName, 1);
}

fn plain_text_gets_a_close() {
    let gateway = Gateway::with(Vec::new());
    let mut client = gateway.send(&[&b"GET / HTTP/1.1\r\n"[..], &[b'a'; 5000]].concat());
    assert_eq!(rest(&mut client).unwrap(), b"", "a FIN, no RST");
    gateway.expect(Ending::NotTls, 1);
}

fn strangers_cannot_tell_a_denied_name_from_an_unknown_one() {
    let network = |written: &str| AllowRule::Network(written.parse().unwrap());
    let closed = |network| RouteSpec { allow: Allow::Rules(vec![network]), ..route(&[dead()]) };
    let gateway = Gateway::with(vec![closed(network("192.0.2.0/24"))]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::UnrecognizedName));

    let name = NamePattern::parse("other.example").unwrap();
    let origin = Origin { file: std::path::Path::new("test.yaml").into(), line: 2, column: 1 };
    let admitting = RouteSpec { names: vec![(name, origin)], ..closed(network("127.0.0.0/8")) };
    gateway.publish(vec![closed(network("192.0.2.0/24")), admitting]);
    let mut client = gateway.send(&hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::AccessDenied));
    gateway.expect(Ending::Denied, 2);
}

fn a_client_that_leaves_in_its_hello_is_let_go() {
    let gateway = Gateway::with(Vec::new());
    drop(gateway.connect());
    gateway.expect(Ending::ClientGone, 1);
    let client = gateway.send(&hello(NAME, 1)[..50]);
    client.shutdown(Half::Write).unwrap();
    gateway.expect(Ending::ClientGone, 2);
    let client = gateway.send(&hello(NAME, 1)[..50]);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gateway.expect(Ending::ClientGone, 3);
}

fn over_the_limit_the_newest_is_closed_cleanly() {
    let (endpoint, address) = listen();
    let limits = Limits { connections: 1, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let client = gateway.send(&hello(NAME, 1));
    let served = accept(&endpoint);
    let mut newest = gateway.send(&hello(NAME, 2));
    assert_eq!(rest(&mut newest).unwrap(), b"", "no RST");
    gateway.expect(Ending::Overloaded, 1);
    assert!(
        gateway.shared.metrics.text().contains("limit_refusals_total{limit=\"connections\"} 1")
    );
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
    let _client = gateway.send(&hello(NAME, 3));
    accept(&endpoint);
}

/// How long the gateway listens to a refused client that neither speaks nor goes.
fn listened_to(gateway: &Gateway) -> Duration {
    let mut client = gateway.send(&hello("unknown.example", 1));
    assert_eq!(read(&mut client, 7), alert(Alert::UnrecognizedName));
    let told = Instant::now();
    until("its end", || gateway.proxy.open_connections() == 0);
    told.elapsed()
}

fn a_refused_client_that_stays_is_listened_to_for_a_second_and_not_when_too_many_are() {
    let gateway = Gateway::with(Vec::new());
    // Of some one has to be seen as it was: a machine that is busy with other things may delay the others.
    let longest = (0..3).map(|_| listened_to(&gateway)).max();
    assert!(longest > Some(Duration::from_millis(500)), "{longest:?}");
    let discarding = &gateway.shared.discarding;
    let most = gateway.shared.admission.descriptors.most_discarding();
    let places: Vec<_> = (0..100_000).map_while(|_| discarding.take(most)).collect();
    assert!((1..=1024).contains(&places.len()), "{}", places.len());
    let fastest = (0..5).map(|_| listened_to(&gateway)).min();
    assert!(fastest < Some(Duration::from_millis(500)), "{fastest:?}");
}
