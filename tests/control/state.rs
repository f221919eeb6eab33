//! What the gateway knows after a restart: `stateDir`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::common::app::{self, App};
use super::common::authority::Authority;
use super::common::dns::{DnsServer, Reply};
use super::common::gateway::{Gateway, STRAIT};
use super::common::{dns_server, measured, wait_for, wait_until};

const HOST: &str = "checkout-dapr.shop.svc.cluster.example";
const FILE: &str = "state/dns.snapshot.json";

fn config(dns: &DnsServer, app: &App, state_dir: &str) -> String {
    format!(
        "\
stateDir: {state_dir}
resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}
routes:
  - {{ name: one.example, endpoints: [\"{HOST}:{}\"] }}
",
        dns.address,
        app.address.port()
    )
}

fn source(gateway: &Gateway) -> Value {
    gateway.status()["sources"][0].clone()
}

fn is_stale(gateway: &Gateway) -> bool {
    source(gateway)["stale"].as_bool().unwrap()
}

/// Ends the process by a signal and starts the same again, in the same folder.
fn restart(mut gateway: Gateway, signal: Signal) -> Gateway {
    gateway.signal(signal);
    gateway.exit();
    again(&gateway)
}

fn again(gateway: &Gateway) -> Gateway {
    let mut command = Command::new(STRAIT);
    command.args(["run", "--config"]).arg(gateway.config());
    let mut next = gateway.beside(command);
    next.wait_until_ready();
    next
}

fn warning(gateway: &Gateway, words: &str) -> String {
    wait_for(words, || {
        let log = gateway.log();
        let line =
            log.iter().find(|line| line["level"] == "WARN" && line.to_string().contains(words));
        line.map(ToString::to_string)
    })
}

#[test]
fn a_restart_while_dns_is_down_serves_as_before() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HOST, &["127.0.0.1"]);
    let app = App::start(&authority, "checkout", &["one.example"]);
    let tls = authority.client();
    let serves =
        |gateway: &Gateway| app::call(gateway.ingress(), "one.example", &tls).map(|_| ()).is_ok();
    let mut gateway = Gateway::start(&config(&dns, &app, "state"));
    wait_until("the name is resolved", || serves(&gateway));
    assert!(!is_stale(&gateway));

    // An end by signal brings the last word to disk, a crash leaves what was written by then.
    for signal in [Signal::TERM, Signal::KILL] {
        dns.set(HOST, Reply::Silence);
        gateway = restart(gateway, signal);
        assert!(serves(&gateway), "{signal:?}: what DNS said last is in force");
        let told = source(&gateway);
        assert_eq!((&told["stale"], &told["up"]), (&true.into(), &false.into()), "{told}");
        let age = told["age_seconds"].as_f64().unwrap();
        assert!(age > 0.0, "{told}");
        wait_until("the age rises", || source(&gateway)["age_seconds"].as_f64().unwrap() > age);
        assert_eq!(gateway.metric("strait_discovery_up", &["source=\"dns\""]), 0);
        let table = Command::new(STRAIT).args(["status", "--admin", &gateway.admin()]).output();
        let table = String::from_utf8(table.unwrap().stdout).unwrap();
        assert!(table.contains("stale"), "{table}");
        measured(&format!("restart by {signal:?} while DNS is down: serving, age {age:.1} s"));

        dns.addresses(HOST, &["127.0.0.1"]);
        wait_until("DNS is back", || !is_stale(&gateway));
        wait_until("and its age starts over", || source(&gateway)["up"] == true);
        assert_eq!(gateway.metric("strait_discovery_up", &["source=\"dns\""]), 1);
        assert!(serves(&gateway));
    }
    let file = gateway.folder().join(FILE);
    for (path, mode) in [(file.parent().unwrap(), 0o700), (&*file, 0o600)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
}

#[test]
fn what_is_remembered_is_bound_by_the_rules_of_today() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HOST, &["127.0.0.1"]);
    let app = App::start(&authority, "checkout", &["one.example"]);
    let text = config(&dns, &app, "state");
    let gateway = Gateway::start(&text);
    wait_until("it is kept", || gateway.folder().join(FILE).exists());
    dns.set(HOST, Reply::Silence);
    gateway.rewrite(&text.replace("allowLocalAddresses: true", "allowLocalAddresses: false"));
    let gateway = restart(gateway, Signal::TERM);
    assert!(app::call(gateway.ingress(), "one.example", &authority.client()).is_err());
}

#[test]
fn a_file_that_is_of_no_use_is_named_and_left_out() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HOST, &["127.0.0.1"]);
    let app = App::start(&authority, "checkout", &["one.example"]);
    let tls = authority.client();
    let mut gateway = Gateway::start(&config(&dns, &app, "state"));
    let file: PathBuf = gateway.folder().join(FILE);
    let whole = wait_for("it is kept", || fs::read_to_string(&file).ok());
    let cases = [
        (whole[..whole.len() / 2].to_owned(), "it is damaged"),
        ("\u{0}garbage".to_owned(), "it is damaged"),
        (whole.replace("\"version\": 1", "\"version\": 99"), "it has version 99"),
        (whole.replace("\"dns\"", "\"consul\""), "it is no state of the source dns"),
    ];
    for (text, told) in cases {
        // Killed, so that it does not write the file once more.
        gateway.signal(Signal::KILL);
        gateway.exit();
        fs::write(&file, text).unwrap();
        gateway = again(&gateway);
        let line = warning(&gateway, told);
        assert!(line.contains(FILE), "{line}");
        wait_until("it serves", || app::call(gateway.ingress(), "one.example", &tls).is_ok());
        wait_until("the file is whole again", || {
            fs::read_to_string(&file).is_ok_and(|text| text == whole)
        });
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_once_and_serving_goes_on() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HOST, &["127.0.0.1"]);
    let app = App::start(&authority, "checkout", &["one.example"]);
    // Below a file: not even root can make it.
    let gateway = Gateway::start(&config(&dns, &app, "strait.yaml/state"));
    let line = warning(&gateway, "stateDir is of no use");
    assert!(line.contains("strait.yaml/state"), "{line}");
    let tls = authority.client();
    wait_until("it serves", || app::call(gateway.ingress(), "one.example", &tls).is_ok());
    // Another folder, without a restart.
    gateway.rewrite(&config(&dns, &app, "elsewhere"));
    wait_until("it is kept elsewhere", || {
        gateway.folder().join("elsewhere/dns.snapshot.json").exists()
    });
    let told = gateway.lines();
    let told = told.iter().filter(|line| line.contains("stateDir is of no use"));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_source_that_is_no_longer_there_loses_its_file_and_other_files_stay() {
    let (dns, authority) = (dns_server(), Authority::new());
    dns.addresses(HOST, &["127.0.0.1"]);
    let app = App::start(&authority, "checkout", &["one.example"]);
    let gateway = Gateway::start(&config(&dns, &app, "state"));
    let path = |name: &str| gateway.folder().join("state").join(name);
    wait_until("it is kept", || path("dns.snapshot.json").exists());
    let (gone, other) = (path("exchange@gone.snapshot.json"), path("notes.json"));
    fs::write(&gone, "{}").unwrap();
    fs::write(&other, "{}").unwrap();
    // No route has a host name any more: there is nothing to remember, and what there is, is looked at anew.
    gateway.rewrite("stateDir: state\n");
    wait_until("the files are gone", || !gone.exists() && !path("dns.snapshot.json").exists());
    assert!(other.exists());
}
