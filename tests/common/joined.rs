//! Two clusters that are joined: west, where the callers are, and east, where the app is. Callers come to it by its name at west's
//! ingress listener, or by its egress address; west's name server knows it.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use super::gateway::{BASE, Gateway};
use super::process::certificates;
use super::{PATIENCE, wait_for};

/// The app, and the name by which it is called in both clusters.
pub(crate) const APP: &str = "shop/orders";
pub(crate) const NAME: &str = "orders.example";

/// An address of the loopback network that no other test has, and no other run of this one.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{}", 64 + high % 128, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What stands in the configurations besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct More<'a> {
    /// In the import's braces, and the export's.
    pub(crate) import: &'a str,
    pub(crate) export: &'a str,
    /// At the end of the files.
    pub(crate) west: &'a str,
    pub(crate) east: &'a str,
}

/// The two gateways.
pub(crate) struct Joined {
    /// With the certificates.
    pub(crate) folder: TempDir,
    app: SocketAddr,
    pub(crate) west: Gateway,
    pub(crate) east: Gateway,
    /// The app's own address in west.
    pub(crate) egress: SocketAddr,
}

impl Joined {
    pub(crate) fn start(app: SocketAddr, more: &More<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["west", "east"]);
        let (east, bind) = (Gateway::with_config(&east(&folder, app, more)), own_address());
        let west = Gateway::with_config(&west(&folder, &bind, &[east.ingress()], more));
        let egress = wait_for("the app has an egress address", || west.egress(APP));
        Self { folder, app, west, east, egress }
    }

    /// East's configuration as it was at first.
    pub(crate) fn east_text(&self) -> String {
        east(&self.folder, self.app, &More::default())
    }

    /// Where west's name server listens.
    pub(crate) fn name_server(&self) -> SocketAddr {
        let status = self.west.status();
        let listeners = status["listeners"].as_array().unwrap();
        let dns = listeners.iter().find(|listener| listener["kind"] == "dns").unwrap();
        dns["bound"].as_str().unwrap().parse().unwrap()
    }

    /// Writes west's configuration anew.
    pub(crate) fn rewrite_west(&self, more: &More<'_>) {
        let (bind, gateways) = (self.egress.ip().to_string(), [self.east.ingress()]);
        self.west.rewrite_all(&west(&self.folder, &bind, &gateways, more));
    }

    /// Writes east's configuration anew.
    pub(crate) fn rewrite_east(&self, more: &More<'_>) {
        self.east.rewrite_all(&east(&self.folder, self.app, more));
    }
}

fn link(folder: &TempDir, cluster: &str) -> String {
    let tls = folder.path().join("tls").join(cluster);
    format!("link: {{ directory: {}, trustDomain: example.org }}\n", tls.display())
}

/// East: the app, and who may call it.
pub(crate) fn east(folder: &TempDir, app: SocketAddr, more: &More<'_>) -> String {
    format!(
        "{}{}clusters: {{ west: {{}} }}\napps: [{{ app: {APP}, endpoints: [\"{app}\"] }}]\n\
         exports: [{{ app: {APP}, name: {NAME}, allow: [{{ cluster: west }}]{} }}]\n{}",
        BASE.replace("west", "east"),
        link(folder, "east"),
        more.export,
        more.east
    )
}

/// West, with egress addresses at `bind`, which knows these gateways of east.
pub(crate) fn west(
    folder: &TempDir,
    bind: &str,
    gateways: &[SocketAddr],
    more: &More<'_>,
) -> String {
    let listeners = format!(
        "  egress: {{ bind: {bind}, ports: 21000-21009 }}\n  \
         dns: {{ address: \"127.0.0.1:0\", zone: example, announce: [127.0.0.1] }}\n  admin:"
    );
    let gateways: Vec<_> = gateways.iter().map(|at| format!("\"{at}\"")).collect();
    format!(
        "{}{}local: {{ networks: [127.0.0.0/8] }}\nclusters: {{ east: {{ gateways: [{}] }} }}\n\
         imports: [{{ app: {APP}, name: {NAME}, clusters: [east], allow: any{} }}]\n{}",
        BASE.replace("  admin:", &listeners),
        link(folder, "west"),
        gateways.join(", "),
        more.import,
        more.west
    )
}

/// Whether a name server knows the app's address.
pub(crate) fn name_is_answered(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // One question (RFC 1035 §4.1): orders.example, A, IN.
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06orders\x07example\0\0\x01\0\x01";
    socket.send_to(question, server).unwrap();
    let mut answer = [0; 512];
    socket.recv(&mut answer).unwrap() > question.len() && answer[7] == 1
}
