//! SNI routers of others between two gateways: what they forward by name is a link all the same.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::gateway::Gateway;
use super::common::process::Process;
use super::common::{counterpart, skipped, wait_until};
use super::crossing::{half_closed, late_app, sent};
use super::{Apps, EXPORT, FRONTEND, Folders, IMPORT, ORDERS};

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A port that nothing listened at a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn haproxy(folder: &Path, at: SocketAddr, gateway: SocketAddr) -> Command {
    let text = format!(
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend names
  bind {at}
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  use_backend east if {{ req.ssl_sni -i {ORDERS} }}
backend east
  server gateway {gateway}
"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

/// As it comes: without `proxy_half_close`, so that the first FIN of a side ends both.
fn nginx(folder: &Path, at: SocketAddr, gateway: SocketAddr) -> Command {
    let module = format!("load_module {NGINX_STREAM};\n");
    let module = if Path::new(NGINX_STREAM).exists() { &*module } else { "" };
    let text = format!(
        "{module}daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
stream {{
  map $ssl_preread_server_name $endpoint {{ {ORDERS} {gateway}; }}
  server {{ listen {at}; ssl_preread on; proxy_pass $endpoint; }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    command
}

fn crosses(router: fn(&Path, SocketAddr, SocketAddr) -> Command, name: &str) {
    let test = format!("a link through {name}");
    if counterpart(&test, name).is_none() {
        return;
    }
    if name == "nginx" && !Path::new(NGINX_STREAM).exists() {
        return skipped(&test, "nginx has no stream module");
    }
    let (folder, folders, apps, late) =
        (tempfile::tempdir().unwrap(), Folders::new(), Apps::start(), late_app());
    let export = |app| super::east(&folders.of("east"), app, EXPORT);
    let east = Gateway::with_config(&export(apps.orders.address));
    let at = free();
    let mut command = router(folder.path(), at, east.ingress());
    let _router = Process(
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
    );
    wait_until("the router listens", || TcpStream::connect(at).is_ok());
    let west = Gateway::with_config(&super::west(&folders.of("west"), at, IMPORT));
    for _ in 0..3 {
        assert_eq!(apps.call_from(FRONTEND, &west).unwrap(), "orders");
    }
    let record = east.record("completed");
    assert_eq!((&record["cluster"], &record["caller"]), (&"west".into(), &"shop/frontend".into()));
    east.rewrite_all(&export(late.address));
    wait_until("east has the other app", || east.status()["generation"].as_u64() >= Some(2));
    let sent = sent();
    let expected: Vec<u8> = sent.iter().map(|byte| !byte).collect();
    assert!(half_closed(west.ingress(), &sent) == expected, "the answer is not what was sent");
}

#[test]
fn haproxy_forwards_a_link_by_its_name() {
    crosses(haproxy, "haproxy");
}

#[test]
fn nginx_forwards_a_link_by_its_name() {
    crosses(nginx, "nginx");
}
