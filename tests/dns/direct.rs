//! Callers that go to the other clusters by themselves (`answer: direct`), when one of these fails.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::ClientConfig;
use tempfile::TempDir;

use super::common::app::{App, call};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::certificates;
use super::common::{measured, wait_until};
use super::questions::{ask, listens};

const ORDERS: &str = "orders.shop.mesh.example";
/// What the exchange promises after a gateway was heard last, three heartbeats of 250 ms, and what a loaded machine may add.
const HEARD: Duration = Duration::from_millis(750);
const SLACK: Duration = Duration::from_secs(10);

/// West, where a caller asks for names; east and south, in each of which is the app.
struct World {
    _folder: TempDir,
    _apps: [App; 2],
    tls: Arc<ClientConfig>,
    west: Gateway,
    far: [Gateway; 2],
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["west", "east", "south"]);
        let authority = Authority::new();
        let base = |cluster: &str| {
            let tls = folder.path().join("tls").join(cluster);
            format!(
                "{}link: {{ directory: {}, trustDomain: example.org }}\n\
                 names: [\"{{app}}.{{namespace}}.mesh.example\"]\n",
                BASE.replace("west", cluster),
                tls.display()
            )
        };
        let apps = ["east", "south"].map(|cluster| App::start(&authority, cluster, &[ORDERS]));
        // By network, as nobody comes by a link; and west's gateway is told.
        let allow = "[{ cluster: west }, { network: 127.0.0.0/8 }]";
        let far = |cluster, app: &App| {
            Gateway::with_config(&format!(
                "{}clusters: {{ west: {{}} }}\n\
                 apps: [{{ app: shop/orders, endpoints: [\"{}\"] }}]\n\
                 exports: [{{ app: shop/orders, allow: {allow} }}]\n",
                base(cluster),
                app.address
            ))
        };
        let far = [far("east", &apps[0]), far("south", &apps[1])];
        let dns = "  dns: { address: \"127.0.0.1:0\", zone: mesh.example, announce: [127.0.0.1] }\n  admin:";
        let mut west = base("west").replace("  admin:", dns);
        write!(
            west,
            "local: {{ networks: [127.0.0.0/8] }}\n\
             clusters: {{ east: {{ gateways: [\"{}\"] }}, south: {{ gateways: [\"{}\"] }} }}\n\
             imports: [{{ app: shop/orders, clusters: [east, south], allow: any, answer: direct }}]\n",
            far[0].ingress(),
            far[1].ingress()
        )
        .unwrap();
        let west = Gateway::with_config(&west);
        Self { _folder: folder, _apps: apps, tls: authority.client(), west, far }
    }

    /// A call as it begins with a resolution: where the name leads to, and who answers there.
    fn resolve_and_call(&self, server: SocketAddr) -> (SocketAddr, Result<String, String>) {
        // Both gateways have the same address here and are told apart by their ports: a service record has them.
        let (_, services) = ask(server, ORDERS, "SRV");
        let port = services[0].split(' ').nth(2).unwrap().parse().unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        (at, call(at, ORDERS, &self.tls))
    }
}

#[test]
fn the_next_resolution_after_a_cluster_has_failed_leads_to_the_next_cluster() {
    for (what, signal) in [("is killed", Signal::KILL), ("hangs", Signal::STOP)] {
        let world = World::start();
        let server = listens(&world.west);
        let [east, south] = [0, 1].map(|number| world.far[number].ingress());
        wait_until("east answers", || world.resolve_and_call(server) == (east, Ok("east".into())));
        world.far[0].signal(signal);
        let failed = Instant::now();
        // One that hangs would be waited for: what counts is where a resolution leads to.
        wait_until("the name leads to south", || {
            ask(server, ORDERS, "SRV").1[0].contains(&format!(" {} ", south.port()))
        });
        let took = failed.elapsed();
        assert_eq!(world.resolve_and_call(server), (south, Ok("south".into())));
        measured(&format!(
            "a far gateway {what}: a direct caller's resolutions lead to the next cluster after {took:.0?}"
        ));
        assert!(took < HEARD + SLACK, "{took:?}");
        world.far[0].signal(Signal::KILL);
    }
}
