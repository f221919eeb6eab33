//! The program itself, with a store that its configuration names.

use serde_json::Value;

use crate::common::gateway::Gateway;
use crate::common::wait_until;
use crate::postgresql::{init, url};
use crate::servers::{Postgresql, Redis};

const KEY: &str = "strait/apps/shop/frontend";

/// A gateway that says of a text in its store that it is no document, and of which version; and then of another that it is one.
fn follows(store: &str, write: impl Fn(&str, &str)) {
    write("garbled", "7");
    let names = "names: [\"{app}.{namespace}.example\"]";
    let gateway = Gateway::start(&format!("{names}\nallowedApps: {{ store: {{ {store} }} }}\n"));
    let source = || {
        let status = gateway.status();
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let found = sources.into_iter().find(|source| source["name"] == "allowed-apps");
        found.unwrap_or(Value::Null)
    };
    wait_until("it is told", || {
        let told = &source()["rejected"][0];
        told["key"] == KEY && told["version"] == "7"
    });
    write("{}", "8");
    wait_until("it is put right", || source()["rejected"].is_null());
}

#[test]
fn it_follows_redis() {
    let Some(redis) = Redis::start("it_follows_redis", &[]) else { return };
    let write = |text: &str, version: &str| {
        redis.cli(&["-n", "3", "SET", KEY, &format!("{text}||{version}")]);
    };
    follows(&format!("redis: {{ url: \"redis://127.0.0.1:{}/3\" }}", redis.port), write);
}

#[test]
fn it_follows_postgresql() {
    let Some(postgresql) = Postgresql::start("it_follows_postgresql") else { return };
    init(&postgresql);
    let write = |text: &str, version: &str| {
        let row = format!("('{KEY}', '{text}', '{version}')");
        postgresql.sql(&format!(
            "INSERT INTO strait_apps (key, value, version) VALUES {row}
             ON CONFLICT (key) DO UPDATE SET value = '{text}', version = '{version}'"
        ));
    };
    follows(&format!("postgresql: {{ url: \"{}\" }}", url(&postgresql)), write);
}
