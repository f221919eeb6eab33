//! Configuration that changes under a gateway at work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::app::connect;
use super::common::gateway::{BASE, Gateway, filled};
use super::common::wait_until;
use super::{Apps, routes, wait_for_app};

/// The gateway also looks at its files every so often without being told. What took nearly as long proves nothing.
const POLL: Duration = Duration::from_secs(10);

#[test]
fn a_changed_route_is_in_force_within_a_second_and_live_connections_go_on() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    let (ingress, pid) = (gateway.ingress(), gateway.status()["pid"].clone());
    let mut live = connect(ingress, "one.example", &apps.tls).unwrap();
    assert_eq!(live.who().unwrap(), "alpha");
    // Of three changes one has to be quick: a machine that is busy with other things may delay two.
    let changes = [(&apps.beta, "beta"), (&apps.alpha, "alpha"), (&apps.beta, "beta")];
    let took = changes.map(|(app, name)| {
        gateway.rewrite(&routes(&[("one.example", app)]));
        let written = Instant::now();
        wait_for_app(&apps, &gateway, "one.example", name);
        written.elapsed()
    });
    assert!(took.iter().min() <= Some(&Duration::from_secs(1)), "{took:?}");
    assert_eq!(live.who().unwrap(), "alpha", "a live connection stays where it is");
    assert_eq!((gateway.ingress(), &gateway.status()["pid"]), (ingress, &pid), "no restart");
}

#[test]
fn a_bad_change_keeps_the_last_good_configuration_and_a_good_one_heals_it() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    assert_eq!(gateway.metric("strait_config_rejected_total", &[]), 0);
    gateway.rewrite("routes:\n  - { name: one.example, endpoint: [\"127.0.0.1:1\"] }\n");
    wait_until("the change is rejected", || {
        gateway.metric("strait_config_rejected_total", &[]) >= 1
    });
    assert_eq!(apps.call(gateway.ingress(), "one.example").unwrap(), "alpha");
    let errors = gateway.status()["config"]["errors"].to_string();
    assert!(errors.contains("strait.yaml:6:") && errors.contains("endpoint"), "{errors}");
    let logged = gateway.lines().join("\n");
    assert!(logged.contains("strait.yaml:6:"), "{logged}");
    assert_eq!(gateway.get("/readyz").unwrap().status, 200, "it still serves");

    gateway.rewrite(&routes(&[("one.example", &apps.beta)]));
    wait_for_app(&apps, &gateway, "one.example", "beta");
    wait_until("the status forgets the error", || {
        gateway.status()["config"]["errors"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn a_config_map_is_followed_through_every_swap_of_its_data_link() {
    let apps = Apps::start();
    // As the kubelet lays a ConfigMap out: the file is a link through `..data`, which a rename moves to the next folder.
    let publish = |folder: &Path, version: u32, more: &str| {
        let mount = folder.join("config");
        let data = mount.join(format!("..version{version}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("strait.yaml"), filled(&format!("{BASE}{more}"), folder)).unwrap();
        symlink(data.file_name().unwrap(), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        let _ = fs::remove_dir_all(mount.join(format!("..version{}", version.wrapping_sub(1))));
    };
    let gateway = Gateway::in_folder(tempfile::tempdir().unwrap(), "config", |folder| {
        publish(folder, 0, &routes(&[("one.example", &apps.alpha)]));
        symlink("..data/strait.yaml", folder.join("config/strait.yaml")).unwrap();
    });
    assert_eq!(apps.call(gateway.ingress(), "one.example").unwrap(), "alpha");
    let swapped = Instant::now();
    for version in 1..=4 {
        let (app, name) =
            if version % 2 == 1 { (&apps.beta, "beta") } else { (&apps.alpha, "alpha") };
        publish(gateway.folder(), version, &routes(&[("one.example", app)]));
        wait_for_app(&apps, &gateway, "one.example", name);
    }
    // Four changes by polling alone would take four times as long.
    assert!(swapped.elapsed() < 2 * POLL, "{:?}", swapped.elapsed());
}

#[test]
fn a_deleted_file_changes_nothing_and_its_return_counts() {
    let apps = Apps::start();
    let gateway = Gateway::start(&routes(&[("one.example", &apps.alpha)]));
    fs::remove_file(gateway.config()).unwrap();
    wait_until("the status says that the file is gone", || {
        gateway.status()["config"]["errors"].as_array().is_some_and(|errors| !errors.is_empty())
    });
    assert_eq!(apps.call(gateway.ingress(), "one.example").unwrap(), "alpha");
    gateway.rewrite(&routes(&[("one.example", &apps.beta)]));
    wait_for_app(&apps, &gateway, "one.example", "beta");
}

#[test]
fn sighup_reads_files_that_no_watch_sees() {
    let apps = Apps::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("routes.yaml");
    let text = |folder: &Path, more: &str| filled(&format!("{BASE}{more}"), folder);
    let gateway = Gateway::in_folder(tempfile::tempdir().unwrap(), "strait.yaml", |folder| {
        fs::write(&file, text(folder, &routes(&[("one.example", &apps.alpha)]))).unwrap();
        symlink(&file, folder.join("strait.yaml")).unwrap();
    });
    let changed = Instant::now();
    fs::write(&file, text(gateway.folder(), &routes(&[("one.example", &apps.beta)]))).unwrap();
    gateway.signal(Signal::HUP);
    wait_for_app(&apps, &gateway, "one.example", "beta");
    assert!(changed.elapsed() < POLL / 2, "{:?}", changed.elapsed());
}

/// Tells threads when it is dropped.
struct Finished<'a>(&'a AtomicBool);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn tables_swapped_under_load_never_fail_a_stable_route() {
    const SWAPS: u32 = 20;
    let apps = Apps::start();
    let written = |swap: u32| {
        let moving = if swap.is_multiple_of(2) { &apps.alpha } else { &apps.beta };
        let name = format!("swap{swap}.moving.example");
        routes(&[("stable.example", &apps.alpha), (&name, moving)])
    };
    let gateway = Gateway::start(&written(0));
    let ingress = gateway.ingress();
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = thread::scope(|scope| {
        let callers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut failures = Vec::new();
                while !done.load(Ordering::Acquire) {
                    calls.fetch_add(1, Ordering::AcqRel);
                    match apps.call(ingress, "stable.example") {
                        Ok(who) if who == "alpha" => {}
                        Ok(other) | Err(other) => failures.push(other),
                    }
                }
                failures
            })
        });
        // Also when something below fails: the scope waits for the callers.
        let finished = Finished(&done);
        for swap in 1..=SWAPS {
            gateway.rewrite(&written(swap));
            let app = if swap.is_multiple_of(2) { "alpha" } else { "beta" };
            wait_for_app(&apps, &gateway, &format!("swap{swap}.moving.example"), app);
        }
        drop(finished);
        callers.map(|caller| caller.join().unwrap()).concat()
    });
    let calls = calls.into_inner();
    assert!(failures.is_empty(), "{} of {calls} calls failed: {failures:?}", failures.len());
    assert!(calls > 100, "only {calls} calls: no load at all");
    assert!(gateway.metric("strait_table_generation", &[]) > SWAPS.into());
}
