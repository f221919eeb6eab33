//! PROXY protocol headers: from a balancer in front, and to the app behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;

use ppp::v2;

use super::Apps;
use super::common::PATIENCE;
use super::common::app::{App, handshake};
use super::common::gateway::Gateway;

/// A gateway whose listener at 127.0.0.1 trusts the PROXY headers of its neighbours. Only clients of 192.0.2.0/24 may use the
/// route.
fn gateway(apps: &Apps) -> Gateway {
    Gateway::with_config(&format!(
        "\
cluster: west
listeners:
  ingress: [{{ address: \"127.0.0.1:0\", proxyProtocol: {{ from: [127.0.0.0/8] }} }}]
  admin: {{ address: \"unix:{{folder}}/admin.sock\" }}
routes:
  - {{ name: one.example, endpoints: [\"{}\"], allow: [{{ network: 192.0.2.0/24 }}] }}
",
        apps.alpha.address
    ))
}

/// A header of version 2 for TCP over IPv4 (haproxy's `proxy-protocol.txt` §2.2).
fn version_2(source: Ipv4Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(source.octets());
    header.extend([198, 51, 100, 1]);
    header.extend(1234u16.to_be_bytes());
    header.extend(443u16.to_be_bytes());
    header
}

fn version_1(source: Ipv4Addr) -> Vec<u8> {
    format!("PROXY TCP4 {source} 198.51.100.1 1234 443\r\n").into_bytes()
}

#[test]
fn the_client_that_a_trusted_header_names_is_judged() {
    let apps = Apps::start();
    let gateway = gateway(&apps);
    let (admitted, denied) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(203, 0, 113, 7));
    for header in [version_1, version_2] {
        let call = |source| {
            let mut stream = TcpStream::connect(gateway.ingress()).unwrap();
            stream.write_all(&header(source)).unwrap();
            handshake(stream, "one.example", &apps.tls).and_then(|mut connection| connection.who())
        };
        assert_eq!(call(admitted).unwrap(), "alpha");
        call(denied).unwrap_err();
    }
    gateway.record("denied");
}

#[test]
fn a_header_that_is_missing_or_broken_is_refused() {
    let apps = Apps::start();
    let gateway = gateway(&apps);
    apps.call(gateway.ingress(), "one.example").unwrap_err();
    let mut stream = TcpStream::connect(gateway.ingress()).unwrap();
    stream.write_all(b"PROXY TCP4 not-an-address 198.51.100.1 1 2\r\n").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    super::common::wait_until("two records", || {
        let records = gateway.records();
        records.iter().filter(|record| record["ending"] == "bad_proxy_header").count() == 2
    });
}

#[test]
fn an_app_that_asks_for_it_learns_the_client_and_the_name() {
    let apps = Apps::start();
    let (send, received) = mpsc::channel();
    let listening = App::serve("127.0.0.1:0".parse().unwrap(), move |mut stream| {
        let mut bytes = vec![0; 2048];
        let mut length = 0;
        // The header comes in one piece with the hello behind it, or in front of it.
        while length < 16 || length < 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) {
            length += stream.read(&mut bytes[length..])?;
        }
        bytes.truncate(length);
        let _ = send.send(bytes);
        Ok(())
    });
    let gateway = Gateway::start(&format!(
        "routes:\n  - {{ name: one.example, endpoints: [\"{}\"], sendProxy: v2 }}\n",
        listening.address
    ));
    let stream = TcpStream::connect(gateway.ingress()).unwrap();
    let client = stream.local_addr().unwrap();
    handshake(stream, "One.Example", &apps.tls).map(drop).unwrap_err();
    let bytes = received.recv_timeout(PATIENCE).unwrap();
    let header = v2::Header::try_from(bytes.as_slice()).unwrap();
    let v2::Addresses::IPv4(addresses) = header.addresses else { panic!("{header:?}") };
    let source = SocketAddr::new(addresses.source_address.into(), addresses.source_port);
    assert_eq!(source, client);
    let value = |kind: v2::Type| {
        let kind = u8::from(kind);
        header.tlvs().flatten().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value.to_vec())
    };
    assert_eq!(value(v2::Type::Authority).unwrap(), b"one.example");
    assert!(!value(v2::Type::UniqueId).unwrap().is_empty());
}
