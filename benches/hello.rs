//! How long the hello parser takes: goals are 100 ns for a whole hello of 1.5 KB wherever its name stands, and 10 ns for each
//! record of one byte.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strait::proxy::hello::{HelloParser, Progress};

/// `limits.helloBytes` as it is by default.
const LIMIT: usize = 64 * 1024;
/// Of the name's length as Dapr's Kubernetes services have it.
const NAME: &str = "checkout-dapr.shop.svc.cluster.local";

/// A hello from the corpus, as a client sent it.
fn captured(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/hellos/cases/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("the corpus has this hello")
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("an extension fits");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
}

fn server_name() -> Vec<u8> {
    let length = u16::try_from(NAME.len()).expect("a name fits");
    let entry = [&[0][..], &length.to_be_bytes(), NAME.as_bytes()].concat();
    extension(0, &[&(length + 3).to_be_bytes()[..], &entry].concat())
}

/// A message of a hello of about 1.5 KB: the extensions of a Go client with a post-quantum key share.
fn message(name_first: bool) -> Vec<u8> {
    let mut extensions: Vec<_> = [
        (11, 2),
        (0xff01, 1),
        (18, 0),
        (5, 5),
        (10, 10),
        (13, 26),
        (50, 26),
        (16, 5),
        (43, 5),
        (51, 1258),
    ]
    .iter()
    .map(|&(kind, length)| extension(kind, &vec![7; length]))
    .collect();
    extensions.insert(if name_first { 0 } else { extensions.len() }, server_name());
    let extensions = extensions.concat();
    let length = u16::try_from(extensions.len()).expect("they fit");
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[32],
        &[8; 32],
        &26u16.to_be_bytes(),
        &[6; 26],
        &[1, 0],
        &length.to_be_bytes(),
        &extensions,
    ]
    .concat();
    let length = u32::try_from(body.len()).expect("it fits");
    [&[1][..], &length.to_be_bytes()[1..], &body].concat()
}

/// A message in records of this many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("a record fits");
        [&[22, 3, 1][..], &length.to_be_bytes(), part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

/// Whether it is a hello. The result stays where it was made, as in a connection that goes on with it.
fn whole(bytes: &[u8]) -> bool {
    let progress = HelloParser::new(LIMIT).advance(black_box(bytes));
    matches!(black_box(&progress), Progress::Hello(_))
}

fn trickling(bytes: &[u8]) -> bool {
    let mut parser = HelloParser::new(LIMIT);
    (1..=bytes.len()).any(|end| {
        let progress = parser.advance(black_box(bytes.get(..end).unwrap_or_default()));
        matches!(black_box(&progress), Progress::Hello(_))
    })
}

fn benches(criterion: &mut Criterion) {
    let first = records(&message(true), 16_384);
    let last = records(&message(false), 16_384);
    let mut group = criterion.benchmark_group("hello/whole");
    for (name, bytes) in [
        ("name first", first.clone()),
        ("name last", last.clone()),
        ("go with pq", captured("cap-go126-pq")),
        ("rustls", captured("cap-rustls023")),
        ("chrome", captured("cap-imp-chrome152")),
    ] {
        assert!(whole(&bytes));
        group.bench_function(name, |bencher| bencher.iter(|| whole(&bytes)));
    }
    group.finish();

    // Elements are records, or bytes received.
    let mut group = criterion.benchmark_group("hello/pieces");
    for (name, bytes) in [("name first", message(true)), ("name last", message(false))] {
        let bytes = records(&bytes, 1);
        assert!(whole(&bytes));
        group.throughput(Throughput::Elements(bytes.len() as u64 / 6));
        group.bench_function(format!("one-byte records, {name}"), |bencher| {
            bencher.iter(|| whole(&bytes));
        });
    }
    group.throughput(Throughput::Elements(last.len() as u64));
    group.bench_function("trickling bytes", |bencher| bencher.iter(|| trickling(&last)));
    group.finish();
}

criterion_group!(hello, benches);
criterion_main!(hello);
