//! One app in three clusters: what its callers notice when it, its host's process or a gateway fails in one of them.

#[path = "../common/mod.rs"]
mod common;

mod back;
mod callers;
mod over;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use common::app::App;
use common::authority::Authority;
use common::gateway::{BASE, Gateway};
use common::joined::own_address;
use common::process::strait;
use common::wait_for;

/// The app, by its one name in all clusters.
const ORDERS: &str = "orders.shop.mesh.example";

/// The clusters west, east and south, in each of them a gateway and the app, which says where it is. Callers are west's.
struct World {
    _folders: TempDir,
    authority: Authority,
    tls: Arc<ClientConfig>,
    /// Of west, east and south; none where it is not.
    apps: [Option<App>; 3],
    west: Gateway,
    /// The app's own address in west.
    egress: SocketAddr,
    east: Gateway,
    _south: Gateway,
}

impl World {
    /// With what west's import and configuration have besides.
    fn start(of_import: &str, more: &str) -> Self {
        Self::with(None, of_import, more)
    }

    /// The same with another endpoint in west than the app.
    fn with(own: Option<App>, of_import: &str, more: &str) -> Self {
        let folders = tempfile::tempdir().unwrap();
        let arguments = ["certs", "tls", "--trust-domain", "example.org", "west", "east", "south"];
        let made = strait(&arguments, folders.path());
        assert!(made.status.success(), "{made:?}");
        let authority = Authority::new();
        let app = |cluster| App::start(&authority, cluster, &[ORDERS]);
        let apps = [own.unwrap_or_else(|| app("west")), app("east"), app("south")];
        let base = |cluster: &str, app: &App| {
            let tls = folders.path().join("tls").join(cluster);
            format!(
                "{}link: {{ directory: {}, trustDomain: example.org }}\n\
                 names: [\"{{app}}.{{namespace}}.mesh.example\"]\n\
                 apps: [{{ app: shop/orders, endpoints: [\"{}\"] }}]\n",
                BASE.replace("west", cluster),
                tls.display(),
                app.address,
            )
        };
        let far = |cluster, app| {
            let export = "exports: [{ app: shop/orders, allow: [{ cluster: west }] }]\n";
            let clusters = "clusters: { west: {} }\n";
            Gateway::with_config(&format!("{}{clusters}{export}", base(cluster, app)))
        };
        let (east, south) = (far("east", &apps[1]), far("south", &apps[2]));
        let near = format!(
            "{}local: {{ networks: [127.0.0.0/8] }}\n\
             clusters: {{ east: {{ gateways: [\"{}\"] }}, south: {{ gateways: [\"{}\"] }} }}\n\
             imports: [{{ app: shop/orders, clusters: [west, east, south], allow: any{of_import} }}]\n{more}",
            base("west", &apps[0]),
            east.ingress(),
            south.ingress(),
        );
        let egress =
            format!("  egress: {{ bind: {}, ports: 21000-21009 }}\n  admin:", own_address());
        let west = Gateway::with_config(&near.replace("  admin:", &egress));
        let egress = wait_for("the app has an egress address", || west.egress("shop/orders"));
        let (tls, apps) = (authority.client(), apps.map(Some));
        Self { _folders: folders, authority, tls, apps, west, egress, east, _south: south }
    }

    /// Lets the app of a cluster die.
    fn kill_app(&mut self, of: usize) {
        self.apps[of] = None;
    }
}
