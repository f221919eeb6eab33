//! Many apps, many callers, many listeners, and a configuration that does not stand still.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::common::gateway::{BASE, Gateway};
use super::common::{measured, noise, wait_until};
use super::{Bench, app, own_address};

/// Apps that stay.
const APPS: usize = 20;
/// Apps that come and go.
const OTHERS: usize = 40;
const CALLERS: usize = 100;
/// Configurations, each of which adds or removes about half of the others: a thousand changes.
const CHANGES: usize = 50;

#[test]
fn nobody_is_misdelivered_while_apps_come_and_go() {
    let bench = Bench::start(APPS + OTHERS);
    let addresses: Vec<_> = (0..APPS + OTHERS).map(|number| bench.address(number)).collect();
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let since = Instant::now();
    let mut changed = 0;
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (bench, addresses, done, calls) = (&bench, &addresses, &done, &calls);
            scope.spawn(move || {
                let own = caller % APPS;
                let mut pooled = bench.open(addresses[own]).unwrap();
                let mut turn = caller;
                while !done.load(Ordering::Acquire) {
                    assert_eq!(pooled.who().unwrap(), app(own), "a pooled connection");
                    let other = turn % APPS;
                    assert_eq!(
                        bench.who(addresses[other]).unwrap(),
                        app(other),
                        "a new connection"
                    );
                    // May be refused, as it is there only half of the time; never by another app.
                    let fleeting = APPS + turn % OTHERS;
                    if let Ok(who) = bench.who(addresses[fleeting]) {
                        assert_eq!(who, app(fleeting), "an app that comes and goes");
                    }
                    turn += 7;
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let mut there = [true; OTHERS];
        for change in 0..CHANGES {
            for (there, chance) in there.iter_mut().zip(noise(change as u64, OTHERS)) {
                changed += usize::from(*there != (chance % 2 == 0));
                *there = chance % 2 == 0;
            }
            let others = (0..OTHERS).filter(|&number| there[number]).map(|number| APPS + number);
            bench.import(&(0..APPS).chain(others).collect::<Vec<_>>(), "");
        }
        done.store(true, Ordering::Release);
    });
    measured(&format!(
        "{CALLERS} callers at {APPS} apps, {} calls in {:?}, while {changed} apps were added or removed: none misdelivered",
        calls.load(Ordering::Relaxed),
        since.elapsed()
    ));
    let now: Vec<_> = (0..APPS).map(|number| bench.address(number)).collect();
    assert_eq!(now, addresses[..APPS]);
}

/// Imports of one backend under many names.
fn imports(bind: &str, count: usize, backend: &str) -> String {
    let base = BASE.replace(
        "  admin:",
        &format!("  egress: {{ bind: {bind}, ports: 21000-21999 }}\n  admin:"),
    );
    let mut text =
        format!("{base}apps:\n  - {{ app: shop/caller, from: [{{ network: 127.0.0.1/32 }}] }}\n");
    for number in 0..count {
        writeln!(text, "  - {{ app: shop/app{number}, endpoints: [\"{backend}\"] }}").unwrap();
    }
    text.push_str("imports:\n");
    for number in 0..count {
        writeln!(text, "  - {{ app: shop/app{number}, name: app{number}.example, clusters: [west], allow: any }}").unwrap();
    }
    text
}

#[test]
fn hundreds_of_listeners_are_opened_and_a_change_does_not_disturb_them() {
    const LISTENERS: usize = 300;
    let mut bench = Bench::start(1);
    let bind = own_address();
    let backend = bench.apps[0].address.to_string();
    bench.egress = format!("{{ bind: {bind}, ports: 21000-21999 }}");
    let since = Instant::now();
    bench.gateway = Gateway::with_config(&imports(&bind, LISTENERS, &backend));
    measured(&format!("{LISTENERS} egress listeners: ready after {:?}", since.elapsed()));
    let listening = |count: usize| {
        let status = bench.gateway.status();
        let all = status["egress"].as_array().unwrap();
        all.len() == count && all.iter().all(|one| one["trouble"].is_null())
    };
    assert!(listening(LISTENERS));
    let addresses: Vec<_> =
        (0..LISTENERS).map(|number| format!("{bind}:{}", 21_000 + number)).collect();
    // Every address is one app's, in the order of their names.
    let mut live: Vec<_> = addresses.iter().step_by(10).map(|at| open(&bench, at)).collect();
    bench.gateway.rewrite_all(&imports(&bind, LISTENERS + 50, &backend));
    wait_until("the new ones are open too", || listening(LISTENERS + 50));
    let sockets = descriptors(&bench.gateway);
    assert!(sockets < 2 * (LISTENERS + 50) + 2 * live.len() + 100, "{sockets} descriptors");
    bench.gateway.rewrite_all(&imports(&bind, LISTENERS - 50, &backend));
    wait_until("some are gone", || listening(LISTENERS - 50));
    for connection in &mut live {
        assert_eq!(connection.who().unwrap(), "shop/app0");
    }
}

fn open(bench: &Bench, at: &str) -> super::common::app::Connection {
    let stream = super::dial_from(super::ip(super::CALLER), at.parse().unwrap()).unwrap();
    super::handshake(stream, "app0.example", &bench.tls).unwrap()
}

fn descriptors(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.pid().as_raw_nonzero());
    std::fs::read_dir(folder).unwrap().count()
}
