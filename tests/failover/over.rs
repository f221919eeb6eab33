//! Taking over.

use std::io::Read;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::World;
use super::callers::{Call, Callers};
use super::common::app::App;
use super::common::measured;
use super::common::net::Net;

/// What is asked for is a second. A loaded machine takes its time for handshakes beside that.
const SLACK: Duration = Duration::from_secs(9);

/// Lets callers call, `fail` something, and tells what they noticed: until when a call that began after it was not answered by
/// `next`, and how long the longest took. No call that began after it may fail. `mend` lets those end who were caught in the middle.
fn taken_over(
    what: &str,
    world: &mut World,
    [first, next]: [&str; 2],
    fail: impl FnOnce(&mut World),
    mend: impl FnOnce(&World),
) {
    let callers = Callers::start(world);
    callers.wait_for(first, Instant::now(), 20);
    fail(world);
    let failed = Instant::now();
    callers.wait_for(next, failed, 100);
    mend(world);
    tell(what, &callers.stop(), failed, next);
}

fn tell(what: &str, calls: &[Call], failed: Instant, next: &str) {
    let after: Vec<_> = calls.iter().filter(|call| call.began >= failed).collect();
    let lost = after.iter().filter(|call| call.answer.is_err());
    let lost: Vec<_> = lost.map(|call| &call.answer).collect();
    let longest = after.iter().map(|call| call.took).max().unwrap();
    let over = after.iter().filter(|call| call.answer.as_deref() == Ok(next));
    let over = over.map(|call| call.began + call.took).min().unwrap() - failed;
    measured(&format!(
        "{what}: taken over after {over:.0?}, longest of {} new calls {longest:.0?}, {} lost",
        after.len(),
        lost.len(),
    ));
    assert_eq!(lost, Vec::<&Result<String, String>>::new(), "{what}");
    let most = Duration::from_secs(1) + SLACK;
    assert!(over < most && longest < most, "{what}: {over:?}, {longest:?}");
}

#[test]
fn the_next_cluster_takes_over_when_the_last_own_endpoint_dies() {
    let mut world = World::start("", "");
    let die = |world: &mut World| world.kill_app(0);
    taken_over("the last local endpoint dies", &mut world, ["west", "east"], die, |_| {});
}

#[test]
fn the_next_cluster_takes_over_when_the_far_app_dies() {
    let mut world = World::start("", "");
    world.kill_app(0);
    let die = |world: &mut World| world.kill_app(1);
    taken_over("the far app dies", &mut world, ["east", "south"], die, |_| {});
}

#[test]
fn the_next_cluster_takes_over_when_a_far_gateway_is_killed() {
    let mut world = World::start("", "");
    world.kill_app(0);
    let kill = |world: &mut World| {
        world.east.signal(Signal::KILL);
        world.east.exit();
    };
    taken_over("a far gateway is killed", &mut world, ["east", "south"], kill, |_| {});
}

#[test]
fn the_next_cluster_takes_over_when_a_far_gateway_hangs() {
    let mut world = World::start("", "");
    world.kill_app(0);
    // Its kernel goes on accepting.
    let hang = |world: &mut World| world.east.signal(Signal::STOP);
    let wake = |world: &World| world.east.signal(Signal::CONT);
    taken_over("a far gateway hangs", &mut world, ["east", "south"], hang, wake);
}

/// East's gateway in a network where what goes to it may meet a rule of nft(8).
fn on_the_way(what: &str, verdict: &str) {
    let Some(net) = Net::with_filter(what) else { return };
    net.run(|| {
        let mut world = World::start("", "");
        world.kill_app(0);
        let at = world.east.ingress().port();
        let rule = format!("add rule inet faults out tcp dport {at} {verdict}");
        let heal = |_: &World| net.heal();
        taken_over(what, &mut world, ["east", "south"], |_| net.nft(&rule), heal);
    });
}

#[test]
fn the_next_cluster_takes_over_when_a_far_gateway_falls_silent() {
    on_the_way("the way to a far gateway drops everything", "drop");
}

#[test]
fn the_next_cluster_takes_over_when_the_way_to_a_far_gateway_breaks() {
    on_the_way("the way to a far gateway resets every connection", "reject with tcp reset");
}

/// Callers of a west whose own endpoint is another program.
fn beside(what: &str, own: App, more: &str) {
    let world = World::with(Some(own), "", more);
    let (callers, began) = (Callers::start(&world), Instant::now());
    callers.wait_for("east", began, 40);
    tell(what, &callers.stop(), began, "east");
    assert!(world.apps[0].as_ref().unwrap().accepted() >= 1, "it was never tried");
}

#[test]
fn a_hello_that_was_answered_by_a_close_is_retried_in_the_next_cluster() {
    let at = "127.0.0.1:0".parse().unwrap();
    let closes = App::serve(at, |mut stream| stream.read(&mut [0; 4096]).map(drop));
    beside("an endpoint closes without a byte", closes, "");
}

#[test]
fn a_hello_that_was_not_answered_in_time_is_retried_in_the_next_cluster() {
    let at = "127.0.0.1:0".parse().unwrap();
    let silent = App::serve(at, |mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    beside(
        "an endpoint is silent (firstByteTimeout 500ms)",
        silent,
        "limits: { firstByteTimeout: 500ms }\n",
    );
}
