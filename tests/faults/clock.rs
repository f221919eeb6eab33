//! A clock that jumps. What lasts is measured by the monotonic clock, which does not; the clock on the wall is for people.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::dns_server;
use super::common::gateway::{BASE, Gateway, filled};
use super::common::process::run;
use super::common::{PATIENCE, counterpart, measured, wait_for, wait_until};
use super::{NAME, SLACK, echo, exchange, open, rest};

/// Stands before libc's function in a dynamically linked program, as the one under test is, and moves the clock on the wall by as
/// many seconds as a file says.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset;

__attribute__((constructor)) static void start(void) {
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    offset = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && offset)
        now->tv_sec += *offset;
    return failed;
}
"#;

const DAY: i64 = 24 * 60 * 60;

/// The shim, built in a folder. `None`: there is no compiler.
fn shim(folder: &Path) -> Option<PathBuf> {
    let compiler = counterpart("a clock that jumps", "gcc")?;
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SHIM).unwrap();
    let built =
        run(Command::new(compiler).args(["-shared", "-fPIC", "-o"]).args([&library, &source]));
    assert!(built.status.success(), "{built:?}");
    Some(library)
}

/// How long a silent client is waited for.
fn hello_timeout(gateway: &Gateway) -> Duration {
    let connected = Instant::now();
    let mut client = TcpStream::connect(gateway.ingress()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"");
    connected.elapsed()
}

fn last_timestamp(gateway: &Gateway) -> Option<String> {
    gateway.records().last().and_then(|record| record["timestamp"].as_str().map(str::to_owned))
}

#[test]
fn a_clock_that_jumps_moves_no_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let Some(shim) = shim(folder.path()) else { return };
    let (app, dns) = (echo(), dns_server());
    dns.addresses("pods.example", &["127.0.0.1"]);
    let text = format!(
        "\
{BASE}limits: {{ helloTimeout: 1s }}
resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}
routes: [{{ name: {NAME}, endpoints: [\"pods.example:{}\"], check: {{ kind: tcp, interval: 200ms }} }}]
",
        dns.address,
        app.address.port()
    );
    fs::write(folder.path().join("strait.yaml"), filled(&text, folder.path())).unwrap();
    let clock = folder.path().join("offset");
    let offset = File::create_new(&clock).unwrap();
    // In place: the shim has it mapped.
    let jump = |seconds: i64| offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    jump(0);
    let gateway = Gateway::spawn(folder, "strait.yaml", |command| {
        command.env("LD_PRELOAD", shim).env("CLOCK_OFFSET", &clock);
    });
    let mut live = open(gateway.ingress(), NAME).unwrap();
    // Forward, back, far back, and before the epoch, where a difference of two times would be negative.
    for (seconds, year) in
        [(40 * 365 * DAY, "206"), (-DAY, "20"), (-20 * 365 * DAY, "200"), (-70 * 365 * DAY, "19")]
    {
        jump(seconds);
        let took = hello_timeout(&gateway);
        measured(&format!("clock off by {} days: helloTimeout 1 s took {took:?}", seconds / DAY));
        assert!((Duration::from_millis(900)..Duration::from_secs(1) + SLACK).contains(&took));
        exchange(&mut live, b"still there?").unwrap();
        let (asked, checked) = (dns.asked("pods.example"), app.accepted());
        wait_until("DNS is asked on", || dns.asked("pods.example") > asked);
        wait_until("the endpoint is checked on", || app.accepted() > checked + 1);
        drop(open(gateway.ingress(), NAME).unwrap());
        wait_for("the log has the new time", || {
            last_timestamp(&gateway).filter(|time| time.starts_with(year))
        });
        let age = gateway.status()["sources"][0]["age_seconds"].as_f64().unwrap();
        assert!((0.0..60.0).contains(&age), "{age}");
        let refused: Value = gateway.status()["refusals"][0].clone();
        assert!(refused["time"].as_str().is_some_and(|time| time.starts_with(year)), "{refused}");
    }
}

/// Wherever else the clock on the wall were read, a jump would move something.
#[test]
fn only_what_is_told_to_people_reads_the_clock_on_the_wall() {
    const MAY: [&str; 14] = [
        "src/admin/",
        "src/app/",
        "src/cli/",
        "src/telemetry/",
        "src/routing/live.rs",
        "src/proxy/record.rs",
        // Compares it with the times of files, which are of that clock too; at worst a file is read once more.
        "src/config/stamps.rs",
        "src/permissions/store/file.rs",
        // For its randomness alone.
        "src/proxy/id.rs",
        // How old it is what is remembered, and how long an address has rested, outlive the process, and no other clock does. A jump makes an
        // age wrong, or an address rest for longer or not as long.
        "src/state.rs",
        "src/discovery/",
        "src/egress/",
        "src/permissions/follow.rs",
        // What is written is one more than what was there, wherever the clock is.
        "src/permissions/store/versions.rs",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("tests.rs") {
                continue;
            }
            seen += 1;
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let reads = text.contains("SystemTime") || text.contains("now_utc");
            assert!(!reads || MAY.iter().any(|may| name.starts_with(may)), "{name}");
        }
    }
    assert!(seen > 40, "{seen}");
}
