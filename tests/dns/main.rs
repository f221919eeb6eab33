//! The name server of a running gateway, asked by itself and through a real `CoreDNS`.
#![allow(clippy::print_stdout, reason = "figures, for who asks for them with --nocapture")]

#[path = "../common/mod.rs"]
mod common;

mod coredns;
mod direct;
mod questions;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::app::{App, call, dial_from};
use common::authority::Authority;
use common::gateway::{BASE, Gateway, STRAIT, filled};
use common::process::certificates;
use common::{PATIENCE, wait_for, wait_until};
use questions::{Said, ask, ask_tcp, listens, question, said, some};

/// One app that this gateway carries over links, one that callers reach by themselves. Nothing listens at east's gateways.
const CONFIG: &str = "\
cluster: west
local: { networks: [127.0.0.0/16, 10.0.0.0/8] }
listeners:
  ingress: [{ address: \"127.0.0.1:0\" }]
  admin: { address: \"unix:{folder}/admin.sock\" }
  dns: { address: \"127.0.0.1:0\", zone: mesh.example, announce: [10.0.0.5, \"fd00::5\"] }
link: { directory: \"{folder}/tls/west\", trustDomain: example.org }
clusters:
  east: { gateways: [\"127.0.0.2:1\", \"127.0.0.3:1\"] }
  south: { gateways: [\"127.0.0.4:8443\"] }
names: [\"{app}.{namespace}.mesh.example\", \"{app}-dapr.{namespace}.svc.cluster.local\"]
imports:
  - { app: shop/orders, clusters: [east, south], allow: any }
  - { app: shop/cart, clusters: [east, south], allow: any, answer: direct }
";

fn start(text: &str) -> Gateway {
    Gateway::in_folder(tempfile::tempdir().unwrap(), "strait.yaml", |folder| {
        certificates(folder, &["west"]);
        fs::write(folder.join("strait.yaml"), filled(text, folder)).unwrap();
    })
}

#[test]
fn names_of_imported_apps_stand_for_the_gateway_or_for_the_other_clusters() {
    let gateway = start(CONFIG);
    let server = listens(&gateway);
    for name in ["orders.shop.mesh.example", "Orders-Dapr.shop.svc.cluster.local"] {
        assert_eq!(ask(server, name, "A"), some(&["10.0.0.5"]), "{name}");
        assert_eq!(ask_tcp(server, name, "AAAA"), some(&["fd00::5"]), "{name}");
        assert_eq!(ask(server, name, "SRV"), said("No Error", &[]), "{name}");
    }
    let direct = some(&["127.0.0.2", "127.0.0.3"]);
    assert_eq!(ask(server, "cart.shop.mesh.example", "A"), direct);
    let services = ["0 0 1 7f000002.addr.mesh.example.", "0 0 1 7f000003.addr.mesh.example."];
    assert_eq!(ask(server, "_dapr._tcp.cart.shop.mesh.example", "SRV"), some(&services));
    assert_eq!(ask(server, "7f000002.addr.mesh.example", "A"), some(&["127.0.0.2"]));
    assert_eq!(ask(server, "shop.mesh.example", "A"), said("No Error", &[]));
    assert_eq!(ask(server, "other.shop.mesh.example", "A"), said("Non-Existent Domain", &[]));
    assert_eq!(ask(server, "other.shop.svc.cluster.local", "A"), said("Query Refused", &[]));
    assert_eq!(ask(server, "mesh.example", "NS"), some(&["ns.mesh.example."]));
    assert_eq!(gateway.metric("strait_dns_answers_total", &["code=\"refused\""]), 1);
    assert_eq!(gateway.metric("strait_dns_answers_total", &["transport=\"tcp\""]), 2);
}

/// With ports, an address record leads to the ingress listener and a service record to the app's own port; with a pool, both lead
/// to the app's own address.
#[test]
fn an_app_with_an_egress_address_is_answered_with_that() {
    let egress = "  egress: { bind: 127.0.0.1, announce: 10.0.0.9, ports: 20000-20099 }\n";
    let with = |egress: &str| CONFIG.replace("link:", &format!("{egress}link:"));
    let pinned = "allow: any, egress: { port: 20007 } }";
    let gateway = start(&with(egress).replacen("allow: any }", pinned, 1));
    let (server, orders) = (listens(&gateway), "orders.shop.mesh.example");
    assert_eq!(ask(server, orders, "A"), some(&["10.0.0.5"]));
    assert_eq!(ask(server, orders, "SRV"), some(&["0 0 20007 0a000009.addr.mesh.example."]));
    assert_eq!(ask(server, "0a000009.addr.mesh.example", "A"), some(&["10.0.0.9"]));
    let pool = "  egress: { pool: 127.9.3.0/24, port: 50002 }\n";
    let pinned = "allow: any, egress: { address: 127.9.3.7 } }";
    gateway.rewrite_all(&with(pool).replacen("allow: any }", pinned, 1));
    wait_until("an address of its own", || ask(server, orders, "A") == some(&["127.9.3.7"]));
    assert_eq!(ask(server, orders, "SRV"), some(&["0 0 50002 7f090307.addr.mesh.example."]));
}

/// The address where a service's own port is: at a pool always, among ports where it has pinned that.
#[test]
fn a_service_is_answered_with_where_its_own_port_is() {
    let services = "\
services:
  - { name: db.mesh.example, port: 6379, import: { clusters: [east], allow: any } }
  - { name: zipkin.mesh.example, port: 9411, import: { clusters: [east], allow: any, PIN } }
";
    let with = |egress: &str, pin: &str| {
        let config = CONFIG.replace("link:", &format!("  egress: {{ {egress} }}\nlink:"));
        format!("{config}{}", services.replace("PIN", pin))
    };
    let ports =
        with("bind: 127.0.0.1, announce: 10.0.0.9, ports: 20000-20099", "egress: { port: 9411 }");
    let gateway = start(&ports);
    let (server, db, zipkin) = (listens(&gateway), "db.mesh.example", "Zipkin.mesh.example");
    assert_eq!(ask(server, zipkin, "A"), some(&["10.0.0.9"]));
    assert_eq!(ask(server, zipkin, "SRV"), some(&["0 0 9411 0a000009.addr.mesh.example."]));
    assert_eq!(ask(server, db, "A"), some(&["10.0.0.5"]), "its name leads to the ingress");
    let (_, found) = ask(server, db, "SRV");
    assert!(
        found[0].starts_with("0 0 20") && found[0].ends_with(" 0a000009.addr.mesh.example."),
        "{found:?}"
    );
    gateway.rewrite_all(&with("pool: 127.9.4.0/24, port: 50002", "egress: { address: 127.9.4.7 }"));
    wait_until("an address of its own", || ask(server, zipkin, "A") == some(&["127.9.4.7"]));
    assert_eq!(ask(server, zipkin, "SRV"), some(&["0 0 9411 7f090407.addr.mesh.example."]));
    let (_, found) = ask(server, db, "SRV");
    assert!(found[0].starts_with("0 0 6379 7f0904"), "{found:?}");
}

/// What is exported tells which names there are, and each has an address of its own.
#[test]
fn apps_of_an_imported_namespace_are_answered_with_an_address_each() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["west", "east"]);
    let exported = |allow: &str| {
        let (apps, exports): (String, String) = ["a", "b"]
            .map(|id| {
                let app = format!("  - {{ app: lab/{id}, endpoints: [\"127.0.0.1:1\"] }}\n");
                (app, format!("  - {{ app: lab/{id}, allow: [{{ {allow} }}] }}\n"))
            })
            .into_iter()
            .unzip();
        format!("names: [\"{{app}}.{{namespace}}.mesh.example\"]\napps:\n{apps}exports:\n{exports}")
    };
    let tls = folder.path().join("tls/east");
    let link = format!("link: {{ directory: {}, trustDomain: example.org }}\n", tls.display());
    let east = |exports: &str| {
        format!("{}{link}clusters: {{ west: {{}} }}\n{exports}", BASE.replace("west", "east"))
    };
    let far = Gateway::with_config(&east(&exported("cluster: west")));
    let pool = "  egress: { pool: 127.9.5.0/24, port: 50002 }\nlink:";
    let config = CONFIG
        .replace("link:", pool)
        .replace("\"127.0.0.2:1\", \"127.0.0.3:1\"", &format!("\"{}\"", far.ingress()));
    let import = "  - { app: \"lab/*\", clusters: [east], allow: any }\n";
    let gateway = Gateway::in_folder(folder, "strait.yaml", |folder| {
        fs::write(folder.join("strait.yaml"), filled(&format!("{config}{import}"), folder))
            .unwrap();
    });
    let server = listens(&gateway);
    let address = |app: &str| {
        wait_for("an address of its own", || {
            let (code, found) = ask(server, &format!("{app}.lab.mesh.example"), "A");
            found
                .first()
                .filter(|found| code == "No Error" && found.starts_with("127.9.5."))
                .cloned()
        })
    };
    assert_ne!(address("a"), address("b"));
    let (_, service) = ask(server, "a.lab.mesh.example", "SRV");
    assert!(service[0].starts_with("0 0 50002 7f0905"), "{service:?}");
    assert_eq!(ask(server, "c.lab.mesh.example", "A"), said("Non-Existent Domain", &[]));
    far.rewrite_all(&east(&exported("network: 10.0.0.0/8")));
    wait_until("what is not exported any more has no name", || {
        ask(server, "a.lab.mesh.example", "A") == said("Non-Existent Domain", &[])
    });
}

#[test]
fn a_direct_answer_leaves_a_cluster_that_fails() {
    let (authority, orders) = (Authority::new(), "orders.shop.mesh.example");
    let cart = "cart.shop.mesh.example";
    let app = App::start(&authority, "orders", &[orders]);
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["west", "south"]);
    let (of_apps, of_exports): (String, String) = [("orders", orders), ("cart", cart)]
        .map(|(id, name)| {
            let endpoints = format!("endpoints: [\"{}\"]", app.address);
            let allow = "allow: [{ cluster: west }]";
            let export = format!("  - {{ app: shop/{id}, name: {name}, {allow} }}\n");
            (format!("  - {{ app: shop/{id}, {endpoints} }}\n"), export)
        })
        .into_iter()
        .unzip();
    let south = Gateway::with_config(&format!(
        "{}link: {{ directory: {}, trustDomain: example.org }}\nclusters: {{ west: {{}} }}\n\
         apps:\n{of_apps}exports:\n{of_exports}",
        BASE.replace("west", "south"),
        folder.path().join("tls/south").display(),
    ));
    let config = CONFIG.replace("127.0.0.4:8443", &south.ingress().to_string());
    let gateway = Gateway::in_folder(folder, "strait.yaml", |folder| {
        fs::write(folder.join("strait.yaml"), filled(&config, folder)).unwrap();
    });
    let (server, tls) = (listens(&gateway), authority.client());
    let (since, mut calls) = (Instant::now(), 0);
    wait_until("east is left", || {
        assert_eq!(call(gateway.ingress(), orders, &tls).as_deref(), Ok("orders"));
        calls += 1;
        ask(server, cart, "A") == some(&["127.0.0.1"])
    });
    println!("left after {:?} and {calls} calls, all carried", since.elapsed());
}

#[test]
fn answers_follow_the_configuration() {
    let gateway = start(CONFIG);
    let server = listens(&gateway);
    gateway.rewrite_all(&CONFIG.replace("[10.0.0.5, \"fd00::5\"]", "[10.0.0.6]"));
    let orders = "orders.shop.mesh.example";
    wait_until("another address", || ask(server, orders, "A") == some(&["10.0.0.6"]));
    assert_eq!(listens(&gateway), server, "the sockets stay");
    gateway.rewrite_all(&CONFIG.replace("mesh.example", "lane.example"));
    wait_until("another zone", || {
        ask(server, "orders.shop.lane.example", "A") == some(&["10.0.0.5"])
    });
    assert_eq!(ask(server, orders, "A"), said("Query Refused", &[]));
    gateway.rewrite_all(&CONFIG.replace("- { app: shop/orders", "- { app: shop/late"));
    wait_until("an app that is gone", || {
        ask(server, orders, "A") == said("Non-Existent Domain", &[])
    });
    let without = CONFIG.lines().filter(|line| !line.contains("dns:")).collect::<Vec<_>>();
    gateway.rewrite_all(&without.join("\n"));
    wait_until("no name server", || TcpStream::connect(server).is_err());
    wait_until("a free port", || UdpSocket::bind(server).is_ok());
}

/// Who is not of this cluster gets an answer now and then, and whoever is gets all the same.
#[test]
fn a_flood_of_strangers_slows_nobody_else() {
    let gateway = start(CONFIG);
    let server = listens(&gateway);
    let stranger = UdpSocket::bind("127.9.0.1:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let request = question("orders.shop.mesh.example", "A");
    let mut answered = [0_u32; 2];
    let mut count = || {
        let mut buffer = [0; 512];
        while let Ok(length) = stranger.recv(&mut buffer) {
            assert!(length >= 12);
            answered[usize::from(buffer[2] & 2 != 0)] += 1;
        }
    };
    let (mut own, since) = (0_u32, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        for _ in 0..200 {
            let _ = stranger.send_to(&request, server);
        }
        count();
        assert_eq!(ask(server, "orders.shop.mesh.example", "A"), some(&["10.0.0.5"]));
        own += 1;
    }
    count();
    let took = since.elapsed();
    let [whole, truncated] = answered;
    println!("{own} own answers; a stranger's: {whole} whole, {truncated} truncated in {took:?}");
    // A second's worth at once, and then a hundred a second.
    assert!(whole >= 100 && f64::from(whole) <= 100.0 * (took.as_secs_f64() + 1.5), "{whole}");
    assert!(truncated > whole, "the others are told to come over TCP, every second one");
    assert!(gateway.metric("strait_dns_dropped_total", &["reason=\"rate\""]) > u64::from(whole));
}

#[test]
fn garbage_and_idle_streams_take_nothing_from_others() {
    let gateway = start(CONFIG);
    let server = listens(&gateway);
    let garbage = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..600_usize {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().skip(length * 7).take(length).collect();
        let _ = garbage.send_to(&bytes, server);
        if length % 50 == 0 {
            assert_eq!(ask(server, "orders.shop.mesh.example", "A"), some(&["10.0.0.5"]));
        }
    }
    // A length that no question has, and one that is never filled.
    let mut long = TcpStream::connect(server).unwrap();
    long.write_all(&[0xff; 600]).unwrap();
    long.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(long.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
    let idle: Vec<_> = (0..200)
        .map(|_| {
            let stream = dial_from([127, 9, 0, 1].into(), server).unwrap();
            (&stream).write_all(&[0, 40, 1]).unwrap();
            stream
        })
        .collect();
    assert_eq!(ask_tcp(server, "orders.shop.mesh.example", "A"), some(&["10.0.0.5"]));
    wait_until("the newest of the strangers are closed", || {
        gateway.metric("strait_dns_dropped_total", &["reason=\"streams\""]) == 200 - 128
    });
    drop(idle);
    let stranger = || {
        let mut stream = dial_from([127, 9, 0, 1].into(), server)?;
        questions::exchange(&mut stream, &question("orders.shop.mesh.example", "A"))
    };
    wait_for("room for a stranger", || stranger().ok());
    assert_eq!(gateway.status()["ready"], true);
}

/// The sockets go to the successor, so that a question in their queue is answered by either.
#[test]
fn no_question_is_lost_when_another_process_takes_over() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    certificates(folder.path(), &["west"]);
    let config = folder.path().join("strait.yaml");
    fs::write(&config, filled(CONFIG, folder.path())).unwrap();
    let command = || {
        let mut command = Command::new(STRAIT);
        command.arg("run").arg("--config").arg(&config);
        command.arg("--handover").arg(folder.path().join("handover.sock"));
        command
    };
    let mut first = Gateway::launch(Arc::clone(&folder), config.clone(), &mut command());
    first.wait_until_ready();
    first.wait_for_words("a successor may ask");
    let server = listens(&first);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let answer: Said = ask(server, "orders.shop.mesh.example", "A");
                assert_eq!(answer, some(&["10.0.0.5"]));
                answers += 1;
            }
            answers
        });
        let second = first.beside(command());
        second.wait_for_words("the other gateway accepts nothing any more");
        wait_until("the first has ended", || first.has_ended());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let answers: u32 = asking.join().unwrap();
        assert!(answers > 0);
        assert_eq!(listens(&second), server);
        assert_eq!(ask_tcp(server, "orders.shop.mesh.example", "A"), some(&["10.0.0.5"]));
    });
}
