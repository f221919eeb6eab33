//! PROXY headers, from who comes and for who is dialled.

use super::*;

on_both_forms! {
    a_header_tells_the_source_of_those_who_must_send_one
    an_endpoint_can_get_a_header_with_name_and_id
    a_header_has_a_deadline_of_its_own
}

fn a_header_tells_the_source_of_those_who_must_send_one() {
    let (endpoint, address) = listen();
    let listener =
        Ingress { address: any_port(), proxy_from: vec!["127.0.0.0/8".parse().unwrap()] };
    let gateway = Gateway::start(Limits::default(), listener);
    let rule = AllowRule::Network("192.0.2.0/24".parse().unwrap());
    gateway.publish(vec![RouteSpec { allow: Allow::Rules(vec![rule]), ..route(&[address]) }]);
    let header =
        |source: &str| format!("PROXY TCP4 {source} 192.0.2.99 4711 8443\r\n").into_bytes();

    let _client = gateway.send(&[header("192.0.2.7"), hello(NAME, 1)].concat());
    let mut served = accept(&endpoint);
    assert_eq!(read(&mut served, hello(NAME, 1).len()), hello(NAME, 1), "without the header");

    let mut client = gateway.send(&[header("198.51.100.1"), hello(NAME, 2)].concat());
    assert_eq!(rest(&mut client).unwrap(), alert(Alert::UnrecognizedName));
    gateway.expect(Ending::Denied, 1);

    let mut client = gateway.send(&hello(NAME, 3));
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::BadProxyHeader, 1);
}

fn an_endpoint_can_get_a_header_with_name_and_id() {
    let (endpoint, address) = listen();
    let gateway = Gateway::with(vec![RouteSpec { send_proxy: true, ..route(&[address]) }]);
    let client = gateway.send(&hello(NAME, 1));
    let source = client.local_addr().unwrap();
    client.shutdown(Half::Write).unwrap();
    let mut served = accept(&endpoint);
    let came = rest(&mut served).unwrap();
    let header =
        came.strip_suffix(&hello(NAME, 1)[..]).expect("the hello stands behind the header");
    let parsed = ppp::v2::Header::try_from(header).unwrap();
    let expected = ppp::v2::IPv4::new(
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::LOCALHOST,
        source.port(),
        gateway.address.port(),
    );
    assert_eq!(parsed.addresses, ppp::v2::Addresses::IPv4(expected));
    let tlvs: Vec<_> = parsed.tlvs().map(Result::unwrap).collect();
    assert!(tlvs.iter().any(|tlv| tlv.kind == 2 && *tlv.value == *NAME.as_bytes()));
    assert!(tlvs.iter().any(|tlv| tlv.kind == 5 && tlv.value.len() == 16));
}

fn a_header_has_a_deadline_of_its_own() {
    let listener =
        Ingress { address: any_port(), proxy_from: vec!["127.0.0.0/8".parse().unwrap()] };
    let limits = Limits { hello_timeout: Duration::from_hours(1), ..Limits::default() };
    let gateway = Gateway::start(limits, listener);
    let mut client = gateway.send(b"PROXY TCP4 192.0.2.7 ");
    assert_eq!(rest(&mut client).unwrap(), b"");
    gateway.expect(Ending::BadProxyHeader, 1);
}
