//! From the start to the first connection.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::common::dns::{DnsServer, Reply};
use super::common::gateway::{BASE, Gateway, filled};
use super::common::{http, wait_for, wait_until};
use super::dns_server;

/// The status of `/readyz` of a gateway whose start somebody else waits for.
fn readiness(folder: &Path) -> Option<(u16, String)> {
    let stream = std::os::unix::net::UnixStream::connect(folder.join("admin.sock")).ok()?;
    let answer = http::exchange(stream, "GET", "/readyz", b"", true).ok()?;
    Some((answer.status, answer.text()))
}

#[test]
fn a_gateway_is_ready_when_its_sources_have_spoken_and_not_before() {
    let dns: Arc<DnsServer> = dns_server();
    dns.set("pods.example", Reply::Silence);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let config = format!(
        "{BASE}resolver: {{ servers: [\"{}\"] }}\nroutes:\n  - {{ name: one.example, endpoints: [\"pods.example:1\"] }}\n",
        dns.address
    );
    let starting = thread::spawn(move || {
        Gateway::in_folder(folder, "strait.yaml", |folder| {
            fs::write(folder.join("strait.yaml"), filled(&config, folder)).unwrap();
        })
    });
    let (status, why) = wait_for("the admin socket", || readiness(&path));
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("not every source has spoken"), "{why}");
    // No answer at all counts as one after a while, so that a dead DNS server keeps no gateway out.
    let gateway = starting.join().unwrap();
    let status = gateway.status();
    assert_eq!(status["ready"], true);
    let source = &status["sources"][0];
    assert_eq!((&source["name"], &source["up"]), (&"dns".into(), &false.into()), "{status:#}");
    dns.addresses("pods.example", &["192.0.2.1"]);
    wait_until("the answer is in force", || {
        gateway.status()["routes"][0]["endpoints"][0]["address"] == "192.0.2.1:1"
    });
}

#[test]
fn the_shipped_configuration_starts() {
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/strait.yaml"));
    // Its ports may be taken here; all the rest stands as it is.
    let text = shipped
        .unwrap()
        .replace("[::]:8443", "127.0.0.1:0")
        .replace("[::]:8444", "127.0.0.2:0")
        .replace("[::]:9902", "127.0.0.1:0")
        .replace("\"127.0.0.1:9901\"", "\"unix:{folder}/admin.sock\"");
    let gateway = Gateway::with_config(&text);
    let status = gateway.status();
    assert_eq!(status["cluster"], "west");
    assert_eq!(status["routes_total"], 4, "{status:#}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 4);
    assert_eq!(status["config"]["warnings"].as_array().unwrap().len(), 0);
}
