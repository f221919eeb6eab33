//! A restart while the store is down.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::gateway::STRAIT;
use crate::common::wait_until;

use super::{BATCH, FRONTEND, ORDERS, STORE, World};

fn stop(world: &mut World) {
    world.west.signal(Signal::TERM);
    world.west.exit();
}

fn start(world: &mut World) {
    let mut command = Command::new(STRAIT);
    command.args(["run", "--config"]).arg(world.west.config());
    world.west = world.west.beside(command);
    world.west.wait_until_ready();
}

#[test]
fn what_was_known_holds_after_a_restart_and_what_never_was_is_refused() {
    let more = format!("stateDir: state\nallowedApps: {{ {STORE}, required: true }}\n");
    let documents = [("shop/frontend", r#"{"allowed":[{"app":"orders","clusters":["east"]}]}"#)];
    let mut world = World::start(&more, &documents);
    world.waits_for(FRONTEND, ORDERS, "east");
    let kept = world.west.folder().join("state/allowed-apps.snapshot.json");
    wait_until("the documents are kept", || kept.exists());
    let (store, away) = (world.west.folder().join("allowed"), world.west.folder().join("away"));
    fs::rename(&store, &away).unwrap();
    wait_until("the store is down", || world.source()["up"] == false);
    assert_eq!(world.call(FRONTEND, ORDERS).as_deref(), Ok("east"), "the last known holds");
    assert!(world.source()["stale"] == false, "{}", world.source());

    stop(&mut world);
    start(&mut world);
    world.waits_for(FRONTEND, ORDERS, "east");
    let source = world.source();
    assert_eq!((&source["stale"], &source["documents"]), (&true.into(), &1.into()), "{source}");
    assert!(world.call(BATCH, ORDERS).is_err());
    fs::rename(&away, &store).unwrap();
    wait_until("it is not stale any more", || world.source()["stale"] == false);

    // With nothing known, nothing is allowed.
    fs::rename(&store, &away).unwrap();
    stop(&mut world);
    fs::remove_dir_all(world.west.folder().join("state")).unwrap();
    start(&mut world);
    assert!(world.call(FRONTEND, ORDERS).is_err());
    fs::rename(&away, &store).unwrap();
    world.waits_for(FRONTEND, ORDERS, "east");
}
