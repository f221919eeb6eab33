//! Configuration files that cannot be read, are no files, vanish, or change without rest.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::process::run;
use super::common::{measured, skipped, wait_until};
use super::{NAME, echo, open, routes};

/// `nobody` of most systems: any user without rights will do.
const NOBODY: u32 = 65534;

fn text(folder: &Path, more: &str) -> String {
    filled(&format!("{BASE}{more}"), folder)
}

/// The configuration with a mark by which a version of it can be told.
fn version(endpoint: std::net::SocketAddr, number: u32) -> String {
    let mark = format!("version{number}.example");
    routes(&[(NAME, &[endpoint]), (&mark, &[endpoint])])
}

fn serves(gateway: &Gateway, number: u32) -> bool {
    open(gateway.ingress(), &format!("version{number}.example")).is_ok()
}

fn errors(gateway: &Gateway) -> String {
    gateway.status()["config"]["errors"].to_string()
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.metric("strait_table_generation", &[])
}

#[test]
fn of_a_hundred_swaps_of_a_config_map_the_last_one_counts() {
    const SWAPS: u32 = 100;
    let app = echo();
    let publish = |folder: &Path, number: u32| {
        let mount = folder.join("config");
        let data = mount.join(format!("..version{number}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("strait.yaml"), text(folder, &version(app.address, number))).unwrap();
        symlink(data.file_name().unwrap(), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        let _ = fs::remove_dir_all(mount.join(format!("..version{}", number.wrapping_sub(1))));
    };
    let gateway = Gateway::in_folder(tempfile::tempdir().unwrap(), "config", |folder| {
        publish(folder, 0);
        symlink("..data/strait.yaml", folder.join("config/strait.yaml")).unwrap();
    });
    let mut live = open(gateway.ingress(), NAME).unwrap();
    let (before, started) = (generation(&gateway), Instant::now());
    for number in 1..=SWAPS {
        publish(gateway.folder(), number);
        drop(open(gateway.ingress(), NAME).unwrap());
        // As fast as nobody does it, but not in one instant.
        thread::sleep(Duration::from_millis(20));
    }
    let swapped = Instant::now();
    wait_until("the last version", || serves(&gateway, SWAPS));
    measured(&format!(
        "100 swaps of ..data in {:?}: {} tables, the last in force {:?} later",
        swapped - started,
        generation(&gateway) - before,
        swapped.elapsed()
    ));
    assert!(!serves(&gateway, SWAPS - 1));
    super::exchange(&mut live, b"still there?").unwrap();
}

#[test]
fn a_file_that_changes_fifty_times_a_second_makes_two_tables_a_second() {
    let app = echo();
    let gateway = Gateway::start(&version(app.address, 0));
    let (before, cpu, started) = (generation(&gateway), gateway.cpu_time(), Instant::now());
    let mut last = 0;
    while started.elapsed() < Duration::from_secs(4) {
        last += 1;
        gateway.rewrite(&version(app.address, last));
        thread::sleep(Duration::from_millis(20));
    }
    let (tables, took) = (generation(&gateway) - before, started.elapsed().as_secs_f64());
    let share = (gateway.cpu_time() - cpu) / took;
    measured(&format!("{last} changes in {took:.1} s: {tables} tables, {share:.3} of a core"));
    // Two in any second: a few more than the whole seconds give.
    assert!((3..=2 * started.elapsed().as_secs() + 4).contains(&tables), "{tables}");
    assert!(share < 0.5, "{share}");
    wait_until("the last version", || serves(&gateway, last));
}

#[test]
fn thousands_of_events_in_the_directory_hide_no_change_and_cost_little() {
    let app = echo();
    let gateway = Gateway::start(&version(app.address, 0));
    let done = AtomicBool::new(false);
    let (cpu, started) = (gateway.cpu_time(), Instant::now());
    let events = thread::scope(|scope| {
        let noise = scope.spawn(|| {
            let mut events = 0;
            while !done.load(Ordering::Acquire) {
                let file = gateway.folder().join(format!("noise{}", events % 100));
                fs::write(&file, "noise").unwrap();
                fs::remove_file(&file).unwrap();
                events += 4;
            }
            events
        });
        for number in 1..=3 {
            gateway.rewrite(&version(app.address, number));
            wait_until("the change", || serves(&gateway, number));
        }
        while started.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(50));
        }
        done.store(true, Ordering::Release);
        noise.join().unwrap()
    });
    let took = started.elapsed().as_secs_f64();
    let share = (gateway.cpu_time() - cpu) / took;
    measured(&format!("{events} file events in {took:.1} s: {share:.3} of a core"));
    assert!(events > 3000, "{events}");
    // A debug build reads the events with it; an optimized one takes a tenth.
    assert!(share < 0.9, "{share}");
}

#[test]
fn a_file_that_becomes_something_else_is_told_and_the_last_good_one_serves() {
    let app = echo();
    let gateway = Gateway::start(&version(app.address, 0));
    let file = gateway.config().to_owned();
    let mut number = 0;
    let mut becomes = |what: &str, make: &dyn Fn(&Path)| {
        fs::remove_file(&file).unwrap();
        make(&file);
        wait_until(what, || errors(&gateway).len() > 2);
        drop(open(gateway.ingress(), NAME).unwrap());
        let told = errors(&gateway);
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir_all(&file));
        number += 1;
        gateway.rewrite(&version(app.address, number));
        wait_until("a good file heals it", || serves(&gateway, number));
        assert_eq!(errors(&gateway), "[]");
        told
    };
    let loops = becomes("a loop of links", &|file| symlink(file, file).unwrap());
    assert!(loops.contains("symbolic link"), "{loops}");
    becomes("a directory", &|file| fs::create_dir(file).unwrap());
    let fifo = becomes("a pipe", &|file| {
        assert!(run(Command::new("mkfifo").arg(file)).status.success());
    });
    assert!(fifo.contains("not a regular file"), "{fifo}");
    becomes("a device", &|file| symlink("/dev/zero", file).unwrap());
    becomes("nothing", &|file| symlink("/nowhere/at/all", file).unwrap());
    becomes("a file that is cut in the middle", &|file| {
        fs::write(file, "cluster: west\nrou").unwrap();
    });
    becomes("bytes that are no text", &|file| fs::write(file, [0xff, 0, 0xfe, b'\n']).unwrap());
}

#[test]
fn a_configuration_directory_may_be_removed_and_made_anew() {
    let app = echo();
    let make = |folder: &Path, number: u32| {
        fs::create_dir(folder.join("config")).unwrap();
        let text = text(folder, &version(app.address, number));
        fs::write(folder.join("config/strait.yaml"), text).unwrap();
    };
    let gateway =
        Gateway::in_folder(tempfile::tempdir().unwrap(), "config", |folder| make(folder, 0));
    for number in 1..=3 {
        fs::remove_dir_all(gateway.config()).unwrap();
        wait_until("the status says that it is gone", || errors(&gateway).len() > 2);
        drop(open(gateway.ingress(), NAME).unwrap());
        make(gateway.folder(), number);
        let since = Instant::now();
        wait_until("the new one is in force", || serves(&gateway, number));
        measured(&format!("directory removed and made anew: in force after {:?}", since.elapsed()));
        assert_eq!(errors(&gateway), "[]");
    }
}

#[test]
fn a_configuration_directory_may_become_a_file_and_a_directory_again() {
    let app = echo();
    let make = |folder: &Path, number: u32| {
        fs::create_dir(folder.join("config")).unwrap();
        let text = text(folder, &version(app.address, number));
        fs::write(folder.join("config/strait.yaml"), text).unwrap();
    };
    let gateway =
        Gateway::in_folder(tempfile::tempdir().unwrap(), "config", |folder| make(folder, 0));
    for number in [1, 3] {
        fs::remove_dir_all(gateway.config()).unwrap();
        // What it holds is a configuration as good as any.
        let text = text(gateway.folder(), &version(app.address, number));
        fs::write(gateway.config(), text).unwrap();
        wait_until("the file is in force", || serves(&gateway, number));
        assert_eq!(errors(&gateway), "[]");
        fs::remove_file(gateway.config()).unwrap();
        make(gateway.folder(), number + 1);
        wait_until("the directory is in force", || serves(&gateway, number + 1));
        assert_eq!(errors(&gateway), "[]");
    }
}

/// A folder that everybody may enter, with the program in it: where it was built, others may not.
fn folder_for_all() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let permissions = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), permissions).unwrap();
    fs::copy(STRAIT, folder.path().join("strait")).unwrap();
    folder
}

/// The gateway as a user without any right, started by root.
pub(super) fn unprivileged(test: &str, more: &str) -> Option<Gateway> {
    if !rustix::process::geteuid().is_root() {
        skipped(test, "only root can become somebody else");
        return None;
    }
    let folder = folder_for_all();
    fs::write(folder.path().join("strait.yaml"), text(folder.path(), more)).unwrap();
    let program = folder.path().join("strait");
    let config = folder.path().join("strait.yaml");
    Some(Gateway::spawn(folder, "strait.yaml", |command| {
        *command = Command::new(program);
        command.arg("run").arg("--config").arg(config).uid(NOBODY).gid(NOBODY);
        command.stderr(std::process::Stdio::piped());
    }))
}

#[test]
fn an_unreadable_file_is_told_and_the_last_good_one_serves() {
    let app = echo();
    let Some(gateway) = unprivileged("an unreadable file", &version(app.address, 0)) else {
        return;
    };
    let mode = |mode| {
        fs::set_permissions(gateway.config(), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0);
    wait_until("it is told", || errors(&gateway).contains("ermission denied"));
    drop(open(gateway.ingress(), NAME).unwrap());
    mode(0o644);
    wait_until("it is read again", || errors(&gateway) == "[]");
    gateway.rewrite(&version(app.address, 1));
    wait_until("a new version", || serves(&gateway, 1));
}
