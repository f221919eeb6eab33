//! Established connections over links, when one of the gateways or the way between them is gone; and a name server under attack.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::app::{App, dial_from};
use super::common::gateway::Gateway;
use super::common::joined::{Joined, More, NAME};
use super::common::net::Net;
use super::common::{measured, noise, wait_for, wait_until};
use super::{SLACK, echo, ended, exchange, open, wait_for_endings, wait_for_long};

const CONNECTIONS: usize = 20;

/// Connections by the app's own address, each of which has been answered.
fn connected(pair: &Joined) -> Vec<TcpStream> {
    (0..CONNECTIONS).map(|_| connect(pair)).collect()
}

/// A loaded machine may not make a link within its half second, and is asked again.
fn connect(pair: &Joined) -> TcpStream {
    wait_for("the app answers", || open(pair.egress, NAME).ok())
}

fn start(app: &App) -> Joined {
    Joined::start(app.address, &More::default())
}

/// How long it took until all of them had ended, whichever way.
fn all_end(connections: &mut [TcpStream], since: Instant) -> Duration {
    for connection in connections {
        assert!(matches!(connection.read(&mut [0]), Ok(0) | Err(_)));
    }
    since.elapsed()
}

#[test]
fn callers_see_at_once_that_the_far_gateway_was_killed_and_reach_it_when_it_is_back() {
    let app = echo();
    let mut pair = start(&app);
    let mut held = connected(&pair);
    let at = pair.east.ingress();
    let killed = Instant::now();
    pair.east.signal(Signal::KILL);
    let took = all_end(&mut held, killed);
    pair.east.exit();
    measured(&format!("a far gateway is killed: its callers see the end after {took:?}"));
    assert!(took < SLACK, "{took:?}");
    wait_for_endings(&pair.west, "reset_by_endpoint", CONNECTIONS as u64);
    assert!(open(pair.egress, NAME).is_err());

    let back = Instant::now();
    let text = pair.east_text().replace("\"127.0.0.1:0\"", &format!("\"{at}\""));
    pair.east = Gateway::with_config(&text);
    wait_until("calls are served again", || open(pair.egress, NAME).is_ok());
    measured(&format!("a far gateway that is back is called after {:?}", back.elapsed()));
}

#[test]
fn apps_see_at_once_that_the_near_gateway_was_killed() {
    let app = echo();
    let mut pair = start(&app);
    let held = connected(&pair);
    pair.west.signal(Signal::KILL);
    pair.west.exit();
    // The client of a link is the near gateway.
    wait_until("the far gateway has ended them", || pair.east.status()["connections"]["open"] == 0);
    let broken = ended(&pair.east, "reset_by_client");
    assert_eq!(broken, held.len() as u64 + ended_of_exchange(&pair.east));
}

/// What west asked of east has ended in the same way.
fn ended_of_exchange(gateway: &Gateway) -> u64 {
    gateway
        .metric("strait_connections_total", &["route=\"exchange\"", "ending=\"reset_by_client\""])
}

#[test]
fn connections_live_on_while_the_far_gateway_hangs() {
    let app = echo();
    let pair = start(&app);
    let mut held = connected(&pair);
    pair.east.signal(Signal::STOP);
    let told = || pair.west.status()["sources"].to_string().contains("\"up\":false");
    wait_until("west knows", told);
    for connection in &mut held {
        connection.write_all(b"still there?").unwrap();
    }
    pair.east.signal(Signal::CONT);
    for connection in &mut held {
        let mut came = [0; 12];
        connection.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"still there?");
    }
}

/// For longer than the exchange needs to call the gateway lost, and not for as long as to call a connection dead.
#[test]
fn connections_live_on_while_the_way_between_the_gateways_drops_everything() {
    let Some(net) = Net::with_filter("a way between gateways that drops everything") else {
        return;
    };
    net.run(|| {
        let app = echo();
        let pair = start(&app);
        let mut held = connected(&pair);
        let port = pair.east.ingress().port();
        net.drop_packets(&format!("tcp dport {port}"));
        net.drop_packets(&format!("tcp sport {port}"));
        let told = || pair.west.status()["sources"].to_string().contains("\"up\":false");
        wait_until("west knows", told);
        assert!(open(pair.egress, NAME).is_err(), "there is no other cluster");
        net.heal();
        for connection in &mut held {
            exchange(connection, b"still there?").unwrap();
        }
        wait_until("calls are served again", || open(pair.egress, NAME).is_ok());
    });
}

#[test]
#[ignore = "keepalive takes 90 s; `.ci/run soak` runs it"]
fn links_to_a_vanished_gateway_are_given_up_within_100_seconds() {
    let Some(net) = Net::with_filter("a vanished far gateway") else { return };
    net.run(|| {
        // One that waits for as long as it takes.
        let app = App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
            stream.set_read_timeout(None)?;
            let mut writing = stream.try_clone()?;
            std::io::copy(&mut stream, &mut writing).map(drop)
        });
        let pair = start(&app);
        let held = connected(&pair);
        let port = pair.east.ingress().port();
        // What is not acknowledged is sent again for as long as the kernel likes (`tcp_retries2`), and not probed.
        wait_until("all is acknowledged", || {
            let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let of_links = sockets.lines().filter(|line| line.contains(&format!(":{port:04X} ")));
            // The fifth field of proc(5): octets to be sent, and to be read.
            of_links.clone().count() > 2 * CONNECTIONS
                && of_links
                    .filter_map(|line| line.split_whitespace().nth(4))
                    .all(|queues| queues.starts_with("00000000:"))
        });
        net.drop_packets(&format!("tcp dport {port}"));
        net.drop_packets(&format!("tcp sport {port}"));
        let vanished = Instant::now();
        for (gateway, ending) in
            [(&pair.west, "reset_by_endpoint"), (&pair.east, "reset_by_client")]
        {
            wait_for_long("the links are given up", || {
                (ended(gateway, ending) >= CONNECTIONS as u64).then_some(())
            });
        }
        let took = vanished.elapsed();
        measured(&format!("the way between gateways is gone: all links given up after {took:?}"));
        assert!(took < Duration::from_secs(100) + SLACK, "{took:?}");
        drop(held);
    });
}

/// Datagrams as fast as they go, from this machine and from strangers: nothing of them is a question, or all are.
fn flood(pair: &Joined, stop: &AtomicBool) -> usize {
    let to = pair.name_server();
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Acquire) {
        for length in [0, 11, 12, 17, 100, 512, 1400] {
            let _ = own.send_to(&noise(sent as u64, length), to);
            sent += 1;
        }
        // Streams that promise more than they send.
        if let Ok(mut stream) = dial_from([127, 9, 0, 1].into(), to) {
            let _ = stream.write_all(&[0xff; 100]);
        }
    }
    sent
}

#[test]
fn a_flood_of_the_name_server_disturbs_no_call() {
    const CALLS: usize = 200;
    let app = echo();
    let pair = start(&app);
    let stop = AtomicBool::new(false);
    let calls = || {
        let mut took: Vec<_> = (0..CALLS)
            .map(|_| {
                let since = Instant::now();
                drop(connect(&pair));
                since.elapsed()
            })
            .collect();
        took.sort_unstable();
        took[CALLS * 95 / 100]
    };
    let quiet = calls();
    let (busy, sent) = thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&pair, &stop));
        let busy = calls();
        stop.store(true, Ordering::Release);
        (busy, flooding.join().unwrap())
    });
    measured(&format!(
        "{sent} datagrams to the name server: 95 % of {CALLS} calls over links within {busy:?}, without them {quiet:?}"
    ));
    assert!(sent > CALLS, "{sent}");
    assert!(pair.west.metric("strait_dns_answers_total", &["code=\"formerr\""]) > 0);
    wait_until("all are told", || ended(&pair.west, "completed") == 2 * CALLS as u64);
    assert_eq!(pair.west.status()["ready"], true);
}
