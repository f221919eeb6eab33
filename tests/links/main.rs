//! Two gateways with certificates: calls that cross between them, and those that must not.

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/grpc.rs"]
mod grpc;
#[path = "../common/hello.rs"]
mod hello;

mod apart;
mod between;
mod callers;
mod certificates;
mod crossing;
mod hostile;
mod many;
mod refusals;
mod renamed;
mod rotation;
mod two_clusters;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use common::app::{self, App};
use common::authority::Authority;
use common::gateway::{BASE, Gateway};
use common::process::certificates;

/// The app that west imports from east, by its name there and here.
const ORDERS: &str = "orders.shop.mesh.example";

/// Where callers of the cluster west come from: one that is known as shop/frontend, and one that is known as nobody.
const FRONTEND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

/// What an app of east's is exported by.
const EXPORT: &str = "exports: [{ app: shop/orders, allow: [{ cluster: west }] }]\n";
/// What west imports it by.
const IMPORT: &str = "imports: [{ app: shop/orders, clusters: [east], allow: any }]\n";

/// Folders with certificates of `strait certs`, for west and east.
struct Folders(TempDir);

impl Folders {
    fn new() -> Self {
        let folders = Self(tempfile::tempdir().unwrap());
        certificates(folders.0.path(), &["west", "east"]);
        folders
    }

    fn of(&self, cluster: &str) -> PathBuf {
        self.0.path().join("tls").join(cluster)
    }
}

/// The apps of a test: what a caller trusts, and `orders`, which has a certificate for its name.
struct Apps {
    tls: Arc<ClientConfig>,
    orders: App,
}

impl Apps {
    fn start() -> Self {
        let authority = Authority::new();
        Self { tls: authority.client(), orders: App::start(&authority, "orders", &[ORDERS]) }
    }

    /// Who answers a caller of west's that nobody knows.
    fn call(&self, gateway: &Gateway) -> Result<String, String> {
        self.call_from(NOBODY, gateway)
    }

    fn call_from(&self, source: IpAddr, gateway: &Gateway) -> Result<String, String> {
        app::call_from(source, gateway.ingress(), ORDERS, &self.tls)
    }
}

/// What a gateway of `cluster` has in its configuration in any case.
fn base(cluster: &str, certificates: &Path) -> String {
    let link =
        format!("link: {{ directory: {}, trustDomain: example.org }}\n", certificates.display());
    let names = "names: [\"{app}.{namespace}.mesh.example\"]\n";
    format!("{}{link}{names}", BASE.replace("west", cluster))
}

/// East: the app, and more.
fn east(certificates: &Path, orders: SocketAddr, more: &str) -> String {
    let apps = format!("apps: [{{ app: shop/orders, endpoints: [\"{orders}\"] }}]\n");
    format!("{}{apps}clusters: {{ west: {{}} }}\n{more}", base("east", certificates))
}

/// West: callers, the gateway of east, and more.
fn west(certificates: &Path, gateway: SocketAddr, more: &str) -> String {
    let local = "local: { networks: [127.0.0.0/8] }\n";
    let apps = format!("apps: [{{ app: shop/frontend, from: [{{ network: {FRONTEND}/32 }}] }}]\n");
    let clusters = format!("clusters: {{ east: {{ gateways: [\"{gateway}\"] }} }}\n");
    format!("{}{local}{apps}{clusters}{more}", base("west", certificates))
}

/// Two gateways that are joined, and what is behind them.
struct Pair {
    folders: Folders,
    apps: Apps,
    east: Gateway,
    west: Gateway,
}

impl Pair {
    fn start() -> Self {
        Self::with(EXPORT, IMPORT)
    }

    /// With what each of them has besides.
    fn with(of_east: &str, of_west: &str) -> Self {
        let (folders, apps) = (Folders::new(), Apps::start());
        let east = Gateway::with_config(&east(&folders.of("east"), apps.orders.address, of_east));
        let west = Gateway::with_config(&west(&folders.of("west"), east.ingress(), of_west));
        Self { folders, apps, east, west }
    }
}
