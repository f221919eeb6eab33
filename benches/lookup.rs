//! Look-ups in a table of a million names: the same one again and again, any at random, none, by wildcard.
#![allow(missing_docs, reason = "criterion's macros make public items without docs")]

#[path = "support/million.rs"]
mod million;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

fn lookup(criterion: &mut Criterion) {
    let table = million::table(&million::routes(&million::text()));
    let names: Vec<String> = (0..million::NAMES).map(million::name).collect();
    let mut group = criterion.benchmark_group("lookup in 1 M names");
    let hot = &names[million::NAMES / 2];
    group.bench_function("hot", |bencher| bencher.iter(|| table.lookup(black_box(hot)).is_some()));
    // Jumps of this prime come by every name once, far from the one before. Copied on the way, so that the names asked for are
    // as hot as a hello's and only the table's memory is cold.
    let mut at = 0;
    group.bench_function("random", |bencher| {
        bencher.iter_batched_ref(
            || {
                at = (at + 617_411) % million::NAMES;
                names[at].clone()
            },
            |name| table.lookup(black_box(name)).is_some(),
            criterion::BatchSize::SmallInput,
        );
    });
    for (title, name) in [
        ("unknown name", "nobody-dapr.shop.svc.cluster.local"),
        ("wildcard", "any.thing.wild-7.example"),
        ("127 labels", &"a.".repeat(126)),
    ] {
        let name = name.trim_end_matches('.');
        group.bench_function(title, |bencher| {
            bencher.iter(|| table.lookup(black_box(name)).is_some());
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
