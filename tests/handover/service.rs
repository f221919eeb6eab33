//! What the service manager hears and passes.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;

use super::common::gateway::{BASE, Gateway, STRAIT, filled};
use super::common::net::Net;
use super::common::{PATIENCE, counterpart, wait_for};
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

#[test]
fn systemd_starts_it_with_a_socket_at_the_first_connection() {
    let name = "systemd starts it with a socket";
    let Some(systemd) = counterpart(name, "systemd-socket-activate") else { return };
    let Some(net) = Net::new(name) else { return };
    net.run(|| {
        let address = "127.0.0.1:8443".parse().unwrap();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = folder.path().join("strait.yaml");
        let text = BASE.replace("127.0.0.1:0", "127.0.0.1:8443");
        std::fs::write(&config, filled(&text, folder.path())).unwrap();
        let mut service = Command::new(systemd);
        service.arg("--listen=127.0.0.1:8443").arg(STRAIT).arg("run").arg("--config").arg(&config);
        let mut gateway = Gateway::launch(folder, config, service.stdin(Stdio::null()));
        let early = wait_for("systemd listens", || TcpStream::connect(address).ok());
        // Only now the gateway is started, by this connection.
        gateway.wait_until_ready();
        assert_eq!(gateway.bound("127.0.0.1:8443"), Some(address));
        std::io::Write::write_all(&mut &early, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        gateway.wait_for_words("not_tls");
        let client = early.local_addr().unwrap().to_string();
        assert!(
            gateway.lines().iter().any(|line| line.contains("not_tls") && line.contains(&client))
        );
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.exit().code(), Some(0));
    });
}
