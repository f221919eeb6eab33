//! Which app may call what, as documents say: west, whose apps call, and two clusters that export to it.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod api;
mod commands;
mod configured;
mod enforced;
mod garbled;
mod restart;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;

use common::app::{self, App};
use common::authority::Authority;
use common::gateway::{BASE, Gateway};
use common::process::certificates;
use common::wait_until;

/// Where the callers of west are: two apps, and one that is none.
const FRONTEND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const BATCH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));

const ORDERS: &str = "orders.shop.mesh.example";
const STOCK: &str = "stock.shop.mesh.example";

/// The settings of a store in a folder beside west's configuration.
const STORE: &str = "store: { file: { directory: allowed } }";

/// East and south, which export the same apps, west, and a folder of documents.
struct World {
    _certificates: TempDir,
    tls: Arc<ClientConfig>,
    _apps: [App; 2],
    others: [Gateway; 2],
    west: Gateway,
    base: String,
}

impl World {
    /// With what west has besides, and documents that are there from the start.
    fn start(more: &str, documents: &[(&str, &str)]) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        certificates(folder.path(), &["west", "east", "south"]);
        let names = [ORDERS, STOCK, "127.0.0.1"];
        let apps = ["east", "south"].map(|cluster| App::start(&authority, cluster, &names));
        let exporter = |(cluster, app): (&str, &App)| {
            let app_at =
                |id: &str| format!("{{ app: shop/{id}, endpoints: [\"{}\"] }}", app.address);
            let export = |id: &str| format!("{{ app: shop/{id}, allow: [{{ cluster: west }}] }}");
            Gateway::with_config(&format!(
                "{}clusters: {{ west: {{}} }}\napps: [{}, {}]\nexports: [{}, {}]\n",
                base(cluster, &folder.path().join("tls").join(cluster)),
                app_at("orders"),
                app_at("stock"),
                export("orders"),
                export("stock"),
            ))
        };
        let others = [exporter(("east", &apps[0])), exporter(("south", &apps[1]))];
        let base = importer(&folder.path().join("tls/west"), &others);
        let west = Gateway::in_folder(tempfile::tempdir().unwrap(), "strait.yaml", |folder| {
            fs::create_dir(folder.join("allowed")).unwrap();
            for (caller, says) in documents {
                fs::write(folder.join("allowed").join(file(caller)), says).unwrap();
            }
            let text = common::gateway::filled(&format!("{base}{more}"), folder);
            fs::write(folder.join("strait.yaml"), text).unwrap();
        });
        Self { _certificates: folder, tls: authority.client(), _apps: apps, others, west, base }
    }

    /// Writes a document as a `ConfigMap`'s update does: whole.
    fn allow(&self, caller: &str, says: &str) {
        let folder = self.west.folder().join("allowed");
        fs::write(folder.join(".new"), says).unwrap();
        fs::rename(folder.join(".new"), folder.join(file(caller))).unwrap();
    }

    fn remove(&self, caller: &str) {
        fs::remove_file(self.west.folder().join("allowed").join(file(caller))).unwrap();
    }

    /// The cluster that answers, or what comes instead.
    fn call(&self, source: IpAddr, name: &str) -> Result<String, String> {
        app::call_from(source, self.west.ingress(), name, &self.tls)
    }

    fn waits_for(&self, source: IpAddr, name: &str, cluster: &str) {
        wait_until(&format!("{source} reaches {name} in {cluster}"), || {
            self.call(source, name).is_ok_and(|who| who == cluster)
        });
    }

    fn waits_for_refusal(&self, source: IpAddr, name: &str) {
        wait_until(&format!("{source} is refused at {name}"), || self.call(source, name).is_err());
    }

    /// What the source of documents says of itself.
    fn source(&self) -> Value {
        let status = self.west.status();
        let sources = status["sources"].as_array().unwrap();
        sources.iter().find(|source| source["name"] == "allowed-apps").cloned().unwrap_or_default()
    }

    /// Waits for a record with this ending and reason.
    fn waits_for_reason(&self, ending: &str, reason: &str) {
        wait_until(reason, || {
            let records = self.west.records();
            records.iter().any(|it| it["ending"] == ending && it["reason"] == reason)
        });
    }
}

fn file(caller: &str) -> String {
    format!("{}.json", caller.replace('/', "."))
}

fn base(cluster: &str, certificates: &Path) -> String {
    let link =
        format!("link: {{ directory: {}, trustDomain: example.org }}\n", certificates.display());
    let names = "names: [\"{app}.{namespace}.mesh.example\"]\n";
    format!("{}{link}{names}", BASE.replace("west", cluster))
}

fn importer(certificates: &Path, others: &[Gateway; 2]) -> String {
    let [east, south] = others.each_ref().map(Gateway::ingress);
    let gateway = |at: SocketAddr| format!("{{ gateways: [\"{at}\"] }}");
    let from =
        |app: &str, at: IpAddr| format!("{{ app: shop/{app}, from: [{{ network: {at}/32 }}] }}");
    format!(
        "{}local: {{ networks: [127.0.0.0/8] }}\napps: [{}, {}]\n\
         clusters:\n  south: {}\n  east: {}\n",
        base("west", certificates),
        from("frontend", FRONTEND),
        from("batch", BATCH),
        gateway(south),
        gateway(east)
    )
}
