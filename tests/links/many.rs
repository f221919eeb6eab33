//! Many callers at many apps, most of them of another cluster, while what is imported and exported does not stand still.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::apart::{Apart, FRONTEND};
use super::common::authority::Authority;
use super::common::{measured, noise, wait_for, wait_until};
use super::grpc::{ANOTHER_APP, Sidecar, Way};

/// Apps that stay, the first of them west's own.
const APPS: u8 = 20;
const OWN: u8 = 5;
/// Apps that come and go, all of them east's.
const OTHERS: u8 = 100;
const CALLERS: u8 = 100;
/// Of both configurations: each adds or removes about half of the others in both, so that there are a thousand.
const CHANGES: u8 = 10;

fn app(number: u8) -> String {
    format!("shop/app{number}")
}

fn callee(number: u8) -> SocketAddr {
    if number < OWN { Apart::own_callee(number) } else { Apart::callee(number) }
}

/// A list with an entry for each of these apps.
fn list(key: &str, numbers: impl Iterator<Item = u8>, entry: impl Fn(u8) -> String) -> String {
    let each = |number| format!("  - {{ app: {}, {} }}\n", app(number), entry(number));
    format!("{key}:\n{}", numbers.map(each).collect::<String>())
}

fn endpoints(number: u8) -> String {
    format!("endpoints: [\"{}\"]", callee(number))
}

fn of_west(others: &BTreeSet<u8>) -> String {
    let import =
        |number| format!("clusters: [{}], allow: any", if number < OWN { "west" } else { "east" });
    list("apps", 0..OWN, endpoints)
        + &list("imports", (0..APPS).chain(others.iter().copied()), import)
}

fn of_east(others: &BTreeSet<u8>) -> String {
    let export = |_| "allow: [{ cluster: west }]".to_owned();
    list("apps", OWN..APPS + OTHERS, endpoints)
        + &list("exports", (OWN..APPS).chain(others.iter().copied()), export)
}

/// Which of the others are there after a change, by chance.
fn chosen(seed: u64) -> BTreeSet<u8> {
    let chances = noise(seed, OTHERS.into());
    (APPS..APPS + OTHERS)
        .zip(chances)
        .filter(|(_, chance)| chance % 2 == 0)
        .map(|(it, _)| it)
        .collect()
}

/// Changes both configurations, time and again; how many apps were added or removed.
fn change(apart: &Apart) -> usize {
    let all: BTreeSet<u8> = (APPS..APPS + OTHERS).collect();
    let (mut imported, mut exported, mut changed) = (all.clone(), all, 0);
    for number in 0..CHANGES {
        let (imports, exports) = (chosen(number.into()), chosen(u64::from(number) + 1000));
        changed += imported.symmetric_difference(&imports).count();
        changed += exported.symmetric_difference(&exports).count();
        apart.rewrite(&of_west(&imports), &of_east(&exports));
        let heard = usize::from(APPS - OWN) + imports.intersection(&exports).count();
        wait_until("the change is in force", || {
            let status = apart.near.status();
            let east = status["sources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["name"] == "exchange/east");
            let routes = status["routes"].as_array().unwrap().len();
            routes == usize::from(APPS) + imports.len() && east.unwrap()["apps"] == heard
        });
        (imported, exported) = (imports, exports);
    }
    changed
}

/// What comes of a new connection in the end: a hundred links at once may take a loaded machine longer than the half second that
/// the near side gives them. Another app is never what comes.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    wait_for("a connection", || {
        attempt().inspect_err(|error| assert!(!error.contains(ANOTHER_APP), "{error}")).ok()
    })
}

#[test]
fn nobody_is_misdelivered_while_apps_come_and_go_in_both_clusters() {
    let all = (APPS..APPS + OTHERS).collect();
    let Some(apart) = Apart::start("many gRPC callers", &of_west(&all), &of_east(&all)) else {
        return;
    };
    let root = Authority::new();
    for number in 0..APPS + OTHERS {
        let host = if number < OWN { &apart.callers } else { &apart.callees };
        host.serve(callee(number), &app(number), Some(&root));
    }
    let ways: Vec<_> =
        (0..APPS + OTHERS).map(|number| Way::Dialled(apart.egress(&app(number)))).collect();
    let caller = Sidecar::new(FRONTEND, "shop/frontend", &root);
    let open =
        |number: u8| apart.callers.connect(&caller, &ways[usize::from(number)], &app(number));
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let since = Instant::now();
    let changed = thread::scope(|scope| {
        for number in 0..CALLERS {
            let (done, calls, open) = (&done, &calls, &open);
            scope.spawn(move || {
                let own = number % APPS;
                let mut pooled = patiently(|| open(own));
                let mut turn = number;
                while !done.load(Ordering::Acquire) {
                    assert_eq!(pooled.who().unwrap(), app(own), "a pooled connection");
                    let other = turn % APPS;
                    let who = patiently(|| open(other)?.who());
                    assert_eq!(who, app(other), "a new connection");
                    // May be refused, as it is there only now and then; never by another app.
                    let fleeting = APPS + turn % OTHERS;
                    match open(fleeting).and_then(|mut caller| caller.who()) {
                        Ok(who) => assert_eq!(who, app(fleeting), "an app that comes and goes"),
                        Err(error) => assert!(!error.contains(ANOTHER_APP), "{error}"),
                    }
                    turn = turn.wrapping_add(7);
                    calls.fetch_add(2, Ordering::Relaxed);
                }
                assert_eq!(pooled.who().unwrap(), app(own), "a pooled connection");
                assert_eq!(pooled.dials(), 1, "it has lived on");
            });
        }
        let changed = change(&apart);
        done.store(true, Ordering::Release);
        changed
    });
    measured(&format!(
        "{CALLERS} gRPC callers at {APPS} apps, {OWN} of them in their own cluster, {} calls in {:?}, while {changed} apps were imported, exported or \
         no more: none misdelivered, no pooled connection lost",
        calls.load(Ordering::Relaxed),
        since.elapsed()
    ));
}
