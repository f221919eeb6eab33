//! What must never be dialled: the gateway's own listeners, in any spelling, and itself by a detour.

use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use super::common::gateway::Gateway;
use super::common::{wait_for, wait_until};
use super::{Came, INTERNAL_ERROR, ask, dns_server, ended, free_port};

const LISTENERS: &str = "\
cluster: west
listeners:
  ingress: [{ address: \"[::]:0\" }, { address: \"127.0.0.1:0\" }]
  metrics: { address: \"{metrics}\" }
  admin: { address: \"unix:{folder}/admin.sock\" }
";

/// Asks the gateway what it would do.
fn explained(gateway: &Gateway, name: &str) -> Value {
    serde_json::from_slice(&gateway.get(&format!("/explain?name={name}")).unwrap().body).unwrap()
}

#[test]
fn own_listeners_are_no_endpoints_however_they_are_written() {
    let dns = dns_server();
    dns.addresses("self.example", &["127.0.0.1"]);
    dns.addresses("self6.example", &["::1"]);
    let metrics = format!("[::]:{}", free_port());
    let resolver =
        format!("resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}\n", dns.address);
    let listeners = LISTENERS.replace("{metrics}", &metrics) + &resolver;
    let gateway = Gateway::with_config(&listeners);
    let everywhere = gateway.bound("[::]:0").unwrap().port();
    let metrics: SocketAddr = metrics.parse().unwrap();
    let mut endpoints = vec![gateway.ingress().to_string()];
    for port in [everywhere, metrics.port()] {
        let hosts = ["127.0.0.1", "127.0.0.9", "[::1]", "[::ffff:127.0.0.1]"];
        endpoints.extend(hosts.map(|host| format!("{host}:{port}")));
        endpoints.extend(["self.example", "self6.example"].map(|host| format!("{host}:{port}")));
    }
    let names: Vec<_> = (0..endpoints.len()).map(|number| format!("own{number}.example")).collect();
    let mut routes = String::new();
    for (name, endpoint) in names.iter().zip(&endpoints) {
        writeln!(routes, "  - {{ name: {name}, endpoints: [\"{endpoint}\"] }}").unwrap();
    }
    gateway.rewrite_all(&format!("{listeners}routes:\n{routes}"));
    for (name, endpoint) in names.iter().zip(&endpoints) {
        wait_until(&format!("{endpoint} is known as own"), || {
            explained(&gateway, name)["absent"][0]["because"] == "it is this gateway's own listener"
        });
        assert_eq!(ask(gateway.ingress(), name), INTERNAL_ERROR, "{endpoint}");
    }
    let records = wait_for("all records", || {
        Some(ended(&gateway, "no_healthy_endpoint")).filter(|all| all.len() == names.len())
    });
    assert!(records.iter().all(|record| record["attempts"] == 0), "nobody is dialled");
    assert_eq!(gateway.status()["connections"]["total"], names.len(), "none came back");
}

#[test]
fn an_admin_listener_that_moves_is_own_from_then_on_only() {
    let (first, second) = (free_port(), free_port());
    let with_admin = |port: u16| {
        format!(
            "\
cluster: west
listeners:
  ingress: [{{ address: \"127.0.0.1:0\" }}]
  metrics: {{ address: \"127.0.0.1:{port}\" }}
  admin: {{ address: \"unix:{{folder}}/admin.sock\" }}
routes:
  - {{ name: first.example, endpoints: [\"127.0.0.1:{first}\"] }}
  - {{ name: second.example, endpoints: [\"127.0.0.1:{second}\"] }}
"
        )
    };
    let gateway = Gateway::with_config(&with_admin(first));
    let own = |name| !explained(&gateway, name)["absent"].as_array().unwrap().is_empty();
    assert_eq!((own("first.example"), own("second.example")), (true, false));
    assert_eq!(ask(gateway.ingress(), "first.example"), INTERNAL_ERROR);
    gateway.rewrite_all(&with_admin(second));
    wait_until("the listener moves", || {
        (own("first.example"), own("second.example")) == (false, true)
    });
    assert_eq!(ask(gateway.ingress(), "second.example"), INTERNAL_ERROR);
    wait_until("records", || !ended(&gateway, "no_healthy_endpoint").is_empty());
}

/// Passes connections on to an address, as a load balancer in front of the gateway does.
fn forwarder(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(&from, &into));
            thread::spawn(move || pass(&server, &client));
        }
    });
    address
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_loop_by_a_detour_ends_as_one() {
    let gateway = Gateway::start("");
    let detour = forwarder(gateway.ingress());
    gateway.rewrite(&format!("routes:\n  - {{ name: one.example, endpoints: [\"{detour}\"] }}\n"));
    let came = wait_for("the route", || {
        Some(ask(gateway.ingress(), "one.example")).filter(|came| *came != super::UNRECOGNIZED_NAME)
    });
    assert_eq!(came, INTERNAL_ERROR, "the alert comes back through the loop");
    let record = gateway.record("loop");
    assert!(record["hint"].as_str().unwrap().contains("leads back to this gateway"), "{record}");
    assert_eq!(record["alert"], "internal_error");
    wait_until("both records", || !ended(&gateway, "completed").is_empty());
    assert_eq!(ended(&gateway, "loop").len(), 1, "once around");
    assert_ne!(ask(gateway.ingress(), "one.example"), Came::Nothing, "no more than that is lost");
}
