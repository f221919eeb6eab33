//! What strangers send: names that are none, and far too many of them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::{counterpart, measured, noise, wait_for, wait_until};
use super::{NAME, ask, echo, open, rest, routes};

/// Names that would write lines, colours, quotes or ends into a log that took them as they are.
const HOSTILE: [&[u8]; 12] = [
    b"one\r\nINFO forged=line",
    b"one\n{\"ending\":\"completed\",\"forged\":true}",
    b"\x1b[2J\x1b[31mred.example",
    b"\x1b]0;title\x07.example",
    b"quote\".example",
    b"back\\slash.example",
    b"nul\0.example",
    b"one.example\0.evil.example",
    b"del\x7f.example",
    b"\xff\xfe.example",
    b"line\xe2\x80\xa8separator.example",
    b"c1\xc2\x9b31m.example",
];

fn send_all(ingress: SocketAddr, names: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for name in names {
        let mut client = std::net::TcpStream::connect(ingress).unwrap();
        client.set_read_timeout(Some(super::PATIENCE)).unwrap();
        std::io::Write::write_all(&mut client, &super::hello::hello(name.as_ref())).unwrap();
        let came = rest(&mut client).unwrap();
        assert!(came.len() == 7 && came[0] == 0x15, "an alert: {came:?}");
    }
}

/// Nothing but text and line feeds, and one object a line.
fn is_clean_json(log: &[u8]) -> usize {
    let text = std::str::from_utf8(log).unwrap();
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["forged"].is_null()), "{text}");
    lines.iter().filter(|line| line["ending"].is_string()).count()
}

fn config(folder: &Path, endpoint: SocketAddr) -> String {
    filled(&format!("{BASE}{}", routes(&[(NAME, &[endpoint])])), folder)
}

#[test]
fn hostile_names_reach_no_log_as_they_are_neither_a_pipe_nor_a_file() {
    let app = echo();
    let gateway = Gateway::start(&routes(&[(NAME, &[app.address])]));
    send_all(gateway.ingress(), HOSTILE);
    wait_until("all records", || gateway.records().len() == HOSTILE.len());
    assert_eq!(is_clean_json(gateway.lines().join("\n").as_bytes()), HOSTILE.len());
    // Nor what an operator asks for later.
    assert!(!gateway.get("/status").unwrap().text().contains("forged"));
    assert!(!gateway.get("/metrics").unwrap().text().contains("forged"));

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("strait.yaml"), config(folder.path(), app.address)).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let gateway = Gateway::spawn(folder, "strait.yaml", |command| {
        command.stderr(File::create(file.path()).unwrap());
    });
    send_all(gateway.ingress(), HOSTILE);
    wait_until("all records", || {
        let log = fs::read(file.path()).unwrap();
        log.ends_with(b"\n") && is_clean_json(&log) == HOSTILE.len()
    });
}

/// Ends a process that is no child of ours.
struct Ended(Pid);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn hostile_names_reach_no_terminal_as_they_are() {
    let Some(script) = counterpart("hostile names on a terminal", "script") else { return };
    let app = echo();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("strait.yaml"), config(folder.path(), app.address)).unwrap();
    let (path, log) = (folder.path().join("strait.yaml"), folder.path().join("typescript"));
    let command = format!("exec {STRAIT} run --config {}", path.display());
    // The terminal is script's, and the gateway a child of script.
    let gateway = Gateway::spawn(folder, "strait.yaml", |started| {
        *started = Command::new(script);
        started.args(["--quiet", "--flush", "--command", &command]).arg(&log);
        started.env("NO_COLOR", "1").env("TERM", "xterm-256color");
        started.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    });
    let pid = gateway.status()["pid"].as_i64().unwrap();
    let _ended = Ended(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap());
    send_all(gateway.ingress(), HOSTILE);
    let shown = wait_for("all lines", || {
        let shown = fs::read_to_string(&log).unwrap();
        (shown.matches("alert=").count() == HOSTILE.len()).then_some(shown)
    });
    // A terminal's line ends are two characters.
    let clean = shown.replace("\r\n", "\n");
    assert!(!clean.chars().any(|letter| letter.is_control() && letter != '\n'), "{clean:?}");
    assert!(clean.contains(" INFO ") && !clean.contains("forged"), "{clean}");
}

/// So many random names; `STRAIT_RANDOM_NAMES` says another number, 100,000 in CI.
fn random_names() -> usize {
    let asked = std::env::var("STRAIT_RANDOM_NAMES").ok();
    asked.map_or(10_000, |number| number.parse().expect("STRAIT_RANDOM_NAMES is a number"))
}

/// Names of letters in both cases, and some of any bytes.
fn random_name(seed: usize) -> Vec<u8> {
    let noise = noise(seed as u64, 40);
    if seed.is_multiple_of(4) {
        return noise;
    }
    let letters =
        noise.iter().map(|byte| b"abcdefghijklmnopqrstuvwxyzABCDEF"[usize::from(byte % 32)]);
    letters.chain(*b".example").collect()
}

fn series(gateway: &Gateway) -> usize {
    let text = gateway.get("/metrics").unwrap().text();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn random_names_leave_no_trace_but_their_log_lines() {
    const THREADS: usize = 4;
    const MOST_GROWTH: u64 = 16 << 20;
    let names = random_names();
    let app = echo();
    let gateway = Gateway::start(&routes(&[(NAME, &[app.address])]));
    let ingress = gateway.ingress();
    drop(open(ingress, NAME).unwrap());
    // Every ending that will come has its series from here on.
    send_all(ingress, (0..100).map(random_name));
    wait_until("the first are counted", || gateway.records().len() == 101);
    let (before, resident, lines) = (series(&gateway), gateway.resident(), gateway.lines().len());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let mine = (100..100 + names).filter(move |seed| seed % THREADS == thread);
            scope.spawn(move || send_all(ingress, mine.map(random_name)));
        }
    });
    wait_until("all have their records", || gateway.lines().len() >= lines + names);
    let grown = gateway.resident().saturating_sub(resident);
    measured(&format!(
        "{names} random names: {} series before, {} after; resident +{} KiB",
        before,
        series(&gateway),
        grown >> 10
    ));
    assert_eq!(series(&gateway), before);
    assert!(grown <= MOST_GROWTH, "{grown}");
    // Reads every line as JSON.
    assert_eq!(gateway.records().len(), names + 101);
    assert_eq!(gateway.metric("strait_log_lines_dropped_total", &[]), 0);
    drop(ask(ingress, NAME).unwrap());
}

/// There is no secret in the configuration so far; what stands beside it or in the environment is none of the gateway's business.
#[test]
fn what_is_secret_stands_in_no_log_and_no_answer() {
    const SECRET: &str = "hunter2-0b5c9f";
    let app = echo();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("strait.yaml"), config(folder.path(), app.address)).unwrap();
    fs::create_dir(folder.path().join("redis")).unwrap();
    fs::write(folder.path().join("redis/password"), SECRET).unwrap();
    fs::write(folder.path().join("tls.key"), format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n"))
        .unwrap();
    let gateway = Gateway::spawn(folder, "strait.yaml", |command| {
        command.env("REDIS_PASSWORD", SECRET).env("STRAIT_LOG", "trace");
    });
    let mut client = open(gateway.ingress(), NAME).unwrap();
    super::exchange(&mut client, SECRET.as_bytes()).unwrap();
    drop(client);
    gateway.record("completed");
    gateway.rewrite("routes: [{ name: one.example, endpoint: [] }]\n");
    wait_until("an error is told", || {
        gateway.status()["config"]["errors"].as_array().is_some_and(|errors| !errors.is_empty())
    });
    let answers = ["/status", "/metrics", "/explain?name=one.example", "/readyz"]
        .map(|path| gateway.get(path).unwrap().text());
    let log = gateway.lines().join("\n");
    assert!(log.contains("configuration rejected"), "{log}");
    assert!(!log.contains(SECRET) && !answers.concat().contains(SECRET));
}
