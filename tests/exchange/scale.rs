//! Twenty clusters with two hundred apps each, all imported by one gateway.

use std::time::Instant;

use rustix::process::Signal;

use super::common::gateway::Gateway;
use super::common::{measured, wait_until};
use super::{Folders, health, source};

const CLUSTERS: usize = 20;
const APPS: usize = 200;
/// For how long traffic is counted, in seconds.
const WATCHED: u64 = 10;

#[test]
#[ignore = "starts 21 gateways"]
fn twenty_gateways_with_two_hundred_apps_each() {
    let names: Vec<_> = (0..CLUSTERS).map(|number| format!("c{number}")).collect();
    let mut clusters: Vec<_> = names.iter().map(String::as_str).collect();
    clusters.push("west");
    let folders = Folders::of(&clusters);
    let apps = |cluster: &str| -> Vec<String> {
        (0..APPS).map(|number| format!("{cluster}/app-{number}")).collect()
    };
    let at = "192.0.2.1:50002".parse().unwrap();
    let gateways: Vec<_> = names
        .iter()
        .map(|cluster| {
            let apps = apps(cluster);
            let exports: Vec<_> = apps.iter().map(|app| (app.as_str(), "west")).collect();
            Gateway::with_config(&folders.exporter(cluster, at, &exports))
        })
        .collect();
    let peers: Vec<_> = names
        .iter()
        .zip(&gateways)
        .map(|(name, gateway)| (name.as_str(), gateway.ingress()))
        .collect();
    let import = |name: &String| format!("{{ app: \"{name}/*\", clusters: [{name}], allow: any }}");
    let imports: Vec<_> = names.iter().map(import).collect();
    let text = folders.importer(&peers, &format!("[{}]", imports.join(", ")));
    let since = Instant::now();
    let west = Gateway::with_config(&text);
    wait_until("every app is known", || {
        names.iter().all(|name| source(&west, name)["apps"] == APPS)
            && west.status()["names"] == CLUSTERS * APPS
    });
    let started = since.elapsed();

    let bytes = || -> u64 {
        gateways.iter().map(|east| east.metric("strait_bytes_total", &["route=\"exchange\""])).sum()
    };
    let (before, since, cpu) = (bytes(), Instant::now(), west.cpu_time());
    wait_until("time to count", || since.elapsed().as_secs() >= WATCHED);
    #[expect(clippy::cast_precision_loss, reason = "it is told, not counted on")]
    let rate = (bytes() - before) as f64 / since.elapsed().as_secs_f64();
    let cpu = (west.cpu_time() - cpu) / since.elapsed().as_secs_f64();
    let resident = west.resident() >> 20;
    measured(&format!(
        "20 gateways with 200 apps each: all known {started:?} after the start, {resident} MiB, {rate:.0} bytes/s of exchange inside its links, {:.1} % of a core",
        cpu * 100.0
    ));

    gateways[0].signal(Signal::KILL);
    let since = Instant::now();
    wait_until("the lost cluster's apps are unhealthy", || health(&west, "c0/app-0") == "down");
    measured(&format!("one of them lost: its apps are unhealthy {:?} later", since.elapsed()));
    assert_eq!(health(&west, "c1/app-0"), "healthy");
    assert_eq!(west.status()["names"], CLUSTERS * APPS, "what it said last stays");
}
