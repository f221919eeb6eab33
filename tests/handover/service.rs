//! What the service manager hears and passes.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;

use super::common::PATIENCE;
use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::{command, first_by, take_over};

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn new(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The variables of the next message.
    fn hears(&self) -> HashMap<String, String> {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).unwrap();
        let lines = str::from_utf8(&message[..length]).unwrap().lines();
        let assignment = |line: &str| {
            let (variable, value) = line.split_once('=').unwrap();
            (variable.to_owned(), value.to_owned())
        };
        lines.map(assignment).collect()
    }

    fn service(folder: &Path) -> Command {
        let mut command = command(folder);
        command.env("NOTIFY_SOCKET", folder.join("notify.sock"));
        command
    }
}

#[test]
fn the_service_manager_hears_of_every_change() {
    let mut manager = None;
    let mut old = first_by(BASE, |folder| {
        manager = Some(Manager::new(folder));
        Manager::service(folder)
    });
    let manager = manager.unwrap();
    let ready = manager.hears();
    assert_eq!((&*ready["READY"], &*ready["STATUS"]), ("1", "serving 0 names"));

    old.signal(Signal::HUP);
    let reloading = manager.hears();
    assert_eq!(reloading["RELOADING"], "1");
    assert!(reloading["MONOTONIC_USEC"].parse::<u64>().unwrap() > 0);
    assert_eq!(manager.hears()["READY"], "1");

    let mut new = take_over(&old, Manager::service(old.folder()));
    let main = new.pid().as_raw_nonzero().to_string();
    assert_eq!(manager.hears()["MAINPID"], main, "told by the old one, which is still believed");
    assert_eq!(manager.hears()["READY"], "1");
    assert_eq!(old.exit().code(), Some(0));

    new.signal(Signal::TERM);
    assert_eq!(manager.hears()["STOPPING"], "1", "and the old one said nothing of that");
    assert_eq!(new.exit().code(), Some(0));
}

#[test]
fn a_socket_of_the_service_manager_is_taken_and_serves_what_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = folder.path().join("strait.yaml");
    let text = BASE.replace("127.0.0.1:0", &address.to_string());
    std::fs::write(&config, filled(&text, folder.path())).unwrap();
    let early = std::net::TcpStream::connect(address).unwrap();
    let mut shell = Command::new("sh");
    // Its standard input becomes descriptor 3, the first that `sd_listen_fds(3)` names.
    shell.args(["-c", "exec env LISTEN_FDS=1 LISTEN_PID=$$ \"$@\" 3<&0 </dev/null", "sh", STRAIT]);
    shell.arg("run").arg("--config").arg(&config).stdin(Stdio::from(OwnedFd::from(listener)));
    let mut gateway = Gateway::launch(folder, config, &mut shell);
    gateway.wait_until_ready();
    assert_eq!(gateway.bound(&address.to_string()), Some(address));
    std::io::Write::write_all(&mut &early, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(gateway.record("not_tls")["client"], early.local_addr().unwrap().to_string());
}
