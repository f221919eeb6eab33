//! The admin and metrics listeners: what they answer, and where.

use std::io;
use std::net::{SocketAddr, TcpStream};

use super::common::gateway::Gateway;
use super::common::process::strait;
use super::common::{PATIENCE, http, wait_for, wait_until};
use super::free_port;

fn config(admin: &str, metrics: &str) -> String {
    format!(
        "\
cluster: west
listeners:
  ingress: [{{ address: \"127.0.0.1:0\" }}]
  admin: {{ address: \"{admin}\" }}
{metrics}"
    )
}

fn metrics(address: &str) -> String {
    format!("  metrics: {{ address: \"{address}\" }}\n")
}

/// The status with which a TCP listener answers.
fn get(address: SocketAddr, path: &str) -> io::Result<u16> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    http::exchange(stream, "GET", path, b"", true).map(|answer| answer.status)
}

const PATHS: [&str; 5] =
    ["/healthz", "/readyz", "/metrics", "/status", "/explain?name=one.example"];

/// Whether an address answers to these paths and to no others.
fn answers(address: SocketAddr, paths: &[&str]) -> bool {
    PATHS.iter().all(|path| {
        let expected = if paths.contains(path) { 200 } else { 404 };
        get(address, path).is_ok_and(|status| status == expected)
    })
}

#[test]
fn admin_and_metrics_listeners_come_move_and_go() {
    let socket = "unix:{folder}/admin.sock";
    let port = free_port();
    let (one, all) = (format!("127.0.0.1:{port}"), format!("[::]:{port}"));
    let at: SocketAddr = one.parse().unwrap();
    let gateway = Gateway::with_config(&config(socket, ""));
    assert!(PATHS.iter().all(|path| gateway.get(path).unwrap().status == 200));
    assert!(get(at, "/metrics").is_err());

    gateway.rewrite_all(&config(socket, &metrics(&one)));
    wait_until("the metrics listener", || get(at, "/metrics").is_ok());
    assert!(answers(at, &PATHS[..3]), "the first three alone");

    // All addresses instead of one, on the same port: a restart would do it.
    gateway.rewrite_all(&config(socket, &metrics(&all)));
    let other: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();
    wait_until("the metrics listener elsewhere", || get(other, "/metrics").is_ok());
    assert!(answers(at, &PATHS[..3]));

    gateway.rewrite_all(&config(socket, ""));
    wait_until("the end of the metrics listener", || TcpStream::connect(at).is_err());
    assert_eq!(gateway.status()["config"]["errors"].as_array().map(Vec::len), Some(0));
}

#[test]
fn the_admin_listener_moves_between_sockets_and_addresses() {
    let port = free_port();
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let gateway = Gateway::with_config(&config("unix:{folder}/admin.sock", ""));
    gateway.rewrite_all(&config(&address.to_string(), ""));
    wait_until("the admin API at an address", || answers(address, &PATHS));
    wait_until("the socket is gone", || !gateway.folder().join("admin.sock").exists());
    let url = format!("http://{address}");
    let table = strait(&["status", "--admin", &url], gateway.folder());
    assert_eq!(table.status.code(), Some(0), "{table:?}");

    gateway.rewrite_all(&config("unix:{folder}/other.sock", ""));
    let url = format!("unix:{}/other.sock", gateway.folder().display());
    wait_until("the admin API at another socket", || {
        strait(&["status", "--ready", "--admin", &url], gateway.folder()).status.success()
    });
    wait_until("the address is closed", || TcpStream::connect(address).is_err());
    gateway.rewrite_all(&config("unix:{folder}/admin.sock", ""));
    let status = wait_for("the first socket again", || gateway.get("/status").ok());
    assert_eq!(status.status, 200);
}
