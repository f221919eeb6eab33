//! The first command that anybody runs.

mod common;

use common::process::strait;

#[test]
fn two_hundred_calls_end_as_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let output = strait(&["demo", "--calls", "200"], folder.path());
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let summary = said.lines().last().unwrap_or_default();
    assert!(summary.starts_with("200 calls: ") && summary.ends_with(" 0 went wrong"), "{summary}");
    for told in [
        "shop/checkout in east stops",
        "runs again",
        "in force after",
        "access_denied",
        "unrecognized_name",
    ] {
        assert!(said.contains(told), "no word of {told:?}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "colour without a terminal");
}
