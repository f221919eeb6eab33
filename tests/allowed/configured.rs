//! Documents in the configuration: of single apps, and of the whole cluster.

use crate::common::process::strait;

use super::{BATCH, FRONTEND, NOBODY, ORDERS, STOCK, STORE, World};

#[test]
fn a_document_alone_admits_and_leads_in_its_order() {
    let allowed = "allowed:\n\
        - { app: shop/frontend, allowed: [{ app: shop/orders, clusters: [east, south] }, { app: stock }] }\n\
        - { app: shop/batch, allowed: [{ app: orders, clusters: [south] }] }\n";
    let world = World::start(allowed, &[]);
    world.waits_for(FRONTEND, ORDERS, "east");
    world.waits_for(BATCH, ORDERS, "south");
    // Nothing is said of clusters: their own order holds, which is that of the configuration and not of the alphabet.
    world.waits_for(FRONTEND, STOCK, "south");
    assert!(world.call(BATCH, STOCK).is_err());
    let expected = "the allowed apps of shop/batch do not have shop/stock, and no import's allow list has shop/batch";
    world.waits_for_reason("denied", expected);
    let hint = world.west.record("denied")["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("strait allow CALLER APP"), "{hint}");
    assert!(world.call(NOBODY, ORDERS).is_err());
    let record = world.west.record("unknown_caller");
    assert!(record["hint"].as_str().unwrap().contains("from"), "{record}");

    let explained = |name: &str, from: &str| {
        let admin = world.west.admin();
        let told =
            strait(&["explain", name, "--admin", &admin, "--from", from], world.west.folder());
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let told = explained(ORDERS, "127.0.0.3");
    assert!(told.contains("the allowed apps of shop/frontend"), "{told}");
    let told = explained(STOCK, "127.0.0.4");
    assert!(told.contains("strait allow shop/batch shop/stock"), "{told}");
}

#[test]
fn the_clusters_list_bounds_what_documents_and_imports_admit() {
    let more = "allowed:\n\
        - { app: shop/frontend, allowed: [{ app: shop/orders }, { app: stock, clusters: [east] }] }\n\
        - { allowed: [{ app: shop/orders, clusters: [east] }, { app: shop/stock, clusters: [south] }] }\n\
        imports:\n\
        - { app: shop/orders, clusters: [south, east], allow: [shop/batch] }\n\
        - { app: shop/other, clusters: [south], allow: any }\n";
    let world = World::start(more, &[]);
    world.waits_for(FRONTEND, ORDERS, "east");
    world.waits_for(BATCH, ORDERS, "east");
    assert!(world.call(FRONTEND, STOCK).is_err());
    let expected = "`allowed` of the whole cluster has shop/stock in none of the clusters where it could be called for shop/frontend";
    world.waits_for_reason("denied", expected);
    assert!(world.call(BATCH, "other.shop.mesh.example").is_err());
    world.waits_for_reason("denied", "`allowed` of the whole cluster does not have shop/other");
}

#[test]
fn with_required_nothing_but_documents_admits() {
    let import = "imports: [{ app: shop/orders, clusters: [east], allow: any }]\n\
        services: [{ name: traces.mesh.example, port: 9411, endpoints: [192.0.2.1], import: { clusters: [west], allow: any } }]\n";
    let world = World::start(import, &[]);
    world.waits_for(NOBODY, ORDERS, "east");
    let required = format!("{}{import}allowedApps: {{ {STORE}, required: true }}\n", world.base);
    world.west.rewrite_all(&required);
    world.waits_for_refusal(NOBODY, ORDERS);
    world.waits_for_refusal(BATCH, ORDERS);
    let expected = "the allowed apps of shop/batch do not have shop/orders, and with `allowedApps.required` nothing else admits";
    world.waits_for_reason("denied", expected);
    // A service is no app, and no document can have it.
    let admin = world.west.admin();
    let service = ["explain", "traces.mesh.example", "--admin", &admin, "--from", "127.0.0.5"];
    let told = strait(&service, world.west.folder());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    let checked = strait(&["check", world.west.config().to_str().unwrap()], world.west.folder());
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && told.contains("this `allow` is without effect"), "{told}");
    // In the import's list of clusters, which has no other.
    world.allow("shop/batch", r#"{"allowed":[{"app":"orders","clusters":["south","east"]}]}"#);
    world.waits_for(BATCH, ORDERS, "east");
}
