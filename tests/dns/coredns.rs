//! A cluster's own name server sends the zone here.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::process::{Process, go_program};
use super::common::{wait_for, wait_until};
use super::questions::{ask, ask_tcp, listens, said, some};
use super::{CONFIG, start};

/// `CoreDNS`, which sends the zone to a server. `None`: it does not run, because somebody else took the port that was free a
/// moment ago.
fn forwarding(program: &Path, folder: &Path, server: SocketAddr) -> Option<(Process, SocketAddr)> {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let corefile = folder.join("Corefile");
    let text = format!(
        "mesh.example:{} {{\n    bind 127.0.0.1\n    errors\n    cache 5\n    forward . {server}\n}}\n",
        address.port()
    );
    fs::write(&corefile, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-conf").arg(&corefile).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process(command.spawn().unwrap());
    wait_for("it listens, or has ended", || {
        let ended = process.0.try_wait().unwrap().is_some();
        (ended || TcpStream::connect(address).is_ok()).then_some(())
    });
    let runs = process.0.try_wait().unwrap().is_none();
    runs.then_some((process, address))
}

/// As README has it.
#[test]
fn a_zone_is_forwarded_by_coredns() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_zone_is_forwarded_by_coredns";
    let Some(program) = go_program(test, "dns/coredns", folder.path()) else { return };
    let gateway = start(CONFIG);
    let server = listens(&gateway);
    let (_coredns, address) =
        wait_for("CoreDNS listens", || forwarding(&program, folder.path(), server));
    let orders = "orders.shop.mesh.example";
    assert_eq!(ask(address, orders, "A"), some(&["10.0.0.5"]));
    assert_eq!(ask_tcp(address, orders, "AAAA"), some(&["fd00::5"]));
    assert_eq!(ask(address, orders, "TXT"), said("No Error", &[]));
    assert_eq!(ask(address, "late.shop.mesh.example", "A"), said("Non-Existent Domain", &[]));
    gateway.rewrite_all(&CONFIG.replace("- { app: shop/orders", "- { app: shop/late"));
    // Kept for 5 s, as the answer says, "no" too.
    wait_until("CoreDNS knows the other app", || {
        ask(address, "late.shop.mesh.example", "A") == some(&["10.0.0.5"])
    });
    wait_until("and not this one", || {
        ask(address, orders, "A") == said("Non-Existent Domain", &[])
    });
}
