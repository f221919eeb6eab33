//! Egress addresses that lead to another cluster: with any server name, with none, and in plain text.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use tempfile::TempDir;

use super::common::PATIENCE;
use super::common::app::{App, dial_from, handshake};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::certificates;
use super::{CALLER, address_of, ip, own_address};

/// West, with an egress address for an app of east's, and east. What each says of the app besides.
struct Pair {
    _certificates: TempDir,
    west: Gateway,
    east: Gateway,
    address: SocketAddr,
}

impl Pair {
    fn start(app: &App, import: &str, export: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["west", "east"]);
        let link = |cluster: &str| {
            let tls = folder.path().join("tls").join(cluster);
            format!("link: {{ directory: {}, trustDomain: example.org }}\n", tls.display())
        };
        let east = Gateway::with_config(&format!(
            "{}{}clusters: {{ west: {{}} }}\napps: [{{ app: shop/orders, endpoints: [\"{}\"] }}]\n\
             exports: [{{ app: shop/orders, name: orders.example, allow: [{{ cluster: west }}]{export} }}]\n",
            BASE.replace("west", "east"),
            link("east"),
            app.address
        ));
        let egress =
            format!("  egress: {{ bind: {}, ports: 21000-21009 }}\n  admin:", own_address());
        let west = Gateway::with_config(&format!(
            "{}{}clusters: {{ east: {{ gateways: [\"{}\"] }} }}\n\
             imports: [{{ app: shop/orders, name: orders.example, clusters: [east], allow: any{import} }}]\n",
            BASE.replace("  admin:", &egress),
            link("west"),
            east.ingress()
        ));
        let address = address_of(&west, "shop/orders").unwrap();
        Self { _certificates: folder, west, east, address }
    }

    /// Sends bytes and the end, and reads all that comes.
    fn exchange(&self, sent: &[u8]) -> Vec<u8> {
        let mut stream = dial_from(ip(CALLER), self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    }
}

fn echo() -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        let mut writing = stream.try_clone()?;
        std::io::copy(&mut stream, &mut writing)?;
        writing.shutdown(Shutdown::Write)
    })
}

#[test]
fn a_caller_crosses_without_a_server_name_and_with_any() {
    let authority = Authority::new();
    let app = App::start(&authority, "orders", &["127.0.0.1", "other.example", "orders.example"]);
    let pair = Pair::start(&app, "", "");
    for name in ["127.0.0.1", "other.example", "orders.example"] {
        let stream = dial_from(ip(CALLER), pair.address).unwrap();
        let mut connection = handshake(stream, name, &authority.client()).unwrap();
        assert_eq!(connection.who().unwrap(), "orders", "{name}");
    }
    let record = pair.west.record("completed");
    assert_eq!((&record["listener"], &record["via"]), (&"egress".into(), &"east".into()));
    assert_eq!(pair.east.record("completed")["cluster"], "west");
}

#[test]
fn plain_bytes_cross_where_import_and_export_say_so() {
    let app = echo();
    let pair = Pair::start(&app, ", plaintext: true", ", plaintext: true");
    for sent in [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), b"x".to_vec(), vec![0; 300_000]] {
        assert_eq!(pair.exchange(&sent), sent);
    }
}

#[test]
fn plain_bytes_do_not_cross_where_only_the_import_says_so() {
    let app = echo();
    let pair = Pair::start(&app, ", plaintext: true", "");
    assert!(pair.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").is_empty());
    let record = pair.west.record("refused_by_far");
    assert!(record["reason"].as_str().unwrap().contains("takes no plain bytes"), "{record}");
    let record = pair.east.record("denied");
    assert!(record["hint"].as_str().unwrap().contains("`plaintext: true`"), "{record}");
    assert_eq!(app.accepted(), 0);
}
