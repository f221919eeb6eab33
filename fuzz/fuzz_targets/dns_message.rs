//! The name server on any bytes: it answers with a message or with nothing, never with more than a datagram may hold, and never
//! answers its own answer.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use strait::dns::answer::{Book, Found, Reach, Transport, answer, truncated};

/// An app with as many addresses as do not fit, in a zone that is not empty above it.
struct Fixed;

impl Book for Fixed {
    fn zone(&self) -> &str {
        "mesh.example"
    }

    fn gateway(&self) -> &[IpAddr] {
        &[]
    }

    fn find(&self, name: &str) -> Found {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        match name {
            "orders.shop.mesh.example" | "orders.example" => Found::App(Reach {
                addresses: (0..=255).map(address).collect(),
                ports: (0..=255).map(|n| (address(n), 50_002)).collect(),
            }),
            "shop.mesh.example" => Found::Above,
            _ => Found::Nothing,
        }
    }

    fn is_announced(&self, address: IpAddr) -> bool {
        address.is_ipv4()
    }

    fn serial(&self) -> u32 {
        1
    }
}

fuzz_target!(|bytes: &[u8]| {
    for (over, most) in [(Transport::Udp, 1232), (Transport::Tcp, usize::from(u16::MAX))] {
        if let Some(said) = answer(bytes, over, &Fixed) {
            assert!(said.bytes.len() <= most);
            assert_eq!(said.bytes[..2], bytes[..2]);
            assert_eq!(answer(&said.bytes, over, &Fixed), None);
        }
    }
    if let Some(said) = truncated(bytes) {
        assert!(said.bytes.len() <= 512);
    }
});
