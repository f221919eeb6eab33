//! `proto/strait.v1.rs` is what the protocol makes. It is kept in the tree, as tonic's own crates do it: a build needs neither
//! protoc nor the compilers that stand in for it, and a change of either side shows in review. And what is read as a document of
//! allowed apps is what the mapping of proto3 to JSON says, as another implementation of it reads it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};
use strait::model::app::AppId;
use strait::permissions::format;

const FILES: [&str; 2] = ["strait/v1/exchange.proto", "strait/v1/allowed_apps.proto"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compared(kept: &str, made: &str, variable: &str) {
    let kept = root().join(kept);
    if std::env::var_os(variable).is_some() {
        fs::write(&kept, made).unwrap();
    }
    let same = fs::read_to_string(&kept).unwrap_or_default() == made;
    assert!(same, "{}: run {variable}=1 cargo test --test proto", kept.display());
}

#[test]
fn the_generated_code_is_that_of_the_protocol() {
    let made = tempfile::tempdir().unwrap();
    let files = protox::compile(FILES, [root().join("proto")]).unwrap();
    tonic_prost_build::configure().out_dir(made.path()).compile_fds(files).unwrap();
    let made = fs::read_to_string(made.path().join("strait.v1.rs")).unwrap();
    compared("proto/strait.v1.rs", &made, "UPDATE_PROTO");
}

#[test]
fn the_schema_of_documents_is_that_of_the_types() {
    let made = format!("{}\n", serde_json::to_string_pretty(&format::schema()).unwrap());
    compared("proto/strait/v1/allowed_apps.schema.json", &made, "UPDATE_SCHEMA");
}

fn descriptor() -> MessageDescriptor {
    let files = protox::compile(FILES, [root().join("proto")]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    pool.get_message_by_name("strait.v1.AllowedApps").unwrap()
}

/// The apps that may be called, each with its clusters.
type Called = Vec<(String, Vec<String>)>;

/// As proto3 JSON is read by somebody else, written with every field: the caller, and each app with its clusters.
fn oracle(descriptor: &MessageDescriptor, text: &str) -> Option<(String, Called)> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut reader).ok()?;
    reader.end().ok()?;
    let text = |message: &DynamicMessage, name: &str| {
        message.get_field_by_name(name).unwrap().as_str().unwrap().to_owned()
    };
    let remote = |value: &prost_reflect::Value| {
        let remote = value.as_message().unwrap();
        let clusters = remote.get_field_by_name("clusters").unwrap();
        let clusters = clusters.as_list().unwrap().iter();
        let clusters = clusters.map(|name| name.as_str().unwrap().to_owned()).collect();
        (text(remote, "app"), clusters)
    };
    let allowed = message.get_field_by_name("allowed").unwrap();
    let allowed = allowed.as_list().unwrap().iter().map(remote).collect();
    Some((text(&message, "app"), allowed))
}

/// As Strait reads it.
fn ours(text: &str) -> Option<(String, Called)> {
    let says = format::parse(&AppId::parse("shop/a").unwrap(), text).ok()?;
    let allowed = says.allowed.iter().map(|remote| {
        (remote.app.to_string(), remote.clusters.iter().map(ToString::to_string).collect())
    });
    Some((says.app.to_string(), allowed.collect()))
}

/// What stands in a document that is right or nearly so: every app is whole, and each has a name of its own.
fn document() -> impl Strategy<Value = Value> {
    let name = |app: String| prop_oneof![9 => Just(json!(app)), 1 => Just(Value::Null), 1 => Just(json!(7))];
    let clusters = prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!(["east", "south"])),
        Just(json!(["east", null])),
        Just(json!("east")),
    ];
    let remote = move |number: usize| {
        let key = prop_oneof![9 => Just("clusters"), 1 => Just("Clusters")];
        (name(format!("lab/app{number}")), clusters.clone(), key, any::<bool>()).prop_map(
            |(app, clusters, key, is_there)| {
                if is_there { json!({ "app": app, key: clusters }) } else { json!({ "app": app }) }
            },
        )
    };
    let list = (0..4_usize).prop_flat_map(move |count| (0..count).map(&remote).collect::<Vec<_>>());
    let allowed =
        prop_oneof![8 => list.prop_map(Value::Array), 1 => Just(Value::Null), 1 => Just(json!({}))];
    let app = prop_oneof![Just(json!("shop/a")), Just(Value::Null), Just(json!(""))];
    (app, allowed, 0..4).prop_map(|(app, allowed, which)| match which {
        0 => json!({ "allowed": allowed }),
        1 => json!({ "app": app }),
        2 => json!({ "allowed": allowed, "app": app }),
        _ => json!({ "app": app, "allowed": allowed, "more": 1 }),
    })
}

proptest! {
    /// Strait asks for more than the mapping does: that an app is one. All else is the same.
    #[test]
    fn a_document_is_read_as_proto3_json_is(document in document()) {
        let (descriptor, text) = (descriptor(), document.to_string());
        let whole = |allowed: &Called| allowed.iter().all(|(app, _)| !app.is_empty());
        let expected = oracle(&descriptor, &text).filter(|(_, allowed)| whole(allowed));
        let expected = expected.map(|(_, allowed)| ("shop/a".to_owned(), allowed));
        prop_assert_eq!(ours(&text), expected.clone(), "{}", text);
        if let Some(expected) = expected {
            let says = format::parse(&AppId::parse("shop/a").unwrap(), &text).unwrap();
            prop_assert_eq!(oracle(&descriptor, &format::text(&says)), Some(expected));
        }
    }
}
