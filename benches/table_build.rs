//! From the text of a routes file with a million lines to what it says, and on to a table.
#![allow(missing_docs, reason = "criterion's macros make public items without docs")]

#[path = "support/million.rs"]
mod million;

use criterion::{Criterion, criterion_group, criterion_main};

fn build(criterion: &mut Criterion) {
    let text = million::text();
    let routes = million::routes(&text);
    let mut group = criterion.benchmark_group("table of 1 M names");
    group.sample_size(10);
    group.bench_function("read", |bencher| {
        bencher.iter_with_large_drop(|| million::routes(&text));
    });
    group.bench_function("build", |bencher| {
        bencher.iter_with_large_drop(|| million::table(&routes));
    });
    group.finish();
}

criterion_group!(benches, build);
criterion_main!(benches);
