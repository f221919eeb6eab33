//! What is no document in the store: its caller keeps what it had, and the operator is told.

use crate::common::process::strait;
use crate::common::wait_for;

use super::{BATCH, FRONTEND, ORDERS, STORE, World};

const ORDERS_ALONE: &str = r#"{"allowed":[{"app":"orders","clusters":["east"]}]}"#;

/// Texts that are no documents of shop/frontend, with what is said of each.
const GARBLED: [(&str, &str); 8] = [
    ("", "line 1 column 1: EOF while parsing a value"),
    ("{\"allowed\": [\n{\"app\": }]}", "expected value"),
    ("[]", "invalid type: sequence, expected an object"),
    ("{\"allowed\":[],\"allow\":[]}", "unknown field `allow`"),
    (
        "{\"app\":\"shop/batch\"}",
        "line 1 column 8: `app` is \"shop/batch\", and the key is that of shop/frontend",
    ),
    ("{\"allowed\":[{\"app\":\"shop/*\"}]}", "line 1 column 20: `*` is no app"),
    ("{\"allowed\":[{\"app\":\"a||b\"}]}", "line 1 column 22: no app can hold `||`"),
    (
        "{\"allowed\":[{\"app\":\"a\"},{\"app\":\"a\"}]}",
        "line 1 column 32: shop/a is allowed twice",
    ),
];

#[test]
fn what_is_no_document_keeps_the_last_good_one_of_its_caller() {
    let documents = [("shop/frontend", ORDERS_ALONE), ("shop/batch", "{ garbled from the start")];
    let world = World::start(&format!("allowedApps: {{ {STORE} }}\n"), &documents);
    world.waits_for(FRONTEND, ORDERS, "east");
    assert!(world.call(BATCH, ORDERS).is_err());
    for (text, expected) in GARBLED {
        world.allow("shop/frontend", text);
        let told = wait_for(expected, || {
            let source = world.source();
            let rejected = source["rejected"].as_array().cloned().unwrap_or_default();
            rejected.into_iter().find(|one| one["why"].as_str().unwrap().contains(expected))
        });
        assert_eq!(told["key"], "strait/apps/shop/frontend");
        assert_eq!(told["isReplaced"], true);
        assert!(!told["version"].as_str().unwrap().is_empty(), "{told}");
        assert_eq!(world.call(FRONTEND, ORDERS).as_deref(), Ok("east"), "{text}");
    }
    assert_eq!(world.source()["rejected"].as_array().unwrap().len(), 2);
    assert_eq!(world.west.metric("strait_allowed_documents_rejected", &[]), 2);
    let status = strait(&["status", "--admin", &world.west.admin()], world.west.folder());
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("strait/apps/shop/batch"), "{status}");
    world.west.wait_for_words("it is no document of allowed apps");
    // Nobody else is touched by them.
    world.allow("shop/batch", ORDERS_ALONE);
    world.waits_for(BATCH, ORDERS, "east");
    world.allow("shop/frontend", "{}");
    world.waits_for_refusal(FRONTEND, ORDERS);
    assert!(world.source()["rejected"].is_null(), "{}", world.source());
}
