//! Egress with the real program: an address of its own for each imported app, for callers that send no server name.

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod callers;
mod linked;
mod lock;
mod many;
mod namespaces;
mod plain;
mod services;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use common::app::{App, Connection, dial_from, handshake};
use common::authority::Authority;
use common::gateway::{BASE, Gateway};
use common::joined::own_address;
use common::wait_for;

/// Where the callers of most tests are.
const CALLER: &str = "127.0.0.1";

/// A gateway with egress listeners, the apps behind it and what trusts them.
struct Bench {
    gateway: Gateway,
    apps: Vec<App>,
    tls: Arc<ClientConfig>,
    /// The gateway's `listeners.egress`.
    egress: String,
}

impl Bench {
    /// `count` apps, `shop/app0` and so on, which [`CALLER`] may call.
    fn start(count: usize) -> Self {
        let bind = own_address();
        Self::with(count, &format!("{{ bind: {bind}, ports: 21000-21999 }}"), &bind)
    }

    fn with(count: usize, egress: &str, host: &str) -> Self {
        let authority = Authority::new();
        let apps: Vec<_> = (0..count)
            .map(|number| App::start(&authority, &app(number), &[host, &name(number)]))
            .collect();
        let tls = authority.client();
        let numbers: Vec<_> = (0..count).collect();
        let text = config(egress, &apps, &numbers, "");
        let (gateway, egress) = (Gateway::with_config(&text), egress.to_owned());
        Self { gateway, apps, tls, egress }
    }

    /// Imports these of the apps from now on, and waits until that is in force.
    fn import(&self, numbers: &[usize], more: &str) {
        self.gateway.rewrite_all(&config(&self.egress, &self.apps, numbers, more));
        wait_for("the imports are those of the configuration", || {
            let status = self.gateway.status();
            let routes = status["routes"].as_array()?.len();
            (routes == numbers.len()).then_some(())
        });
    }

    /// The egress address of an app.
    fn address(&self, number: usize) -> SocketAddr {
        wait_for("the app has an egress address", || address_of(&self.gateway, &app(number)))
    }

    /// Opens a connection as a sidecar that resolved an address: without a server name.
    fn open(&self, address: SocketAddr) -> std::io::Result<Connection> {
        let stream = dial_from(ip(CALLER), address)?;
        handshake(stream, &address.ip().to_string(), &self.tls)
    }

    /// Who answers at an address.
    fn who(&self, address: SocketAddr) -> std::io::Result<String> {
        self.open(address)?.who()
    }
}

fn app(number: usize) -> String {
    format!("shop/app{number}")
}

fn name(number: usize) -> String {
    format!("app{number}.example")
}

/// A configuration that imports these of the apps from this very cluster.
fn config(egress: &str, apps: &[App], numbers: &[usize], more: &str) -> String {
    let base = BASE.replace("  admin:", &format!("  egress: {egress}\n  admin:"));
    let mut text = format!(
        "{base}{more}apps:\n  - {{ app: shop/caller, from: [{{ network: {CALLER}/32 }}] }}\n"
    );
    for (number, served) in apps.iter().enumerate() {
        writeln!(text, "  - {{ app: {}, endpoints: [\"{}\"] }}", app(number), served.address)
            .unwrap();
    }
    text.push_str("imports:\n");
    for &number in numbers {
        writeln!(
            text,
            "  - {{ app: {}, name: {}, clusters: [west], allow: [shop/caller] }}",
            app(number),
            name(number)
        )
        .unwrap();
    }
    if numbers.is_empty() { text.replace("imports:\n", "") } else { text }
}

/// What `/status` says of an app's egress address.
fn egress_of(gateway: &Gateway, app: &str) -> Option<Value> {
    let status = gateway.status();
    status["egress"].as_array()?.iter().find(|one| one["app"] == app).cloned()
}

fn address_of(gateway: &Gateway, app: &str) -> Option<SocketAddr> {
    gateway.egress(app)
}

/// What `/status` says is wrong with egress.
fn problems(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let problems = status["egress_problems"].as_array().cloned().unwrap_or_default();
    problems.iter().map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

fn ip(written: &str) -> IpAddr {
    written.parse().unwrap()
}
