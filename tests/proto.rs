//! `proto/strait.v1.rs` is what the protocol makes. It is kept in the tree, as tonic's own crates do it: a build needs neither
//! protoc nor the compilers that stand in for it, and a change of either side shows in review.

use std::fs;
use std::path::Path;

#[test]
fn the_generated_code_is_that_of_the_protocol() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    let files = protox::compile(["strait/v1/exchange.proto"], [root.join("proto")]).unwrap();
    tonic_prost_build::configure().out_dir(made.path()).compile_fds(files).unwrap();
    let made = fs::read_to_string(made.path().join("strait.v1.rs")).unwrap();
    let kept = root.join("proto/strait.v1.rs");
    if std::env::var_os("UPDATE_PROTO").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    assert!(
        fs::read_to_string(kept).unwrap() == made,
        "run UPDATE_PROTO=1 cargo test --test proto"
    );
}
