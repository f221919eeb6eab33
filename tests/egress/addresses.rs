//! Which app an address leads to, whatever is asked for there.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::common::app::{App, dial_from, handshake};
use super::common::gateway::STRAIT;
use super::common::wait_until;
use super::{Bench, CALLER, app, ip, name, own_address};

#[test]
fn a_client_that_dials_an_address_reaches_its_app_with_any_server_name_or_none() {
    let bench = Bench::start(3);
    for number in 0..3 {
        let address = bench.address(number);
        assert_eq!(bench.who(address).unwrap(), app(number), "without a server name");
        let stream = dial_from(ip(CALLER), address).unwrap();
        let mut named = handshake(stream, &name(number), &bench.tls).unwrap();
        assert_eq!(named.who().unwrap(), app(number), "with its own");
    }
    // The name of another app decides nothing: the certificate is that of the address's app, and the client says so.
    let stream = dial_from(ip(CALLER), bench.address(0)).unwrap();
    let error = handshake(stream, &name(1), &bench.tls).err().unwrap();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    assert_eq!(bench.apps.iter().map(App::accepted).collect::<Vec<_>>(), [3, 2, 2]);
    let record = bench.gateway.record("completed");
    assert_eq!(
        (&record["listener"], &record["name"]),
        (&"egress".into(), &Value::Null),
        "{record}"
    );
}

#[test]
fn a_pool_gives_each_app_an_address_and_all_the_same_port() {
    let host = own_address();
    let pool = host.rsplit_once('.').unwrap().0;
    let port = 21_500;
    let bench = Bench::with(3, &format!("{{ pool: {pool}.0/24, port: {port} }}"), &host);
    for number in 0..3 {
        let address = bench.address(number);
        assert_eq!(address.to_string(), format!("{pool}.{}:{port}", number + 1));
        let stream = dial_from(ip(CALLER), address).unwrap();
        let mut connection = handshake(stream, &name(number), &bench.tls).unwrap();
        assert_eq!(connection.who().unwrap(), app(number));
    }
    let lock = fs::read_to_string(bench.gateway.folder().join("egress.lock")).unwrap();
    assert!(lock.contains(&format!("\n{pool}.1 shop/app0\n")), "{lock}");
}

#[test]
fn an_address_that_is_taken_is_told_and_served_once_it_is_free() {
    let bind = own_address();
    let taken = std::net::TcpListener::bind((bind.as_str(), 21_000)).unwrap();
    let bench = Bench::with(2, &format!("{{ bind: {bind}, ports: 21000-21001 }}"), &bind);
    let trouble = super::egress_of(&bench.gateway, &app(0)).unwrap()["trouble"].clone();
    let told = trouble.as_str().unwrap();
    assert!(told.contains("cannot listen at") && told.contains("ss -ltnp"), "{told}");
    assert_eq!(bench.who(bench.address(1)).unwrap(), app(1), "the others are served");
    drop(taken);
    assert_eq!(bench.who(bench.address(0)).unwrap(), app(0));
}

#[test]
fn explain_tells_what_becomes_of_a_caller_at_an_address() {
    let bench = Bench::start(1);
    let address = bench.address(0).to_string();
    let explain = |from: &str| {
        let arguments = ["explain", &address, "--from", from, "--admin", &bench.gateway.admin()];
        let output = Command::new(STRAIT).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = explain(CALLER);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("shop/app0") && told.contains("admitted") && told.contains("egress address"),
        "{told}"
    );
    let (code, told) = explain("127.0.0.2");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("unknown_caller"), "{told}");
    let output =
        Command::new(STRAIT).args(["status", "--admin", &bench.gateway.admin()]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("EGRESS") && told.contains(&address), "{told}");
}

#[test]
fn an_endpoint_that_is_an_egress_address_is_never_dialled() {
    let bench = Bench::start(1);
    let address = bench.address(0);
    let text = super::config(&bench.egress, &bench.apps, &[0], "");
    bench
        .gateway
        .rewrite_all(&text.replace(&bench.apps[0].address.to_string(), &address.to_string()));
    wait_until("the endpoint is known as the gateway's own", || {
        bench.gateway.status()["routes"][0]["absent"][0]["reason"]
            .as_str()
            .is_some_and(|why| why.contains("own listener"))
    });
    assert!(bench.who(address).is_err());
    assert_eq!(bench.gateway.record("no_healthy_endpoint")["route"], "shop/app0");
}
