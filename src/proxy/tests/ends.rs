//! What ends a connection or a listener, and what must not.

use super::*;

on_both_forms! {
    one_deadline_covers_the_hello_however_it_drips
    draining_lets_connections_finish_and_cutting_closes_them
    what_waits_in_a_stopped_listeners_queue_is_served
    listeners_change_together_or_not_at_all
    a_live_connection_keeps_no_table
    silence_for_the_idle_limit_ends_a_connection
    a_fault_costs_its_own_connection_and_nothing_else
}

fn one_deadline_covers_the_hello_however_it_drips() {
    let limits = Limits { hello_timeout: Duration::from_millis(300), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    let mut client = gateway.connect();
    let start = Instant::now();
    for byte in hello(NAME, 1) {
        if client.write_all(&[byte]).is_err() || gateway.count(Ending::HelloTimeout) == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    gateway.expect(Ending::HelloTimeout, 1);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(rest(&mut client).unwrap(), b"");
}

fn draining_lets_connections_finish_and_cutting_closes_them() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    let pending = gateway.connect();
    until("both accepted", || gateway.proxy.open_connections() == 2);

    gateway.proxy.stop_accepting();
    until("the listener's end", || TcpStream::connect(gateway.address).is_err());
    served.write_all(b"still here").unwrap();
    assert_eq!(read(&mut client, 10), b"still here");

    gateway.proxy.cut();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let drained = async { tokio::time::timeout(PATIENCE, gateway.proxy.drained()).await };
    runtime.block_on(drained).expect("everything ends");
    gateway.expect(Ending::Drained, 2);
    assert_eq!(rest(&mut client).unwrap(), b"");
    drop(pending);
}

fn what_waits_in_a_stopped_listeners_queue_is_served() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let clients: Vec<_> = (0..20).map(|number| gateway.send(&hello(NAME, number))).collect();
    gateway.proxy.apply(&[]).unwrap();
    for client in clients {
        client.shutdown(Half::Write).unwrap();
    }
    for _ in 0..20 {
        let mut served = accept(&endpoint);
        assert_eq!(rest(&mut served).unwrap().len(), hello(NAME, 0).len());
    }
    gateway.expect(Ending::Completed, 20);
}

fn listeners_change_together_or_not_at_all() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let kept = ingress(any_port());
    let stranger = listen();
    let error = gateway.proxy.apply(&[ingress(stranger.1)]).unwrap_err();
    assert_eq!((error.address, error.error.kind()), (stranger.1, ErrorKind::AddrInUse));
    let missing = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8443);
    let error = gateway.proxy.apply(&[kept.clone(), ingress(missing)]).unwrap_err();
    assert_eq!((error.address, error.error.kind()), (missing, ErrorKind::AddrNotAvailable));
    assert_eq!(gateway.proxy.bound(), [(kept.clone(), gateway.address)]);

    let trusting = Ingress { proxy_from: vec!["192.0.2.0/24".parse().unwrap()], ..kept };
    gateway.proxy.apply(&[ingress(any_port()), trusting.clone()]).unwrap();
    let bound = gateway.proxy.bound();
    assert_eq!(bound.len(), 2);
    assert!(bound.iter().any(|(_, address)| *address == gateway.address), "not bound again");

    let client = gateway.send(&hello(NAME, 1));
    let served = accept(&endpoint);
    gateway.proxy.apply(&[]).unwrap();
    // Back at once: the sockets that went may still wait for the end of handshakes.
    gateway.proxy.apply(&[ingress(gateway.address)]).unwrap();
    gateway.proxy.apply(&[]).unwrap();
    until("the listeners' end", || TcpStream::connect(gateway.address).is_err());
    assert_eq!(gateway.proxy.open_connections(), 1, "connections live on");
    finish(client, served);
    gateway.expect(Ending::Completed, 1);
}

fn a_live_connection_keeps_no_table() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![route(&[address])]);
    let old = Arc::downgrade(&gateway.shared.live.load());
    let pending = gateway.connect();
    let _client = gateway.send(&hello(NAME, 1));
    let _served = accept(&endpoint);
    gateway.publish(Vec::new());
    until("the old table's end", || old.upgrade().is_none());
    assert!(gateway.proxy.open_connections() >= 1);
    drop(pending);
}

fn silence_for_the_idle_limit_ends_a_connection() {
    let (endpoint, address) = listen();
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let mut client = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    assert_eq!(rest(&mut served).unwrap(), hello(NAME, 1));
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::IdleTimeout, 1);
}

fn a_fault_costs_its_own_connection_and_nothing_else() {
    const FAULTS: u8 = 20;
    let (endpoint, address) = listen();
    // Fewer places than faults: one that were lost with its task would show.
    let limits = Limits { connections: 5, ..Limits::default() };
    let gateway = Gateway::start(limits, ingress(any_port()));
    gateway.publish(vec![route(&[address])]);
    let mut live = gateway.send(&hello(NAME, 1));
    let mut served = accept(&endpoint);
    read(&mut served, hello(NAME, 1).len());
    for random in 0..FAULTS {
        let mut faulty = gateway.send(&hello(FAULTY, random));
        assert_eq!(rest(&mut faulty).unwrap_or_default(), b"", "it is closed, at once");
    }
    gateway.expect(Ending::Internal, FAULTS.into());
    live.write_all(b"still there?").unwrap();
    assert_eq!(read(&mut served, 12), b"still there?");
    let other = gateway.send(&hello(NAME, 2));
    let mut second = accept(&endpoint);
    assert_eq!(read(&mut second, hello(NAME, 2).len()), hello(NAME, 2));
    finish(other, second);
    finish(live, served);
    until("no open connections", || gateway.proxy.open_connections() == 0);
}
