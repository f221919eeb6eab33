//! A log that nobody reads, that has no room, or whose reader is gone: no connection notices.

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::{counterpart, measured};
use super::{NAME, SLACK, echo, exchange, open, routes};

/// A gateway with the route [`NAME`] whose log goes there.
fn logging_to(stderr: impl Into<Stdio>, endpoint: std::net::SocketAddr) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{BASE}{}", routes(&[(NAME, &[endpoint])]));
    fs::write(folder.path().join("strait.yaml"), filled(&text, folder.path())).unwrap();
    Gateway::spawn(folder, "strait.yaml", |command| {
        command.stderr(stderr);
    })
}

/// 300 connections, two lines each at most, one that is there before and after; then SIGTERM ends it in good order.
fn serves_and_ends(mut gateway: Gateway) {
    let mut live = open(gateway.ingress(), NAME).unwrap();
    for _ in 0..300 {
        drop(open(gateway.ingress(), NAME).unwrap());
    }
    exchange(&mut live, b"still there?").unwrap();
    assert_eq!(gateway.get("/readyz").unwrap().status, 200);
    drop(live);
    let asked = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().code(), Some(0));
    measured(&format!("ends {:?} after SIGTERM", asked.elapsed()));
    assert!(asked.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", asked.elapsed());
}

/// A pipe with room for a dozen lines.
fn narrow_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = pipe().unwrap();
    fcntl_setpipe_size(&reader, 4096).unwrap();
    (reader, writer.into())
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let app = echo();
    let (mut reader, writer) = narrow_pipe();
    let gateway = logging_to(writer, app.address);
    serves_and_ends(gateway);
    let mut came = String::new();
    reader.read_to_string(&mut came).unwrap();
    assert!(came.len() > 3000, "the pipe was full: {}", came.len());
}

#[test]
fn a_log_that_is_read_again_goes_on_with_whole_lines() {
    let app = echo();
    let (mut reader, writer) = narrow_pipe();
    let gateway = logging_to(writer, app.address);
    for _ in 0..300 {
        drop(open(gateway.ingress(), NAME).unwrap());
    }
    let reading = std::thread::spawn(move || {
        let mut came = String::new();
        reader.read_to_string(&mut came).map(|_| came)
    });
    serves_and_ends(gateway);
    let came = reading.join().unwrap().unwrap();
    let lines: Vec<serde_json::Value> =
        came.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let completed = lines.iter().filter(|line| line["ending"] == "completed").count();
    assert_eq!(completed, 601, "none is lost while the queue has room");
}

#[test]
fn a_log_whose_reader_is_gone_stops_nobody() {
    let app = echo();
    let (reader, writer) = narrow_pipe();
    let gateway = logging_to(writer, app.address);
    drop(reader);
    serves_and_ends(gateway);
}

#[test]
fn a_full_disk_under_the_log_stops_nobody() {
    let app = echo();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    serves_and_ends(logging_to(full, app.address));
}

#[test]
fn a_log_file_at_its_size_limit_stops_nobody() {
    if counterpart("a log file at its size limit", "prlimit").is_none() {
        return;
    }
    let app = echo();
    let place = tempfile::NamedTempFile::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{BASE}{}", routes(&[(NAME, &[app.address])]));
    fs::write(folder.path().join("strait.yaml"), filled(&text, folder.path())).unwrap();
    let config = folder.path().join("strait.yaml");
    let log = File::create(place.path()).unwrap();
    // The kernel sends SIGXFSZ to who writes more, which ends a process that does not expect it.
    let gateway = Gateway::spawn(folder, "strait.yaml", |command| {
        *command = std::process::Command::new("prlimit");
        command.args(["--fsize=20000", STRAIT, "run", "--config"]).arg(config);
        command.stderr(log).process_group(0);
    });
    serves_and_ends(gateway);
    assert_eq!(fs::metadata(place.path()).unwrap().len(), 20_000);
}
