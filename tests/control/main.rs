//! The gateway under its operator's hands: files that change, signals, commands, and what it says of itself.

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod discovery;
mod listeners;
mod proxy_header;
mod records;
mod reload;
mod state;
mod stopping;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use common::app::{self, App};
use common::authority::Authority;
use common::gateway::Gateway;

/// Two apps, `alpha` and `beta`, each of which has a certificate for every name of these tests.
struct Apps {
    tls: Arc<ClientConfig>,
    alpha: App,
    beta: App,
}

impl Apps {
    fn start() -> Self {
        let authority = Authority::new();
        let names =
            ["one.example", "two.example", "*.below.example", "stable.example", "*.moving.example"];
        let start = |app| App::start(&authority, app, &names);
        Self { tls: authority.client(), alpha: start("alpha"), beta: start("beta") }
    }

    /// Which app answers to a name, or with which alert the gateway refuses.
    fn call(&self, ingress: SocketAddr, name: &str) -> Result<String, String> {
        app::call(ingress, name, &self.tls)
    }
}

/// A `routes` section with these names and endpoints.
fn routes(routes: &[(&str, &App)]) -> String {
    let line = |(name, app): &(&str, &App)| {
        format!("  - {{ name: {name}, endpoints: [\"{}\"] }}\n", app.address)
    };
    format!("routes:\n{}", routes.iter().map(line).collect::<String>())
}

/// Waits until a name leads to an app.
fn wait_for_app(apps: &Apps, gateway: &Gateway, name: &str, app: &str) {
    let ingress = gateway.ingress();
    common::wait_until(&format!("{name} leads to {app}"), || {
        apps.call(ingress, name).is_ok_and(|who| who == app)
    });
}
