//! How fast bulk flows, directly and through a gateway: 1 and 8 streams, up and down.
#![allow(missing_docs, reason = "criterion's macros make public items without docs")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load/mod.rs"]
mod load;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use gateway::Bench;
use load::streams::{self, Direction};

/// Octets of one iteration, over all streams. Smaller in the smoke test, which is not optimised.
const MEASURED: u64 = 64 << 20;
const TRIED: u64 = 2 << 20;

fn throughput(criterion: &mut Criterion) {
    let bench = Bench::start();
    let octets = if gateway::measures() { MEASURED } else { TRIED };
    let mut group = criterion.benchmark_group("throughput");
    group.throughput(Throughput::Bytes(octets));
    group.sample_size(10);
    for (way, name) in [(bench.direct(), "direct"), (bench.through(), "strait")] {
        for (count, direction) in
            [(1, Direction::Up), (1, Direction::Down), (8, Direction::Up), (8, Direction::Down)]
        {
            group.bench_function(format!("{name}, {direction:?}, {count} streams"), |bencher| {
                bencher.iter_custom(|times| {
                    streams::run(way, count, direction, times * octets / count as u64).unwrap().took
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
