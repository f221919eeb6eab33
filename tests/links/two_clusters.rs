//! `config/two-clusters`, which README shows, as it is written: two hosts, each with its gateway.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use super::ORDERS;
use super::common::app::{App, call_from};
use super::common::authority::Authority;
use super::common::gateway::{Gateway, STRAIT};
use super::common::net::Net;
use super::common::process::{run, strait};

const README: &str = include_str!("../../README.md");
const FILES: [(&str, &str); 2] = [
    ("west.yaml", include_str!("../../config/two-clusters/west.yaml")),
    ("east.yaml", include_str!("../../config/two-clusters/east.yaml")),
];

/// README's commands on the files.
fn prepared() -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in FILES {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let certs = "certs tls --trust-domain example.org west east";
    assert!(README.contains(&format!("$ strait {certs}\n")));
    let arguments: Vec<_> = certs.split(' ').collect();
    let made = strait(&arguments, folder.path());
    assert!(made.status.success(), "{made:?}");
    Arc::new(folder)
}

#[test]
fn readme_shows_the_files_and_they_hold() {
    let folder = prepared();
    for (file, text) in FILES {
        assert!(README.contains(text), "{file} is not in README as it is");
        let checked = strait(&["check", file], folder.path());
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    }
}

fn gateway(net: &Net, folder: &Arc<TempDir>, file: &str) -> Gateway {
    let gateway = net.run(|| {
        let mut command = Command::new(STRAIT);
        command.args(["run", "--config", file]).current_dir(folder.path()).stdin(Stdio::null());
        Gateway::launch(Arc::clone(folder), folder.path().join(file), &mut command)
    });
    gateway.wait_for_words("\"message\":\"ready\"");
    gateway
}

fn called(net: &Net, source: &str, tls: &Arc<ClientConfig>) -> Result<String, String> {
    let own: SocketAddr = "203.0.113.1:8443".parse().unwrap();
    net.run(|| call_from(source.parse().unwrap(), own, ORDERS, tls))
}

#[test]
fn the_files_of_readme_join_two_clusters() {
    let test = "the_files_of_readme_join_two_clusters";
    let Some((west, east)) = Net::new(test).zip(Net::new(test)) else { return };
    west.join(&east, "203.0.113.1/24", "203.0.113.2/24");
    for address in ["10.1.4.7/32", "10.1.9.9/32"] {
        west.ip(&["address", "add", address, "dev", "lo"]);
    }
    east.ip(&["address", "add", "10.2.0.7/32", "dev", "lo"]);
    let (authority, folder) = (Authority::new(), prepared());
    let sidecar = "10.2.0.7:50002".parse().unwrap();
    let _orders = east.run(|| App::start_at(sidecar, &authority, "orders", &[ORDERS]));
    let _east = gateway(&east, &folder, "east.yaml");
    let near = gateway(&west, &folder, "west.yaml");
    let tls = authority.client();
    assert_eq!(called(&west, "10.1.4.7", &tls).unwrap(), "orders", "shop/frontend");
    assert_eq!(called(&west, "10.1.9.9", &tls).unwrap_err(), "AccessDenied", "nobody's address");
    near.record("unknown_caller");
    assert_eq!(called(&west, "203.0.113.1", &tls).unwrap_err(), "UnrecognisedName", "a stranger");
    let status = west.run(|| run(Command::new(STRAIT).arg("status")));
    assert!(String::from_utf8_lossy(&status.stdout).contains("LINKS WITH"), "{status:?}");
}
