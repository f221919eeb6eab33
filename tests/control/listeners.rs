//! Listeners that come, go and change.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::common::app::connect;
use super::common::gateway::{BASE, Gateway};
use super::common::http;
use super::common::{wait_for, wait_until};
use super::{Apps, routes};

/// A configuration with these lines under `ingress`.
fn config(ingress: &[&str], more: &str) -> String {
    let ingress = ingress.join(", ");
    format!(
        "cluster: west\nlisteners:\n  ingress: [{ingress}]\n  admin: {{ address: \"unix:{{folder}}/admin.sock\" }}\n{more}"
    )
}

/// Where the metrics listener with this address is bound.
fn metrics_bound(gateway: &Gateway, written: &str) -> Option<SocketAddr> {
    let listeners = gateway.status()["listeners"].clone();
    let written =
        |listener: &&Value| listener["kind"] == "metrics" && listener["address"] == written;
    listeners.as_array()?.iter().find(written)?["bound"].as_str()?.parse().ok()
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn a_listener_comes_goes_or_changes_without_touching_the_others() {
    let apps = Apps::start();
    let more = routes(&[("one.example", &apps.alpha)]);
    let (first, second, third) = (
        r#"{ address: "127.0.0.1:0" }"#,
        r#"{ address: "127.0.0.2:0" }"#,
        r#"{ address: "127.0.0.3:0" }"#,
    );
    let gateway = Gateway::with_config(&config(&[first, second], &more));
    let (stays, goes) = (gateway.ingress(), gateway.bound("127.0.0.2:0").unwrap());
    let mut on_stays = connect(stays, "one.example", &apps.tls).unwrap();
    let mut on_goes = connect(goes, "one.example", &apps.tls).unwrap();

    gateway.rewrite_all(&config(&[first, third], &more));
    let came = wait_for("the new listener", || gateway.bound("127.0.0.3:0"));
    assert_eq!(apps.call(came, "one.example").unwrap(), "alpha");
    wait_until("the old listener is closed", || refuses(goes));
    assert_eq!(gateway.bound("127.0.0.2:0"), None);
    assert_eq!(gateway.ingress(), stays);
    assert_eq!(on_stays.who().unwrap(), "alpha");
    assert_eq!(on_goes.who().unwrap(), "alpha", "its connections outlive it");

    let demanding = r#"{ address: "127.0.0.3:0", proxyProtocol: { from: [127.0.0.0/8] } }"#;
    gateway.rewrite_all(&config(&[first, demanding], &more));
    wait_until("the listener demands a PROXY header", || {
        gateway.bound("127.0.0.3:0").is_some_and(|at| apps.call(at, "one.example").is_err())
    });
    assert_eq!(gateway.ingress(), stays);
    assert_eq!(on_stays.who().unwrap(), "alpha");
}

#[test]
fn a_listener_whose_address_is_taken_leaves_the_last_good_ones_at_work() {
    let apps = Apps::start();
    let more = routes(&[("one.example", &apps.alpha)]);
    let first = r#"{ address: "127.0.0.1:0" }"#;
    let gateway = Gateway::with_config(&config(&[first], &more));
    let stays = gateway.ingress();
    let taken = format!("{{ address: \"{}\" }}", apps.beta.address);
    gateway.rewrite_all(&config(&[first, &taken], &more));
    wait_until("the status names the address that is taken", || {
        let address = apps.beta.address.to_string();
        let status = gateway.status();
        let said = format!("{} {}", status["config"]["errors"], status["listeners"]);
        said.contains(&address) && said.contains("in use")
    });
    assert_eq!(apps.call(stays, "one.example").unwrap(), "alpha");
}

#[test]
fn a_metrics_listener_moves_from_one_address_to_all_at_the_same_port() {
    let gateway = Gateway::start("");
    let listen_at = |address: &str| {
        let metrics = format!("listeners:\n  metrics: {{ address: \"{address}\" }}\n");
        gateway.rewrite_all(&BASE.replace("listeners:\n", &metrics));
    };
    let bound = |written: &str| metrics_bound(&gateway, written);
    listen_at("127.0.0.1:0");
    let one = wait_for("the metrics listener", || bound("127.0.0.1:0"));
    let all = format!("0.0.0.0:{}", one.port());
    listen_at(&all);
    wait_for("the metrics listener at all addresses", || bound(&all));
    wait_until("it answers at another address", || {
        TcpStream::connect(("127.0.0.2", one.port())).is_ok()
    });
}

#[test]
fn listeners_of_two_kinds_exchange_their_ports_in_one_change() {
    let apps = Apps::start();
    let more = routes(&[("one.example", &apps.alpha)]);
    let with = |ingress: &str, metrics: &str| {
        let metrics = format!("  metrics: {{ address: \"{metrics}\" }}\n{more}");
        config(&[&format!("{{ address: \"{ingress}\" }}")], &metrics)
    };
    let gateway = Gateway::with_config(&with("127.0.0.1:0", "127.0.0.2:0"));
    let (ingress, metrics) = (gateway.ingress(), metrics_bound(&gateway, "127.0.0.2:0").unwrap());
    let mut live = connect(ingress, "one.example", &apps.tls).unwrap();
    // Each at all addresses, so that it overlaps with what the other gives up.
    gateway.rewrite_all(&with(
        &format!("0.0.0.0:{}", metrics.port()),
        &format!("0.0.0.0:{}", ingress.port()),
    ));
    wait_until("a call at the metrics listener's old port", || {
        apps.call(metrics, "one.example").is_ok_and(|who| who == "alpha")
    });
    wait_until("a probe at the ingress listener's old port", || {
        TcpStream::connect(ingress)
            .and_then(|stream| http::exchange(stream, "GET", "/healthz", b"", true))
            .is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(live.who().unwrap(), "alpha", "a live connection stays");
}
