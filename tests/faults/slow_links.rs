//! Links with delay, little bandwidth and sudden ends, as toxiproxy makes them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::process::Process;
use super::common::{counterpart, http, measured, noise, wait_for, wait_until};
use super::{NAME, echo, ended, exchange, gateway, open, rest};

/// A running toxiproxy (2.5.0: `go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0`, named `toxiproxy-server`).
struct Toxiproxy {
    api: SocketAddr,
    _process: Process,
}

impl Toxiproxy {
    fn start(test: &str) -> Option<Self> {
        let program = counterpart(test, "toxiproxy-server")?;
        let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.args(["-host", "127.0.0.1", "-port", &api.port().to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().unwrap());
        wait_until("toxiproxy listens", || TcpStream::connect(api).is_ok());
        Some(Self { api, _process: process })
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let stream = TcpStream::connect(self.api).unwrap();
        let body = body.to_string();
        let answer = http::exchange(stream, "POST", path, body.as_bytes(), true).unwrap();
        assert!(answer.status < 300, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A way to an address.
    fn way(&self, name: &str, to: SocketAddr) -> SocketAddr {
        let wanted = json!({ "name": name, "listen": "127.0.0.1:0", "upstream": to.to_string() });
        self.post("/proxies", &wanted)["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Poisons what comes back on it.
    fn poison(&self, way: &str, kind: &str, attributes: &Value) {
        let toxic = json!({ "type": kind, "stream": "downstream", "attributes": attributes });
        self.post(&format!("/proxies/{way}/toxics"), &toxic);
    }
}

#[test]
fn delay_and_little_pieces_change_no_byte() {
    let Some(toxiproxy) = Toxiproxy::start("delay and little pieces") else { return };
    let app = echo();
    let gateway = gateway(&[toxiproxy.way("slow", app.address)]);
    let mut before = open(gateway.ingress(), NAME).unwrap();
    toxiproxy.poison("slow", "latency", &json!({ "latency": 200, "jitter": 100 }));
    let pieces = json!({ "average_size": 64, "size_variation": 32, "delay": 10 });
    toxiproxy.poison("slow", "slicer", &pieces);
    let asked = Instant::now();
    // On a connection that was there before, and on new ones at the same time.
    let bytes = noise(7, 100_000);
    thread::scope(|scope| {
        let bytes = &bytes;
        scope.spawn(move || echoed(&mut before, bytes));
        for _ in 0..4 {
            let mut stream = open(gateway.ingress(), NAME).unwrap();
            scope.spawn(move || echoed(&mut stream, bytes));
        }
    });
    measured(&format!(
        "200 ms of delay, pieces of 64 bytes: 5 × 100 kB after {:?}",
        asked.elapsed()
    ));
    assert!(asked.elapsed() > Duration::from_millis(200), "toxiproxy delays nothing");
}

fn echoed(stream: &mut TcpStream, bytes: &[u8]) {
    let mut writing = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || writing.write_all(bytes).unwrap());
        let mut came = vec![0; bytes.len()];
        stream.read_exact(&mut came).unwrap();
        assert!(came == bytes);
    });
}

#[test]
fn a_link_that_is_cut_in_mid_answer_ends_the_connection_and_no_other() {
    let Some(toxiproxy) = Toxiproxy::start("a link that is cut") else { return };
    let app = echo();
    let gateway = gateway(&[toxiproxy.way("cut", app.address)]);
    let mut other = open(gateway.ingress(), NAME).unwrap();
    toxiproxy.poison("cut", "limit_data", &json!({ "bytes": 10_000 }));
    let mut stream = open(gateway.ingress(), NAME).unwrap();
    stream.write_all(&noise(8, 20_000)).unwrap();
    // With or without an error, what comes is short.
    let came = rest(&mut stream).map_or(0, |came| came.len());
    assert!(came < 10_000, "{came}");
    // Only new connections have the toxic's limit before them.
    exchange(&mut other, b"still there?").unwrap();
    drop((stream, other));
    wait_until("both connections end", || gateway.status()["connections"]["open"] == 0);
}

#[test]
fn a_link_that_resets_every_connection_is_no_reason_to_stop() {
    let Some(toxiproxy) = Toxiproxy::start("a link that resets") else { return };
    let app = echo();
    let gateway = gateway(&[toxiproxy.way("broken", app.address)]);
    toxiproxy.poison("broken", "reset_peer", &json!({ "timeout": 0 }));
    for _ in 0..20 {
        assert!(open(gateway.ingress(), NAME).is_err());
    }
    wait_for("all are counted", || {
        let broken = ended(&gateway, "reset_by_endpoint") + ended(&gateway, "completed");
        (broken == 20).then_some(())
    });
    assert_eq!(gateway.get("/readyz").unwrap().status, 200);
}
