//! Coming back.

use std::time::{Duration, Instant};

use super::common::app::{self, App, Connection};
use super::common::{measured, wait_until};
use super::{ORDERS, World};

/// Connections that are open when the preferred cluster comes back.
const OPEN: usize = 8;

/// West's app is away and its callers are at east; then it is there again. The connections, each with a call that was answered, and when.
fn away(world: &mut World) -> (Vec<Connection>, Instant) {
    let at = world.apps[0].as_ref().unwrap().address;
    world.kill_app(0);
    let gateway = world.west.ingress();
    wait_until("east takes over", || {
        app::call(gateway, ORDERS, &world.tls).as_deref() == Ok("east")
    });
    let open = || {
        let mut connection = app::connect(gateway, ORDERS, &world.tls).unwrap();
        // More than a ping's worth, so that it is seen to be a call.
        assert_eq!(connection.ask(&[7; 400]).unwrap().first(), Some(&b'e'));
        connection
    };
    let connections = (0..OPEN).map(|_| open()).collect();
    world.apps[0] = Some(App::start_at(at, &world.authority, "west", &[ORDERS]));
    (connections, Instant::now())
}

fn drained(world: &World) -> usize {
    world.west.records().iter().filter(|record| record["ending"] == "drained").count()
}

#[test]
fn connections_that_went_elsewhere_come_back_once_the_preferred_cluster_is_well() {
    let mut world = World::start(", failback: 2s", "");
    let (connections, since) = away(&mut world);
    let gateway = world.west.ingress();
    wait_until("new ones go to west at once, as far as it has not been ejected", || {
        app::call(gateway, ORDERS, &world.tls).as_deref() == Ok("west")
    });
    let new = since.elapsed();
    wait_until("the first is closed", || drained(&world) >= 1);
    let first = since.elapsed();
    for connection in connections {
        connection.ended().unwrap();
    }
    wait_until("all are told", || drained(&world) >= OPEN);
    measured(&format!(
        "west is back: new calls after {new:.1?}, {OPEN} idle connections closed from {first:.1?} to {:.1?} (failback 2s)",
        since.elapsed(),
    ));
    // To a second, as that is what ages are known to.
    assert!(first >= Duration::from_secs(1), "{first:?}");
}

#[test]
fn a_connection_whose_calls_are_silent_stays_where_it_is() {
    let mut world = World::start(", failback: 0s, quietClose: false", "");
    let (mut connections, _) = away(&mut world);
    let gateway = world.west.ingress();
    wait_until("west is back", || app::call(gateway, ORDERS, &world.tls).as_deref() == Ok("west"));
    // Longer than it takes to be seen as quiet.
    std::thread::sleep(Duration::from_secs(3));
    for connection in &mut connections {
        assert_eq!(connection.who().unwrap(), "east");
    }
    assert_eq!(drained(&world), 0);
}
