//! How long a message takes there and back on an open connection, directly and through a gateway: alone, and with 64 on their way.
#![allow(missing_docs, reason = "criterion's macros make public items without docs")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load/mod.rs"]
mod load;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use gateway::Bench;
use load::connections::Until;
use load::round_trips::RoundTrips;

/// Connections that are open.
const OPEN: usize = 64;

fn round_trip(criterion: &mut Criterion) {
    let bench = Bench::start();
    let mut group = criterion.benchmark_group("round_trip");
    group.throughput(Throughput::Elements(1));
    for (way, name) in [(bench.direct(), "direct"), (bench.through(), "strait")] {
        for (busy, size) in [(1, 128), (OPEN, 128), (OPEN, 1024)] {
            let mut trips = RoundTrips::open(way, OPEN, busy, size).unwrap();
            group.bench_function(format!("{name}, {size} B, {busy} busy"), |bencher| {
                bencher.iter_custom(|count| trips.run(Until::Done(count)).unwrap().took);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
