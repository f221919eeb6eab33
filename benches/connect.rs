//! How long a connection takes from its first SYN to the backend's answer to its hello, directly and through a gateway.
#![allow(missing_docs, reason = "criterion's macros make public items without docs")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load/mod.rs"]
mod load;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use gateway::Bench;
use load::connections::{self, Until};

fn connect(criterion: &mut Criterion) {
    let bench = Bench::start();
    let mut group = criterion.benchmark_group("connect");
    group.throughput(Throughput::Elements(1));
    for (way, name) in [(bench.direct(), "direct"), (bench.through(), "strait")] {
        for at_once in [1, 32] {
            group.bench_function(format!("{name}, {at_once} at once"), |bencher| {
                bencher.iter_custom(|count| {
                    connections::run(way, at_once, Until::Done(count)).unwrap().took
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, connect);
criterion_main!(benches);
