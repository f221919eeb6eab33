//! Callers that speak no TLS: refused with the reason, or carried where the import says so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use super::common::PATIENCE;
use super::common::app::{App, dial_from};
use super::common::gateway::{BASE, Gateway};
use super::{CALLER, address_of, ip, own_address};

/// What a daprd without mTLS begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Sends bytes and the end, and reads all that comes.
fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = dial_from(ip(CALLER), address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

fn gateway(app: &App, import: &str) -> (Gateway, SocketAddr) {
    let bind = own_address();
    let base = BASE.replace(
        "  admin:",
        &format!("  egress: {{ bind: {bind}, ports: 21000-21009 }}\n  admin:"),
    );
    let gateway = Gateway::with_config(&format!(
        "{base}apps: [{{ app: shop/plain, endpoints: [\"{}\"] }}]\n\
         imports: [{{ app: shop/plain, name: plain.example, clusters: [west], allow: any{import} }}]\n",
        app.address
    ));
    let address = address_of(&gateway, "shop/plain").unwrap();
    (gateway, address)
}

fn echo() -> App {
    App::serve("127.0.0.1:0".parse().unwrap(), |mut stream| {
        let mut writing = stream.try_clone()?;
        std::io::copy(&mut stream, &mut writing)?;
        writing.shutdown(Shutdown::Write)
    })
}

#[test]
fn plain_http_2_is_refused_with_what_to_do_unless_the_import_takes_it() {
    let app = echo();
    let (gateway, address) = gateway(&app, "");
    assert!(exchange(address, PREFACE).is_empty());
    let record = gateway.record("not_tls");
    assert_eq!(
        (&record["route"], &record["alert"]),
        (&"shop/plain".into(), &serde_json::Value::Null)
    );
    assert!(record["reason"].as_str().unwrap().contains("plain HTTP/2"), "{record}");
    assert!(record["hint"].as_str().unwrap().contains("`plaintext: true`"), "{record}");
    assert_eq!(app.accepted(), 0);
}

#[test]
fn plain_bytes_are_carried_as_they_are_where_the_import_says_so() {
    let app = echo();
    let (gateway, address) = gateway(&app, ", plaintext: true");
    for sent in [PREFACE.to_vec(), b"x".to_vec(), vec![0; 300_000]] {
        assert_eq!(exchange(address, &sent), sent);
    }
    assert_eq!(gateway.record("completed")["bytes_up"], PREFACE.len());
}

#[test]
fn what_begins_as_tls_must_be_a_whole_hello() {
    let app = echo();
    let (gateway, address) = gateway(&app, ", plaintext: true");
    let told = exchange(address, b"\x16\x03\x01\x00\x05\x02hell");
    assert_eq!(told.first(), Some(&0x15), "an alert");
    assert_eq!(gateway.record("malformed_hello")["listener"], "egress");
    assert_eq!(app.accepted(), 0);
}
