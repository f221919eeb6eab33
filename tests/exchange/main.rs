//! Gateways that tell each other what they export: what is known where, how soon, and what becomes of it when one is gone.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/grpc.rs"]
mod grpc;
#[path = "../dns/questions.rs"]
#[allow(dead_code, reason = "a part of it is taken")]
mod questions;

mod liars;
mod scale;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use common::app::{self, App};
use common::authority::Authority;
use common::gateway::{BASE, Gateway, STRAIT};
use common::process::strait;
use common::{measured, wait_until};

/// Folders with certificates of `strait certs`.
struct Folders(TempDir);

impl Folders {
    fn of(clusters: &[&str]) -> Self {
        let folders = Self(tempfile::tempdir().unwrap());
        let arguments = [&["certs", "tls", "--trust-domain", "example.org"], clusters].concat();
        let made = strait(&arguments, folders.0.path());
        assert!(made.status.success(), "{made:?}");
        folders
    }

    fn certificates(&self, cluster: &str) -> PathBuf {
        self.0.path().join("tls").join(cluster)
    }

    /// What a gateway of a cluster has in its configuration in any case.
    fn base(&self, cluster: &str) -> String {
        let certificates = self.certificates(cluster);
        let link = format!(
            "link: {{ directory: {}, trustDomain: example.org }}\n",
            certificates.display()
        );
        let names = "names: [\"{app}.{namespace}.mesh.example\"]\n";
        let local = "local: { networks: [127.0.0.0/8] }\n";
        format!("{}{link}{names}{local}", BASE.replace("west", cluster))
    }

    /// A cluster with apps at one address and who may call them.
    fn exporter(&self, cluster: &str, at: SocketAddr, exports: &[(&str, &str)]) -> String {
        let apps =
            exports.iter().map(|(app, _)| format!("  - {{ app: {app}, endpoints: [\"{at}\"] }}\n"));
        let exports = exports
            .iter()
            .map(|(app, allow)| format!("  - {{ app: {app}, allow: [{{ cluster: {allow} }}] }}\n"));
        let (apps, exports): (String, String) = (apps.collect(), exports.collect());
        let clusters = "clusters: { west: {}, south: {} }\n";
        format!("{}{clusters}apps:\n{apps}exports:\n{exports}", self.base(cluster))
    }

    /// West, which imports from these clusters.
    fn importer(&self, clusters: &[(&str, SocketAddr)], imports: &str) -> String {
        let clusters = clusters.iter();
        let cluster =
            |(name, at): &(&str, SocketAddr)| format!("{name}: {{ gateways: [\"{at}\"] }}");
        let clusters: Vec<_> = clusters.map(cluster).collect();
        let clusters = format!("clusters: {{ {} }}\n", clusters.join(", "));
        format!("{}{clusters}stateDir: state\nimports: {imports}\n", self.base("west"))
    }
}

fn route(gateway: &Gateway, label: &str) -> Option<Value> {
    let status = gateway.status();
    status["routes"].as_array().unwrap().iter().find(|route| route["label"] == label).cloned()
}

fn health(gateway: &Gateway, label: &str) -> String {
    let route = route(gateway, label).unwrap_or_default();
    route["endpoints"][0]["health"].as_str().unwrap_or("absent").to_owned()
}

fn source(gateway: &Gateway, cluster: &str) -> Value {
    let status = gateway.status();
    let name = format!("exchange/{cluster}");
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == *name).cloned().unwrap_or_default()
}

#[test]
fn an_app_that_is_exported_is_known_and_called_and_goes_with_its_export() {
    let (folders, authority) = (Folders::of(&["west", "east"]), Authority::new());
    let names = ["orders.shop.mesh.example", "stock.shop.mesh.example"];
    let orders = App::start(&authority, "orders", &names);
    let exporter = |exports: &[(&str, &str)]| folders.exporter("east", orders.address, exports);
    let east =
        Gateway::with_config(&exporter(&[("shop/orders", "west"), ("shop/hidden", "south")]));
    let import = "[{ app: \"shop/*\", clusters: [east], allow: any }]";
    let west = Gateway::with_config(&folders.importer(&[("east", east.ingress())], import));
    let call = |name: &str| app::call(west.ingress(), name, &authority.client());
    wait_until("the app is called", || call(names[0]).is_ok_and(|who| who == "orders"));

    let known = route(&west, "shop/orders").unwrap();
    assert_eq!(known["names"][0], names[0]);
    let told = west.status().to_string();
    assert!(!told.contains(&orders.address.to_string()), "where it is stays in east: {told}");
    assert!(!told.contains("hidden"), "what is exported to south is told to south alone: {told}");
    let heard = source(&west, "east");
    assert_eq!(
        (&heard["up"], &heard["apps"], &heard["ignored"]),
        (&true.into(), &1.into(), &0.into())
    );

    let since = Instant::now();
    east.rewrite_all(&exporter(&[("shop/orders", "west"), ("shop/stock", "west")]));
    wait_until("an app that is added is known", || call(names[1]).is_ok());
    measured(&format!("an app exported in east is called from west {:?} later", since.elapsed()));
    east.rewrite_all(&exporter(&[("shop/stock", "west")]));
    wait_until("an app that is taken away goes", || route(&west, "shop/orders").is_none());
    assert!(call(names[0]).is_err() && call(names[1]).is_ok());
}

#[test]
fn an_app_imported_by_name_is_left_out_while_it_is_not_exported_or_has_no_healthy_endpoint() {
    let (folders, authority) = (Folders::of(&["west", "east"]), Authority::new());
    let orders = App::start(&authority, "orders", &["orders.shop.mesh.example"]);
    let exporter = |export: &[(&str, &str)]| folders.exporter("east", orders.address, export);
    let east = Gateway::with_config(&exporter(&[("shop/orders", "south")]));
    let import = "[{ app: shop/orders, clusters: [east], allow: any }]";
    let west = Gateway::with_config(&folders.importer(&[("east", east.ingress())], import));
    wait_until("it is known not to be exported", || {
        route(&west, "shop/orders").unwrap()["absent"][0]["reason"]
            == "the cluster does not export it to this one"
    });
    let checked = exporter(&[("shop/orders", "west")]).replace(
        "] }\nexports",
        "], check: { kind: tcp, interval: 100ms, rise: 1, fall: 1 } }\nexports",
    );
    east.rewrite_all(&checked);
    wait_until("it is healthy", || health(&west, "shop/orders") == "healthy");
    drop(orders);
    let since = Instant::now();
    wait_until("its last endpoint is down", || health(&west, "shop/orders") == "down");
    measured(&format!("an app that dies in east is known in west {:?} later", since.elapsed()));
}

#[test]
fn a_cluster_that_is_lost_is_stale_and_its_apps_unhealthy_within_a_second() {
    let (folders, authority) = (Folders::of(&["west", "east"]), Authority::new());
    let name = "orders.shop.mesh.example";
    let orders = App::start(&authority, "orders", &[name]);
    let text = folders.exporter("east", orders.address, &[("shop/orders", "west")]);
    let mut east = Gateway::with_config(&text);
    let at = east.ingress();
    let import = "[{ app: \"shop/*\", clusters: [east], allow: any }]";
    let mut west = Gateway::with_config(&folders.importer(&[("east", at)], import));
    wait_until("the app is known", || health(&west, "shop/orders") == "healthy");

    // It is there and says nothing, and then it is gone.
    east.signal(Signal::STOP);
    let since = Instant::now();
    wait_until("it is unhealthy", || health(&west, "shop/orders") == "down");
    let took = since.elapsed();
    measured(&format!("east falls silent: its app is unhealthy in west {took:?} later"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    wait_until("the source is down", || source(&west, "east")["up"] == false);
    east.signal(Signal::CONT);
    wait_until("it is heard again", || {
        health(&west, "shop/orders") == "healthy" && source(&west, "east")["up"] == true
    });
    let file = west.folder().join("state/exchange@east.snapshot.json");
    wait_until("it is kept", || file.exists());
    east.signal(Signal::KILL);
    east.exit();
    let since = Instant::now();
    wait_until("it is unhealthy", || health(&west, "shop/orders") == "down");
    measured(&format!("east is killed: its app is unhealthy in west {:?} later", since.elapsed()));

    // After a restart the app is still known by name.
    west.signal(Signal::TERM);
    west.exit();
    let mut command = Command::new(STRAIT);
    command.args(["run", "--config"]).arg(west.config());
    west = west.beside(command);
    west.wait_until_ready();
    wait_until("it is remembered", || health(&west, "shop/orders") == "down");
    let told = source(&west, "east");
    assert_eq!((&told["stale"], &told["up"]), (&true.into(), &false.into()), "{told}");
    let again = text.replace("\"127.0.0.1:0\"", &format!("\"{at}\""));
    let east = Gateway::with_config(&again);
    wait_until("east is back", || {
        app::call(west.ingress(), name, &authority.client()).is_ok_and(|who| who == "orders")
    });
    wait_until("the mark goes", || source(&west, "east")["stale"] == false);
    drop(east);
    // Nothing is imported from there any more.
    west.rewrite_all(&format!("{}stateDir: state\n", folders.base("west")));
    wait_until("its file goes", || !file.exists());
    assert!(source(&west, "east").is_null());
    assert!(fs::read_dir(file.parent().unwrap()).unwrap().next().is_none());
}

#[test]
fn a_cluster_may_have_several_gateways_and_each_is_known_by_itself() {
    let (folders, authority) = (Folders::of(&["west", "east"]), Authority::new());
    let name = "orders.shop.mesh.example";
    let orders = App::start(&authority, "orders", &[name]);
    let text = folders.exporter("east", orders.address, &[("shop/orders", "west")]);
    let (mut one, other) = (Gateway::with_config(&text), Gateway::with_config(&text));
    let gateways = format!("{}\", \"{}", one.ingress(), other.ingress());
    let import = "[{ app: shop/orders, clusters: [east], allow: any }]";
    let text = folders.importer(&[("east", one.ingress())], import);
    let text = text.replace(&one.ingress().to_string(), &gateways);
    let west = Gateway::with_config(&text);
    let healthy = || {
        let route = route(&west, "shop/orders").unwrap();
        let endpoints = route["endpoints"].as_array().unwrap().clone();
        endpoints.iter().filter(|endpoint| endpoint["health"] == "healthy").count()
    };
    wait_until("both are heard", || healthy() == 2 && source(&west, "east")["up"] == true);
    let carried =
        |gateway: &Gateway| gateway.metric("strait_connections_total", &["route=\"shop/orders\""]);
    wait_until("calls are spread over both", || {
        app::call(west.ingress(), name, &authority.client()).unwrap();
        carried(&one) > 0 && carried(&other) > 0
    });
    one.signal(Signal::KILL);
    one.exit();
    wait_until("one is down", || healthy() == 1);
    for _ in 0..5 {
        let who = app::call(west.ingress(), name, &authority.client());
        assert_eq!(who.unwrap(), "orders");
    }
    assert_eq!(source(&west, "east")["up"], true, "the cluster is there");
}

#[test]
fn a_gateway_that_stops_is_left_before_it_ends() {
    let (folders, authority) = (Folders::of(&["west", "east"]), Authority::new());
    let orders = App::start(&authority, "orders", &["orders.shop.mesh.example"]);
    let text = folders.exporter("east", orders.address, &[("shop/orders", "west")]);
    let mut east = Gateway::with_config(&text);
    let import = "[{ app: shop/orders, clusters: [east], allow: any }]";
    let west = Gateway::with_config(&folders.importer(&[("east", east.ingress())], import));
    wait_until("it is heard", || source(&west, "east")["up"] == true);
    east.signal(Signal::TERM);
    wait_until("it is left", || health(&west, "shop/orders") == "down");
    east.exit();
}
