//! Inputs that a fuzzer has found, one by one: each is judged in time. What was found stands in `fuzz/corpus`, on a machine that has
//! fuzzed; the seeds of `.ci/fuzz` are tried on every machine.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strait::cluster::{preamble, reply};
use strait::config::{parse_routes_text, parse_text};
use strait::dns::answer::{self, Book, Found, Reach, Transport};
use strait::proxy::hello::{HelloParser, Progress};
use strait::proxy_protocol;

/// `limits.helloBytes` as it is by default.
const LIMIT: usize = 64 * 1024;
/// What comes from strangers.
const OF_STRANGERS: Duration = Duration::from_millis(10);
/// What the operator writes, of the 70,000 octets that `.ci/fuzz` tries at most. A debug build; an optimized one takes a tenth.
const OF_OPERATORS: Duration = Duration::from_secs(1);
/// Of so many one has to be as fast as it should be: a page fault or a cold cache is none of the input's.
const REPETITIONS: u32 = 20;

/// Processor time of this thread: what else the machine does takes none of it.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}

/// The least time that something takes, measured until it is within the bound.
fn least(bound: Duration, parse: impl Fn()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..REPETITIONS {
        let before = processor_time();
        parse();
        least = least.min(processor_time().saturating_sub(before));
        if least < bound {
            break;
        }
    }
    least
}

/// The files of a folder; none where there is no such folder.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).into_iter().flatten();
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.to_string_lossy().ends_with(ending)).collect()
}

/// Tries seeds and what was found with a target.
fn try_all(target: &str, seeds: &[PathBuf], bound: Duration, parse: impl Fn(&[u8])) {
    let found = files(&format!("fuzz/corpus/{target}"), "");
    let mut slowest = (Duration::ZERO, PathBuf::new());
    for file in seeds.iter().chain(&found) {
        let bytes = fs::read(file).unwrap();
        let took = least(bound, || parse(&bytes));
        assert!(took < bound, "{} takes {took:?}", file.display());
        slowest = slowest.max((took, file.clone()));
    }
    assert!(!seeds.is_empty());
    let _ = writeln!(
        std::io::stderr(),
        "measured: {target}: {} inputs, {} of them found by the fuzzer; the slowest takes {:?}",
        seeds.len() + found.len(),
        found.len(),
        slowest.0
    );
}

fn parse_hello(bytes: &[u8]) {
    let _ = HelloParser::new(LIMIT).advance(bytes);
    // In segments of a narrow path, as a connection drives it.
    let mut parser = HelloParser::new(LIMIT);
    let mut ends = (0..bytes.len()).step_by(500).chain([bytes.len()]);
    let _ = ends.find(|&end| parser.advance(&bytes[..end]) != Progress::NeedMore);
}

#[test]
fn no_hello_takes_long() {
    try_all("hello", &files("tests/hellos/cases", ".bin"), OF_STRANGERS, parse_hello);
}

#[test]
fn the_longest_hello_in_the_smallest_pieces_does_not_take_long() {
    // A record for each octet (RFC 8446 §5.1 allows it), and each octet by itself: a hello of 10,900, all but the last ten.
    let [high, low] = 10_896_u16.to_be_bytes();
    let body = [&[1, 0, high, low, 3, 3][..], &[7; 32], &[0], &[0x2a, 0x60]].concat();
    let octets = body.iter().copied().chain(std::iter::repeat(0x13)).take(10_890);
    let bytes: Vec<u8> = octets.flat_map(|octet| [0x16, 3, 1, 0, 1, octet]).collect();
    let took = least(OF_STRANGERS, || {
        let mut parser = HelloParser::new(LIMIT);
        (1..bytes.len())
            .for_each(|end| assert_eq!(parser.advance(&bytes[..end]), Progress::NeedMore));
    });
    let _ = writeln!(std::io::stderr(), "measured: {} octets, one by one: {took:?}", bytes.len());
    // Each octet costs a packet and a read besides, which are far more.
    assert!(took < 10 * OF_STRANGERS, "{took:?}");
}

#[test]
fn no_proxy_header_takes_long() {
    let seeds = files("tests/hellos/cases", ".bin");
    try_all("proxy_header", &seeds, OF_STRANGERS, |bytes| {
        let _ = proxy_protocol::parse(bytes);
    });
}

#[test]
fn no_preamble_takes_long() {
    let seeds = [files("fuzz/seeds/preamble", ""), files("tests/hellos/cases", ".bin")].concat();
    try_all("preamble", &seeds, OF_STRANGERS, |bytes| drop(preamble::parse(bytes)));
}

#[test]
fn the_longest_preamble_in_the_smallest_pieces_does_not_take_long() {
    // 1,350 values of no octet and of a type that is passed over, behind what must be there; a piece for each octet.
    let ends = [192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 32, 251];
    let values: Vec<u8> =
        b"\x05\0\0\xe0\0\x01\x01".iter().copied().chain([0xef, 0, 0].repeat(1350)).collect();
    let length = u16::try_from(ends.len() + values.len()).unwrap().to_be_bytes();
    let bytes = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &ends, &values].concat();
    let took = least(OF_STRANGERS, || {
        for end in 1..bytes.len() {
            assert!(
                matches!(preamble::parse(&bytes[..end]), preamble::Progress::NeedMore(_)),
                "{end}"
            );
        }
        assert!(matches!(preamble::parse(&bytes), preamble::Progress::Whole { .. }));
    });
    let _ = writeln!(std::io::stderr(), "measured: {} octets, one by one: {took:?}", bytes.len());
    assert!(took < 10 * OF_STRANGERS, "{took:?}");
}

#[test]
fn no_reply_takes_long() {
    let seeds = [files("fuzz/seeds/reply", ""), files("tests/hellos/cases", ".bin")].concat();
    try_all("reply", &seeds, OF_STRANGERS, |bytes| drop(reply::parse(bytes)));
}

/// An app with more addresses than fit into the shortest answer.
struct Fixed;

impl Book for Fixed {
    fn zone(&self) -> &'static str {
        "mesh.example"
    }

    fn gateway(&self) -> &[IpAddr] {
        &[]
    }

    fn find(&self, name: &str) -> Found {
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        match name {
            "orders.shop.mesh.example" | "orders.example" => Found::App(Reach {
                addresses: (0..40).map(address).collect(),
                ports: (0..40).map(|number| (address(number), 50_002)).collect(),
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

#[test]
fn no_dns_message_takes_long() {
    let seeds = [files("fuzz/seeds/dns_message", ""), files("tests/hellos/cases", ".bin")].concat();
    try_all("dns_message", &seeds, OF_STRANGERS, |bytes| {
        for over in [Transport::Udp, Transport::Tcp] {
            let _ = answer::answer(bytes, over, &Fixed);
        }
        let _ = answer::truncated(bytes);
    });
}

#[test]
fn no_configuration_takes_long() {
    try_all("config", &files("config", ".yaml"), OF_OPERATORS, |text| {
        if let Err(problems) = parse_text(Path::new("fuzz.yaml"), text) {
            for problem in problems {
                let _ = problem.to_string();
            }
        }
    });
}

#[test]
fn no_routes_file_takes_long() {
    // A hello is as wrong as a seed may be.
    let seeds = [files("fuzz/seeds/routes_file", ""), files("tests/hellos/cases", ".bin")].concat();
    try_all("routes_file", &seeds, OF_OPERATORS, |text| {
        if let Err(problems) = parse_routes_text(Path::new("fuzz.map"), text) {
            for problem in problems {
                let _ = problem.to_string();
            }
        }
    });
}
