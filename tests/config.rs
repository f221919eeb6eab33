//! Configuration files, good and bad, as operators write them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use strait::config::{self, AdminAddress, ConnectionLog, Loaded, Problem, Resolver, Settings};
use strait::model::app::AppId;
use strait::model::egress::{EgressSpec, Place, Space};
use strait::model::snapshot::{Allow, AllowRule, EndpointAt, Kind, RouteSpec};

const SHIPPED: &str = include_str!("../config/strait.yaml");

fn parse(text: &str) -> Result<Loaded, Vec<Problem>> {
    config::parse_text(Path::new("strait.yaml"), text.as_bytes())
}

fn good(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|problems| panic!("{}", shown(&problems)))
}

fn errors(text: &str) -> String {
    shown(&parse(text).expect_err("an error"))
}

fn shown(problems: &[Problem]) -> String {
    let mut text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    text.push(String::new());
    text.join("\n")
}

/// What is wrong in each line, without the excerpts.
fn messages(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err("an error");
    problems
        .iter()
        .map(|problem| format!("{}: {}: {}", problem.line, problem.key, problem.message))
        .collect()
}

/// A configuration with a cluster, for tests of the rest.
fn west(rest: &str) -> String {
    format!("cluster: west\n{rest}")
}

#[test]
fn the_shipped_file_loads_without_a_warning() {
    let loaded = good(SHIPPED);
    assert_eq!(loaded.warnings, []);
    assert_eq!(&*loaded.config.cluster, "west");
    assert_eq!(loaded.config.routes.routes.len(), 4);
    assert_eq!(*loaded.config.settings, Settings::default(), "the values shown are the defaults");
    assert_eq!(loaded.config.listeners.admin, AdminAddress::Tcp("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(loaded.config.listeners.ingress[0].address, "[::]:8443".parse().unwrap());
}

/// The shipped file with every example in it. Those for links need each other.
fn uncommented() -> (String, usize) {
    let mut examples = 0;
    let lines = SHIPPED.lines().map(|line| match line.strip_prefix("#- ") {
        Some(example) => {
            examples += 1;
            format!("{example}\n")
        }
        None => format!("{line}\n"),
    });
    (lines.collect(), examples)
}

#[test]
fn every_commented_example_loads_with_its_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strait.yaml");
    let (text, examples) = uncommented();
    assert!(examples > 15, "{examples} lines of examples");
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("names.map"), "legacy.west.example 10.0.1.9:443\n").unwrap();
    let loaded = config::load(&path).unwrap_or_else(|problems| panic!("{}", shown(&problems)));
    let [open] = &*loaded.warnings else { panic!("{}", shown(&loaded.warnings)) };
    assert!(open.message.contains("every route of this file is open"), "{open}");
    assert_eq!(loaded.config.state_dir, Some("/var/lib/strait".into()));
    let links = loaded.config.links.unwrap();
    assert_eq!(links.directory, folder.path().join("tls"));
    assert_eq!(&*links.peers[0].trust_domain, "east.example");
    let imported = |route: &&RouteSpec| route.import.is_some();
    assert_eq!(loaded.config.routes.routes.iter().filter(imported).count(), 3);
}

fn schema() -> String {
    let schema = serde_json::to_string_pretty(&config::schema()).unwrap();
    format!("{schema}\n")
}

#[test]
fn the_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/strait.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, schema()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == schema(), "run UPDATE_SCHEMA=1 cargo test --test config");
}

#[test]
fn the_state_directory_counts_from_its_file_and_is_named() {
    let state_dir = |text: &str| good(&west(text)).config.state_dir;
    assert_eq!(state_dir(""), None);
    assert_eq!(state_dir("stateDir: /var/lib/strait"), Some("/var/lib/strait".into()));
    assert_eq!(state_dir("stateDir: state"), Some("state".into()));
    let beside =
        config::parse_text(Path::new("etc/strait.yaml"), b"cluster: west\nstateDir: state");
    assert_eq!(beside.unwrap().config.state_dir, Some("etc/state".into()));
    assert_eq!(messages(&west("stateDir: ''")), ["2: stateDir: the path is empty"]);
}

#[test]
fn a_namespace_is_imported_as_a_whole_and_tells_whom_to_ask_for_what() {
    let linked = "\
link: { directory: tls, trustDomain: example.org }
local: { networks: [10.0.0.0/16] }
clusters:
  east: { gateways: [\"gw.east.example:8443\", \"203.0.113.2:8443\"] }
  south: { gateways: [\"203.0.113.3:8443\"] }
";
    let west = |rest: &str| west(&format!("{linked}{rest}"));
    let loaded = good(&west(
        "names: [\"{app}.{namespace}.mesh.example\"]
imports:
  - { app: \"lab/*\", clusters: [south, east], allow: any, addresses: 2 }
  - { app: shop/orders, clusters: [east], allow: any }
",
    ));
    let routes = &loaded.config.routes;
    assert_eq!((&*routes.cluster, routes.routes.len()), ("west", 1));
    let [namespace] = &*routes.namespaces else { panic!("{:?}", routes.namespaces) };
    assert_eq!(namespace.import.egress, EgressSpec { pin: None, addresses: 2, port: None });
    let order = namespace.import.gateways.iter();
    let order: Vec<_> = order.map(|gateway| (&*gateway.cluster, gateway.priority)).collect();
    assert_eq!(order, [("south", 0), ("east", 1), ("east", 1)]);
    let told: Vec<_> = routes
        .peers
        .iter()
        .map(|peer| {
            let wanted = &peer.wanted;
            (&*peer.cluster, peer.gateways.len(), wanted.apps.len(), wanted.namespaces.len())
        })
        .collect();
    assert_eq!(told, [("east", 2, 1, 1), ("south", 1, 0, 1)]);
    let import = |import: &str| messages(&west(&format!("imports: [{{ {import} }}]\n")));
    for (written, wrong) in [
        ("app: \"lab/*\", clusters: [east], allow: any", "its apps have no names"),
        (
            "app: \"lab/*\", clusters: [west], allow: any, name: a.example",
            "cannot stand in an import",
        ),
        ("app: \"lab/*\", clusters: [east], allow: any, name: a.example", "one name cannot stand"),
        ("app: \"la b/*\", clusters: [east], allow: any", "cannot stand in a server name"),
        (
            "app: \"lab/*\", clusters: [east], allow: any, egress: { port: 1 }",
            "one address cannot be that",
        ),
        (
            "app: \"lab/*\", clusters: [east], allow: any, addresses: 0",
            "\"0\" addresses cannot be given",
        ),
        (
            "app: \"lab/*\", clusters: [east], allow: any, plaintext: true",
            "to be said of each by itself",
        ),
    ] {
        let told = import(written);
        assert!(told.iter().any(|told| told.contains(wrong)), "{written}: {told:?}");
    }
}

/// West with links, a caller and gateways of two clusters, of which south is written first.
const CALLING: &str = "\
link: { directory: tls, trustDomain: example.org }
names: [\"{app}.mesh.example\"]
local: { networks: [10.0.0.0/8] }
apps: [{ app: shop/a, from: [{ network: 10.0.0.1/32 }] }]
clusters: { south: { gateways: [\"s:1\"] }, east: { gateways: [\"e:1\", \"f:1\"] }, north: {} }
";

#[test]
fn documents_of_allowed_apps_are_read_with_the_clusters_in_their_order() {
    let allowed = "allowed: [{ app: shop/a, allowed: [{ app: b, clusters: [east] }, { app: lab/c }] }, { allowed: [{ app: shop/b }] }]\n";
    let settings = "allowedApps: { required: true, onRevoke: close }\n";
    let loaded = good(&west(&format!("{CALLING}{allowed}{settings}")));
    assert_eq!(loaded.warnings, []);
    let permissions = &loaded.config.routes.permissions;
    let (caller, says) = permissions.documents.iter().next().unwrap();
    let told: Vec<_> =
        says.allowed.iter().map(|it| (it.app.to_string(), it.clusters.len())).collect();
    assert_eq!(caller.to_string(), "shop/a");
    assert_eq!(told, [("shop/b".to_owned(), 1), ("lab/c".to_owned(), 0)]);
    assert_eq!(permissions.bound.as_ref().unwrap().len(), 1);
    assert!(permissions.required && !permissions.is_stored);
    assert_eq!(loaded.config.settings.on_revoke, config::OnRevoke::Close);
    let (import, _) = permissions.import.as_ref().unwrap();
    let order: Vec<_> = import.gateways.iter().map(|it| (&*it.cluster, it.priority)).collect();
    assert_eq!(order, [("south", 0), ("east", 1), ("east", 1)]);
}

#[test]
fn every_mistake_in_documents_of_allowed_apps_is_told() {
    for (written, wrong) in [
        ("[{ app: shop/a, allowed: [{ app: \"shop/*\" }] }]", "`*` is no app"),
        ("[{ app: shop/a, allowed: [{ app: \"a||b\" }] }]", "no app can hold `||`"),
        ("[{ app: shop/a, allowed: [{ app: b }, { app: shop/b }] }]", "shop/b is allowed twice"),
        (
            "[{ app: shop/a, allowed: [{ app: b, clusters: [nowhere] }] }]",
            "there is no cluster `nowhere`",
        ),
        ("[{ app: shop/a, allowed: [{ app: b, clusters: [north] }] }]", "has no gateways"),
        (
            "[{ app: shop/a, allowed: [{ app: b, clusters: [east, east] }] }]",
            "stands in this list twice",
        ),
        ("[{ app: shop/a, allowed: [{ clusters: [east] }] }]", "`app` is missing"),
        ("[{ app: shop/a }, { app: shop/a }]", "shop/a has two documents"),
        ("[{ allowed: [{ app: b }] }]", "an app is written namespace/app"),
        ("[{ allowed: [{ app: a/b }] }, { allowed: [{ app: a/c }] }]", "is said twice"),
    ] {
        let told = messages(&west(&format!("{CALLING}allowed: {written}\n")));
        assert!(told.iter().any(|told| told.contains(wrong)), "{written}: {told:?}");
    }
    let nameless = CALLING.replace("names:", "# ");
    let told = messages(&west(&format!("{nameless}allowed: [{{ app: shop/a }}]\n")));
    assert!(told.iter().any(|told| told.contains("there is no `names`")), "{told:?}");
}

/// Clusters that links lead to, for services.
const SERVED: &str = "\
cluster: west
link: { directory: tls, trustDomain: example.org }
local: { networks: [10.0.0.0/16] }
clusters: { east: { gateways: [\"g:1\"] } }
listeners: { egress: { pool: 10.9.0.0/24, port: 50002 } }
services:
";

#[test]
fn a_service_has_one_entry_with_its_port_and_takes_whatever_is_said() {
    let loaded = good(&format!(
        "{SERVED}  - {{ name: Db.example, port: 6379, endpoints: [h, \"[fd00::7]\", \"i:1\"], \
         import: {{ clusters: [east, west], allow: any, egress: {{ address: 10.9.0.7 }}, addresses: 2, failback: 5s }}, \
         export: {{ allow: [{{ cluster: east }}] }} }}\n"
    ));
    let [route] = &*loaded.config.routes.routes else { panic!("one route") };
    assert_eq!((&*route.label, route.kind), ("db.example", Kind::Service));
    let endpoints: Vec<_> =
        route.endpoints.iter().map(|endpoint| endpoint.at.to_string()).collect();
    assert_eq!(endpoints, ["h:6379", "[fd00::7]:6379", "i:1"]);
    let import = route.import.as_ref().unwrap();
    let pin = Some(Place::Address("10.9.0.7".parse().unwrap()));
    assert_eq!(import.egress, EgressSpec { pin, addresses: 2, port: Some(6379) });
    assert!(route.plaintext && import.plaintext && import.own);
    assert!(!route.quiet_close && !import.quiet_close, "off by default");
    let services = &loaded.config.routes.peers[0].wanted.services;
    assert_eq!(services.iter().map(ToString::to_string).collect::<Vec<_>>(), ["db.example"]);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn all_mistakes_about_services_come_at_once() {
    let told = |services: &str| messages(&format!("{SERVED}{services}"));
    let mistakes = "  - { name: a.example }
  - { port: 1, import: { clusters: [east], allow: any } }
  - { name: b.example, port: 1 }
  - { name: c.example, port: x, export: {}, endpoints: [\"\"] }
  - { name: \"*.d.example\", port: 1, export: { allow: any } }
  - { name: e.example, port: 1, export: { allow: any } }
  - { name: f.example, port: 1, import: { clusters: [west], allow: [shop/a] } }
  - { name: F.example, port: 2, import: { clusters: [north], allow: any } }
  - { name: g.example, port: 1, import: { clusters: [east], allow: any, egress: { port: 1 } } }
  - { name: h.example, port: 1, import: { clusters: [east], allow: any, plaintext: true } }
  - { name: i.example, port: 8443, import: { clusters: [east], allow: any } }
";
    assert_eq!(
        told(mistakes),
        [
            "7: services[0]: `port` is missing",
            "8: services[1]: `name` is missing",
            "9: services[2].name: nobody may call b.example: it has neither `export` nor `import`",
            "10: services[3].port: \"x\" is no port",
            "11: services[4].name: the name has the byte 0x2a; letters, digits, hyphen, underscore and dot are what a name may have",
            "12: services[5].export: e.example is exported and has no endpoints",
            "13: services[6].import: this cluster is in `clusters`, and the service has no endpoints",
            "13: services[6].import.allow[0]: shop/a is not one of `apps`",
            "14: services[7].name: f.example is a service already, at strait.yaml:13:13",
            "15: services[8].import.egress: 1 is not of `listeners.egress`",
            "16: services[9].import.plaintext: there is no key `plaintext` here",
            "17: services[10].port: at each address of the pool another listener has this port: [::]:8443",
        ]
    );
}

#[test]
fn endpoints_of_a_service_that_nothing_leads_to_are_worth_a_warning() {
    let loaded = good(&format!(
        "{SERVED}  - {{ name: a.example, port: 1, endpoints: [h], import: {{ clusters: [east], allow: any }} }}\n"
    ));
    assert!(shown(&loaded.warnings).contains("nothing leads to the endpoints"));
}

fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| keys(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_key_stands_in_the_shipped_file() {
    let mut known = BTreeSet::new();
    keys(&serde_json::to_value(config::schema()).unwrap(), &mut known);
    assert!(known.len() > 40, "the schema has {} keys", known.len());
    for key in known {
        let named = |line: &str| line.contains(&format!("{key}:"));
        let settings = SHIPPED.lines().filter(|line| !line.trim_start().starts_with("# "));
        assert!(settings.into_iter().any(named), "{key}");
    }
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let text = "\
cluster: west
limits: { idelTimeout: 1h, idleTimeout: 5s }
names: [\"{app}.mesh.example\"]
apps:
  - { app: shop/checkout, endpoints: [\"checkout:50002\"] }
  - { app: shop/orders, endpoints: [{ address: \"orders:50002\", weight: many }] }
exports:
  - { app: shop/checkout }
  - { app: shop/order, allow: [{ cluster: east }] }
";
    assert_eq!(
        errors(text),
        "\
strait.yaml:2:11: error: limits.idelTimeout: there is no key `idelTimeout` here
2 | limits: { idelTimeout: 1h, idleTimeout: 5s }
  |           ^^^^^^^^^^^
help: did you mean `idleTimeout`?
strait.yaml:2:41: error: limits.idleTimeout: shorter than 15s: sidecars ping every 10 s, so connections in use would be closed
2 | limits: { idelTimeout: 1h, idleTimeout: 5s }
  |                                         ^^
help: write 15s or more; the default is 1h
strait.yaml:6:72: error: apps[1].endpoints[0].weight: \"many\" is not a number
6 |   - { app: shop/orders, endpoints: [{ address: \"orders:50002\", weight: many }] }
  |                                                                        ^^^^
help: write a whole number, without a sign or a unit
strait.yaml:8:5: error: exports[0]: `allow` is missing
8 |   - { app: shop/checkout }
  |     ^
help: add `allow: [{ cluster: CLUSTER }]`, `[{ networksOf: CLUSTER }]`, `[{ network: CIDR }]`, or `any` if everybody may call it
strait.yaml:9:12: error: exports[1].app: shop/order is not one of `apps`
9 |   - { app: shop/order, allow: [{ cluster: east }] }
  |            ^^^^^^^^^^
help: did you mean `shop/orders`?
strait.yaml:9:43: error: exports[1].allow[0].cluster: there is no cluster `east` under `clusters`
9 |   - { app: shop/order, allow: [{ cluster: east }] }
  |                                           ^^^^
help: add it: `clusters: { east: { networks: [CIDR] } }`
"
    );
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    for (text, expected) in [
        ("", "0: : there is no setting in it"),
        ("# nothing\n", "0: : there is no setting in it"),
        ("cluster: a: b", "1: : not YAML: mapping values are not allowed in this context"),
        ("x: &a [*a]\n", "1: : an alias stands within the value that it stands for"),
        ("cluster: west\ncluster: east\n", "2: : the key `cluster` stands here twice"),
        ("cluster: west\n---\ncluster: east\n", "3: : a second YAML document"),
        ("cluster: !secret west\n", "1: : YAML tags mean nothing here"),
        ("cluster: west\n{a: b}: c\n", "2: : a key must be text"),
        ("[cluster, west]", "1: : a map is expected here, not a list"),
        ("cluster: [west]", "1: cluster: a plain value is expected here, not a list"),
    ] {
        assert_eq!(messages(text)[0], expected, "{text:?}");
    }
    assert!(errors("cluster: west\n\tlimits: {}\n").contains("indent with spaces"));
    let problems = config::parse_text(Path::new("a.yaml"), b"cluster: w\xe9st\n").unwrap_err();
    assert!(
        shown(&problems).starts_with("a.yaml:1:11: error: not UTF-8\n"),
        "{}",
        shown(&problems)
    );
}

/// What stands below the cluster, and what is wrong with it.
const BAD: &[(&str, &str)] = &[
    ("tracing: {}", "2: tracing: this version does not have `tracing`"),
    (
        "listeners: { ingress: [] }",
        "2: listeners.ingress: without a listener no connection can come in",
    ),
    (
        "listeners: { ingress: [{ address: \":8443\" }] }",
        "2: listeners.ingress[0].address: \":8443\" is no address to listen at",
    ),
    ("listeners: { ingress: [{}] }", "2: listeners.ingress[0]: `address` is missing"),
    (
        "listeners: { metrics: { address: \"127.0.0.1:9\" }, admin: { address: \"127.0.0.1:9\" } }",
        "2: listeners.admin.address: another listener has this address, at strait.yaml:2:34",
    ),
    (
        "resolver: { servers: [dns.example] }",
        "2: resolver.servers[0]: \"dns.example\" is no DNS server",
    ),
    (
        "clusters: { east: { networks: [10.0.0.1] } }",
        "2: clusters.east.networks[0]: a network needs a prefix length",
    ),
    (
        "clusters: { east: { networks: [10.0.0.1/8] } }",
        "2: clusters.east.networks[0]: the address has bits behind its prefix length",
    ),
    (
        "names: [checkout.example]",
        "2: names[0]: the template has no {app}, so all apps would have one name",
    ),
    (
        "log: { connections: refusal }",
        "2: log.connections: `refusal` is not a value of this setting",
    ),
    ("limits: { helloTimeout: 5 }", "2: limits.helloTimeout: a duration needs a unit"),
    ("limits: { connectTotal: 0s }", "2: limits.connectTotal: zero would let nothing pass"),
    ("limits: 5", "2: limits: a map is expected here, not a plain value"),
    ("metrics: { routes: -1 }", "2: metrics.routes: \"-1\" is not a number"),
    (
        "routes: [{ name: a.*.b, endpoints: [\"h:1\"], allow: any }]",
        "2: routes[0].name: the name has the byte 0x2a; letters, digits, hyphen, underscore and dot are what a name may have",
    ),
    ("routes: [{ endpoints: [\"h:1\"], allow: any }]", "2: routes[0]: `name` is missing"),
    ("routes: [{ name: a.b, allow: any }]", "2: routes[0]: `endpoints` is missing"),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\", \"H:1\"], allow: any }]",
        "2: routes[0].endpoints[1]: h:1 stands in this list twice",
    ),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: some }]",
        "2: routes[0].allow: `allow` is neither `any` nor a list of rules",
    ),
    ("routes: [{ name: a.b, endpoints: [\"h:1\"], allow: }]", "2: routes[0]: `allow` is empty"),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: [{}] }]",
        "2: routes[0].allow[0]: the rule is empty",
    ),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: [{ networksOf: east }] }]",
        "2: routes[0].allow[0].networksOf: there is no cluster `east` under `clusters`",
    ),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: any, sendProxy: v1 }]",
        "2: routes[0].sendProxy: `v1` is not a value of this setting",
    ),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: any, check: { interval: 1ms } }]",
        "2: routes[0].check.interval: shorter than 100ms",
    ),
    (
        "apps: [{ app: checkout, endpoints: [\"h:1\"] }]",
        "2: apps[0].app: an app is written namespace/app",
    ),
    (
        "apps: [{ app: a/b, endpoints: [\"h:1\"] }, { app: A/b, endpoints: [\"h:2\"] }]",
        "2: apps[1].app: A/b and a/b, at strait.yaml:2:15, differ only in case, and names are compared without it",
    ),
    (
        "apps: [{ app: a/b, endpoints: [\"h:1\"] }, { app: a/b, endpoints: [\"h:2\"] }]",
        "2: apps[1].app: a/b is listed twice, also at strait.yaml:2:15",
    ),
    (
        "exports: [{ app: a/b, name: a.b, allow: any }]",
        "2: exports[0].app: a/b is not one of `apps`",
    ),
    (
        "apps: [{ app: a/b, endpoints: [\"h:1\"] }]\nexports: [{ app: a/b, allow: any }]",
        "3: exports[0].app: a/b has no name: there is no `names` and the export has no `name`",
    ),
    (
        "routesFiles: [missing.map]",
        "2: routesFiles[0]: missing.map: cannot be read: entity not found",
    ),
    ("<<: {}", "2: <<: YAML merge keys are not read"),
];

#[test]
fn bad_values_are_told_with_the_key_and_the_line() {
    for (rest, expected) in BAD {
        assert_eq!(messages(&west(rest)), [*expected], "{rest}");
    }
}

/// Two clusters with links, and apps that call and are called; what is wrong stands in the lines below.
const LINKED: &str = "\
cluster: west
local: { networks: [10.0.0.0/16] }
link: { directory: tls, trustDomain: example.org }
names: [\"{app}.{namespace}.mesh.example\"]
clusters:
  east: { gateways: [\"gw.east.example:8443\", \"203.0.113.1:8443\"], networks: [203.0.113.0/24] }
  south: { gateways: [\"gw.south.example:8443\"], trustDomain: south.example, trustBundle: south.pem }
  quiet: { networks: [192.0.2.0/24] }
apps:
  - { app: shop/orders, endpoints: [{ address: \"10.0.1.7:1\", priority: 3 }, { address: \"10.0.1.8:1\", priority: 9 }] }
  - { app: shop/frontend, from: [{ network: 10.0.4.0/24 }, { network: 10.0.5.0/24 }] }
  - { app: shop/batch, endpoints: [\"10.0.1.9:1\"], from: [{ network: 10.0.0.0/20 }] }
";
const LINKED_LINES: usize = 12;

fn app(written: &str) -> AppId {
    AppId::parse(written).unwrap()
}

/// Gateways of an entry with their clusters, in order of preference.
fn gateways(route: &RouteSpec) -> Vec<(u8, String)> {
    let gateways = route.import.iter().flat_map(|import| &import.gateways);
    gateways.map(|at| (at.priority, format!("{} of {}", at.at, at.cluster))).collect()
}

#[test]
fn an_app_that_is_exported_and_imported_has_one_entry() {
    let loaded = good(&format!(
        "{LINKED}\
exports:
  - {{ app: shop/orders, allow: [{{ cluster: east, apps: [shop/frontend] }}, {{ cluster: south }}] }}
imports:
  - {{ app: shop/orders, clusters: [south, west, east], allow: [shop/frontend] }}
  - {{ app: shop/billing, clusters: [east], allow: any, name: billing.example }}
"
    ));
    assert_eq!(loaded.warnings, []);
    let [orders, billing] = &*loaded.config.routes.routes else { panic!("two entries") };
    let rule = |cluster: &str, apps| AllowRule::Cluster { cluster: cluster.into(), apps };
    let rules = vec![rule("east", vec![app("shop/frontend")]), rule("south", vec![])];
    assert_eq!(orders.allow, Allow::Rules(rules));
    let import = orders.import.as_ref().unwrap();
    assert_eq!(import.allow, Allow::Rules(vec![AllowRule::Caller(app("shop/frontend"))]));
    assert!(import.own);
    let own: Vec<u8> = orders.endpoints.iter().map(|endpoint| endpoint.priority).collect();
    assert_eq!(own, [1, 2], "within this cluster the app's own order holds");
    let south = (0, "gw.south.example:8443 of south".to_owned());
    let east = |priority| {
        ["gw.east.example:8443", "203.0.113.1:8443"].map(|at| (priority, format!("{at} of east")))
    };
    assert_eq!(gateways(orders), [&[south][..], &east(3)].concat());
    assert_eq!((&billing.allow, billing.endpoints.len()), (&Allow::Hidden, 0));
    assert_eq!(billing.names[0].0.to_string(), "billing.example");
    assert_eq!(gateways(billing), east(0));
    let routes = &loaded.config.routes;
    assert_eq!(routes.local, ["10.0.0.0/16".parse().unwrap()]);
    let callers: Vec<_> =
        routes.callers.iter().map(|one| (one.app.to_string(), one.networks.len())).collect();
    assert_eq!(callers, [("shop/batch".to_owned(), 1), ("shop/frontend".to_owned(), 2)]);
}

#[test]
fn links_are_known_with_what_each_cluster_is_trusted_by() {
    let folder = Folder::new(&[("conf.d/a.yaml", LINKED)]);
    let links = folder.load().unwrap().config.links.unwrap();
    let conf = folder.0.path().join("conf.d");
    assert_eq!((links.directory, links.allow_readable_key), (conf.join("tls"), false));
    let peers: Vec<_> = links
        .peers
        .iter()
        .map(|peer| (&*peer.cluster, &*peer.trust_domain, peer.trust_bundle.clone()))
        .collect();
    let expected = [
        ("east", "example.org", None),
        ("quiet", "example.org", None),
        ("south", "south.example", Some(conf.join("south.pem"))),
    ];
    assert_eq!(peers, expected);
    assert_eq!(good("cluster: west\n").config.links, None);
}

/// What stands below [`LINKED`], and what is wrong with it, in lines counted from there.
const BAD_LINKS: &[(&str, &str)] = &[
    (
        "imports: [{ app: shop/x, clusters: [], allow: any }]",
        "imports[0].clusters: the list is empty: it is called nowhere",
    ),
    ("imports: [{ app: shop/x, allow: any }]", "imports[0]: `clusters` is missing"),
    (
        "imports: [{ app: shop/x, clusters: [eats], allow: any }]",
        "imports[0].clusters[0]: there is no cluster `eats` under `clusters`",
    ),
    (
        "imports: [{ app: shop/x, clusters: [quiet], allow: any }]",
        "imports[0].clusters[0]: the cluster `quiet` has no gateways, so nothing leads there",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east, east], allow: any }]",
        "imports[0].clusters[1]: east stands in this list twice",
    ),
    (
        "imports: [{ app: shop/x, clusters: [west, east], allow: any }]",
        "imports[0].clusters[0]: west is this cluster, and `apps` has no endpoints of shop/x",
    ),
    (
        "imports: [{ app: shop/frontend, clusters: [east, west], allow: any }]",
        "imports[0].clusters[1]: west is this cluster, and `apps` has no endpoints of shop/frontend",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east], allow: some }]",
        "imports[0].allow: `allow` is neither `any` nor a list of apps",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east], allow: [{ cluster: east }] }]",
        "imports[0].allow[0]: a plain value is expected here, not a map",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east], allow: [shop/orders] }]",
        "imports[0].allow[0]: nothing tells when shop/orders calls: it has no `from`",
    ),
    (
        "listeners: { dns: { address: \"[::]:1053\", zone: mesh.example } }",
        "listeners.dns: `announce` is missing",
    ),
    (
        "listeners: { dns: { address: \"[::]:1053\", zone: a..b, announce: [10.0.0.5] } }",
        "listeners.dns.zone: the name has an empty label",
    ),
    (
        "listeners: { dns: { address: \"[::]:1053\", zone: x.strait.internal, announce: [10.0.0.5] } }",
        "listeners.dns.zone: strait.internal is what gateways call each other by",
    ),
    (
        "listeners: { dns: { address: \"[::]:1053\", zone: a.example, announce: [] } }",
        "listeners.dns.announce: no name would stand for an address",
    ),
    (
        "listeners: { dns: { address: \"[::]:1053\", zone: a.example, announce: [\"::\"] } }",
        "listeners.dns.announce[0]: nobody can connect to ::",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east], allow: [shop/frontent] }]",
        "imports[0].allow[0]: shop/frontent is not one of `apps`",
    ),
    (
        "imports: [{ app: shop/x, clusters: [east], allow: any }, { app: shop/x, clusters: [south], allow: any }]",
        "imports[1].app: shop/x is imported twice, also at strait.yaml:13:18",
    ),
    (
        "exports: [{ app: shop/orders, allow: any }]\nimports: [{ app: shop/orders, clusters: [east], allow: any, name: o.example }]",
        "imports[0].name: shop/orders is exported under another name than o.example, and an app has one",
    ),
    (
        "exports: [{ app: shop/frontend, allow: any }]",
        "exports[0].app: shop/frontend has no endpoints, so nobody can call it",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ cluster: west }] }]",
        "exports[0].allow[0].cluster: west is this cluster itself, and no link comes from there",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ cluster: east, apps: [] }] }]",
        "exports[0].allow[0].apps: `apps` is empty",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ cluster: east, apps: }] }]",
        "exports[0].allow[0]: `apps` is empty",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ cluster: east, apps: [frontend] }] }]",
        "exports[0].allow[0].apps[0]: an app is written namespace/app",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ apps: [shop/x] }] }]",
        "exports[0].allow[0].apps: `apps` without a `cluster`",
    ),
    (
        "exports: [{ app: shop/orders, allow: [{ cluster: east, network: 10.0.0.0/8 }] }]",
        "exports[0].allow[0]: two rules in one: either would do",
    ),
    (
        "routes: [{ name: a.b, endpoints: [\"h:1\"], allow: [{ cluster: east }] }]",
        "routes[0].allow[0].cluster: a link leads to apps and services that are exported, and to no plain route",
    ),
];

#[test]
fn mistakes_about_links_are_told_with_the_key() {
    for (rest, expected) in BAD_LINKS {
        let found = messages(&format!("{LINKED}{rest}\n"));
        let [found] = &*found else { panic!("{rest}: {found:?}") };
        let (line, found) = found.split_once(": ").unwrap();
        assert_eq!(found, *expected, "{rest}");
        assert!(line.parse::<usize>().unwrap() > LINKED_LINES, "{rest}");
    }
}

#[test]
fn all_mistakes_about_clusters_come_at_once() {
    let text = "\
cluster: we_st
link: { trustDomain: Example.org }
clusters:
  east: { gateways: [gateway, \"g:1\", \"g:1\"] }
  East: { gateways: [] }
  a.b: {}
";
    assert_eq!(
        errors(text),
        "\
strait.yaml:1:10: error: cluster: \"we_st\" is no name for a cluster
1 | cluster: we_st
  |          ^^^^^
help: use up to 63 letters, digits and hyphens, none of them at its ends: the name stands in certificates and in DNS names
strait.yaml:2:7: error: link: `directory` is missing
2 | link: { trustDomain: Example.org }
  |       ^
help: add `directory: tls`, the folder with tls.crt, tls.key and ca.crt
strait.yaml:2:22: error: link.trustDomain: \"Example.org\" is no trust domain
2 | link: { trustDomain: Example.org }
  |                      ^^^^^^^^^^^
help: write what stands behind spiffe:// and before the next slash, in small letters: example.org
strait.yaml:4:9: error: clusters.east: the clusters east and East differ only in case
4 |   east: { gateways: [gateway, \"g:1\", \"g:1\"] }
  |         ^
help: rename one of the two
strait.yaml:4:22: error: clusters.east.gateways[0]: an endpoint needs a port: host:port
4 |   east: { gateways: [gateway, \"g:1\", \"g:1\"] }
  |                      ^^^^^^^
help: write \"host:port\" or \"ip:port\", for example \"checkout-dapr.shop.svc.cluster.local:50002\"
strait.yaml:4:38: error: clusters.east.gateways[2]: g:1 stands in this list twice
4 |   east: { gateways: [gateway, \"g:1\", \"g:1\"] }
  |                                      ^^^^^
help: remove one of the two
strait.yaml:5:21: error: clusters.East.gateways: the list is empty: nothing leads there
5 |   East: { gateways: [] }
  |                     ^
help: write `gateways: [\"host:port\"]`, or leave it out
strait.yaml:6:8: error: clusters.a.b: \"a.b\" is no name for a cluster
6 |   a.b: {}
  |        ^
help: use up to 63 letters, digits and hyphens, none of them at its ends: the name stands in certificates and in DNS names
"
    );
}

#[test]
fn all_mistakes_about_callers_come_at_once() {
    let text = "\
cluster: west
apps:
  - { app: shop/a, from: [{ network: 10.1.0.0/16 }, { network: \"::ffff:10.1.0.0/112\" }] }
  - { app: shop/b, from: [{ network: 10.1.0.0/16 }, {}, { dns: b.example, uid: 7 }] }
  - { app: shop/c }
  - { app: shop/d, from: [{ dns: B.example }, { uid: \"-1\" }, { uid: 7 }, { host: d }] }
";
    assert_eq!(
        messages(text),
        [
            "3: apps[0].from[1].network: 10.1.0.0/16 stands for this app twice, also at strait.yaml:3:38",
            "4: apps[1].from[0].network: 10.1.0.0/16 stands for shop/a too, at strait.yaml:3:38: nobody could tell which of the two calls",
            "4: apps[1].from[1]: nothing says where the app calls from",
            "4: apps[1].from[2]: more than one key in one item",
            "5: apps[2]: `endpoints` is missing",
            "6: apps[3].from[0].dns: b.example stands for shop/b too, at strait.yaml:4:64: nobody could tell which of the two calls",
            "6: apps[3].from[1].uid: \"-1\" is no user id",
            "6: apps[3].from[2].uid: 7 stands for shop/b too, at strait.yaml:4:80: nobody could tell which of the two calls",
            "6: apps[3].from[3].host: there is no key `host` here",
        ]
    );
}

/// `listeners.egress`, what two imports add, and what is wrong.
const EGRESS_MISTAKES: &[(&str, &str, &[&str])] = &[
    ("", "", &["2: listeners.egress: nothing says which addresses to give"]),
    ("bind: here", "", &["2: listeners.egress.bind: \"here\" is no IP address"]),
    (
        "bind: \"[::]\"",
        "",
        &[
            "2: listeners.egress.bind: nothing says which address callers dial, and `bind` is every one",
        ],
    ),
    (
        "bind: \"::\", announce: 0.0.0.0",
        "",
        &["2: listeners.egress.announce: nobody can dial 0.0.0.0"],
    ),
    ("bind: 10.0.0.1, ports: 5-4", "", &["2: listeners.egress.ports: 5 is behind 4"]),
    (
        "bind: 10.0.0.1, ports: 8000-9000",
        "",
        &["2: listeners.egress: another listener has an address of this range: [::]:8443"],
    ),
    ("bind: 10.0.0.1, port: 1", "", &["2: listeners.egress.port: `port` goes with `pool`"]),
    ("pool: 10.9.0.0/24", "", &["2: listeners.egress: `port` is missing"]),
    (
        "pool: 10.9.0.1/24, port: 0",
        "",
        &[
            "2: listeners.egress.pool: the address has bits behind its prefix length",
            "2: listeners.egress.port: \"0\" is no port",
        ],
    ),
    (
        "pool: 10.9.0.0/24, port: 1, bind: 10.0.0.1",
        "",
        &[
            "2: listeners.egress.bind: `bind` does not go with `pool`, whose addresses are both listened at and told",
        ],
    ),
    (
        "bind: 10.0.0.1",
        ", egress: { port: 7 }|, egress: { port: 7 }",
        &["6: imports[1].egress: 7 is pinned by a/b too, at strait.yaml:5:72"],
    ),
    (
        "bind: 10.0.0.1",
        ", egress: { address: 10.9.0.7 }|, addresses: 0",
        &[
            "5: imports[0].egress: 10.9.0.7 is not of `listeners.egress`",
            "6: imports[1].addresses: \"0\" addresses cannot be given",
        ],
    ),
    (
        "pool: 10.9.0.0/24, port: 1",
        ", egress: {}|, egress: { address: 10.9.1.7 }",
        &[
            "5: imports[0].egress: not one port or address to pin",
            "6: imports[1].egress: 10.9.1.7 is not of `listeners.egress`",
        ],
    ),
];

#[test]
fn all_mistakes_about_egress_come_at_once() {
    let egress = |egress: &str, imports: &str| {
        let apps = "apps: [{ app: a/b, endpoints: [\"x:1\"] }, { app: a/c, endpoints: [\"x:2\"] }]";
        let import = |(app, more): (&str, &str)| {
            format!(
                "  - {{ app: a/{app}, name: {app}.example, clusters: [west], allow: any{more} }}\n"
            )
        };
        let imports: String = ["b", "c"].into_iter().zip(imports.split('|')).map(import).collect();
        messages(&format!(
            "cluster: west\nlisteners: {{ egress: {{ {egress} }} }}\n{apps}\nimports:\n{imports}"
        ))
    };
    for (written, imports, expected) in EGRESS_MISTAKES {
        assert_eq!(egress(written, imports), *expected, "{written} {imports}");
    }
}

#[test]
fn egress_is_known_with_its_lock_and_what_imports_ask_of_it() {
    let text = "\
cluster: west
listeners: { egress: { pool: 10.9.0.0/24, port: 50002 } }
apps: [{ app: a/b, endpoints: [\"x:1\"] }]
imports: [{ app: a/b, name: b.example, clusters: [west], allow: any, egress: { address: 10.9.0.7 }, addresses: 3, plaintext: true }]
";
    let loaded = config::parse_text(Path::new("etc/strait.yaml"), text.as_bytes()).unwrap();
    let egress = loaded.config.routes.egress.clone().unwrap();
    assert_eq!(egress.lock, Path::new("etc/egress.lock"));
    assert_eq!(egress.space, Space::Pool { network: "10.9.0.0/24".parse().unwrap(), port: 50002 });
    let import = loaded.config.routes.routes[0].import.clone().unwrap();
    let pin = Some(Place::Address("10.9.0.7".parse().unwrap()));
    assert_eq!(
        (import.egress, import.plaintext),
        (EgressSpec { pin, addresses: 3, port: None }, true)
    );
    let kept = good(&format!("{text}stateDir: /var/lib/strait\n")).config.routes.egress.clone();
    assert_eq!(kept.unwrap().lock, Path::new("/var/lib/strait/egress.lock"));
    let unused = text.replace(
        "listeners: { egress: { pool: 10.9.0.0/24, port: 50002 } }",
        "local: { networks: [10.0.0.0/8] }",
    );
    assert!(shown(&good(&unused).warnings).contains("there is no `listeners.egress`"));
}

#[test]
fn without_link_nothing_of_it_may_be_asked_for() {
    let text = "\
cluster: west
clusters: { east: { gateways: [\"g:1\"], trustDomain: e.org, trustBundle: e.pem, networks: [10.0.0.0/8] } }
names: [\"{app}.example\"]
apps: [{ app: a/b, endpoints: [\"h:1\"] }]
exports: [{ app: a/b, allow: [{ cluster: east }] }]
";
    assert_eq!(
        errors(text),
        "\
strait.yaml:2:31: error: clusters.east.gateways: gateways are reached over links, and there is no `link`
2 | clusters: { east: { gateways: [\"g:1\"], trustDomain: e.org, trustBundle: e.pem, networks: [10.0.0.0/8] } }
  |                               ^
help: add `link: { directory: tls, trustDomain: example.org }`, with the folder of this gateway's certificate
strait.yaml:2:53: error: clusters.east.trustDomain: it says whom links trust, and there is no `link`
2 | clusters: { east: { gateways: [\"g:1\"], trustDomain: e.org, trustBundle: e.pem, networks: [10.0.0.0/8] } }
  |                                                     ^^^^^
help: add `link: { directory: tls, trustDomain: example.org }`, with the folder of this gateway's certificate
strait.yaml:2:73: error: clusters.east.trustBundle: it says whom links trust, and there is no `link`
2 | clusters: { east: { gateways: [\"g:1\"], trustDomain: e.org, trustBundle: e.pem, networks: [10.0.0.0/8] } }
  |                                                                         ^^^^^
help: add `link: { directory: tls, trustDomain: example.org }`, with the folder of this gateway's certificate
strait.yaml:5:42: error: exports[0].allow[0].cluster: `cluster` admits links, whose certificate proves the cluster, and there is no `link`
5 | exports: [{ app: a/b, allow: [{ cluster: east }] }]
  |                                          ^^^^
help: add `link: { directory: tls, trustDomain: example.org }`, with the folder of this gateway's certificate; or use `networksOf`, which judges the network that a connection comes from
"
    );
}

#[test]
fn what_nobody_can_use_is_worth_a_warning() {
    let loaded = good(
        "\
cluster: west
link: { directory: tls, trustDomain: example.org }
clusters: { east: { gateways: [\"g:1\"] } }
names: [\"{app}.example\"]
imports:
  - { app: a/b, clusters: [east] }
  - { app: a/c, clusters: [east], allow: [] }
",
    );
    assert_eq!(
        shown(&loaded.warnings),
        "\
strait.yaml:6:5: warning: imports[0]: nobody may call it: it has no `allow`
6 |   - { app: a/b, clusters: [east] }
  |     ^
help: add `allow: [NAMESPACE/APP]` with the apps of this cluster that may call it, or `any`
strait.yaml:6:12: warning: imports[0].app: no client is local, so nobody can call what is imported: there is no `local.networks`
6 |   - { app: a/b, clusters: [east] }
  |            ^^^
help: add `local: { networks: [CIDR] }` with the networks of this cluster, or `listeners.egress`
strait.yaml:7:42: warning: imports[1].allow: the list is empty: it admits nobody
7 |   - { app: a/c, clusters: [east], allow: [] }
  |                                          ^
help: add `allow: [NAMESPACE/APP]` with the apps of this cluster that may call it, or `any`
"
    );
    let loaded = good(
        "\
cluster: west
local: { networks: [10.0.0.0/8] }
apps: [{ app: a/b, from: [{ network: 10.1.0.0/16 }, { network: 192.0.2.0/24 }] }]
",
    );
    assert_eq!(
        shown(&loaded.warnings),
        "\
strait.yaml:3:64: warning: apps[0].from[1].network: 192.0.2.0/24 is outside of `local.networks`, so no caller from there is known as an app at the ingress
3 | apps: [{ app: a/b, from: [{ network: 10.1.0.0/16 }, { network: 192.0.2.0/24 }] }]
  |                                                                ^^^^^^^^^^^^
help: add it to `local.networks` if it is of this cluster
"
    );
}

#[test]
fn callers_who_go_past_this_gateway_are_worth_a_warning() {
    let loaded = good(
        "\
cluster: west
local: { networks: [10.0.0.0/8] }
link: { directory: tls, trustDomain: example.org }
clusters: { east: { gateways: [\"g:1\"] } }
names: [\"{app}.example\"]
apps: [{ app: a/b, from: [{ network: 10.1.0.0/16 }] }]
imports:
  - { app: a/c, clusters: [east], allow: [a/b], answer: direct }
  - { app: a/d, clusters: [east], allow: any, answer: direct }
",
    );
    assert_eq!(
        shown(&loaded.warnings),
        "\
strait.yaml:8:57: warning: imports[0].answer: with `answer: direct` callers go past this gateway, so `allow` does not bind them
8 |   - { app: a/c, clusters: [east], allow: [a/b], answer: direct }
  |                                                         ^^^^^^
help: write `answer: linked`, or `allow: any` here and who may call at the other cluster's export
"
    );
}

#[test]
fn an_import_needs_a_name() {
    let text = "\
cluster: west
local: { networks: [10.0.0.0/8] }
link: { directory: tls, trustDomain: example.org }
clusters: { east: { gateways: [\"g:1\"] } }
imports: [{ app: a/b, clusters: [east], allow: any }]
";
    let expected =
        "5: imports[0].app: a/b has no name: there is no `names` and the import has no `name`";
    assert_eq!(messages(text), [expected]);
}

#[test]
fn an_app_whose_name_breaks_dns_is_an_error() {
    let long = "l".repeat(64);
    let text = west(&format!(
        "names: [\"{{app}}.mesh.example\"]\napps: [{{ app: a/{long}, endpoints: [\"h:1\"] }}]\nexports: [{{ app: a/{long}, allow: any }}]"
    ));
    let [message] = &*messages(&text) else { panic!("{:?}", messages(&text)) };
    assert!(
        message.ends_with("which DNS does not allow: a label of the name is longer than 63 octets"),
        "{message}"
    );
}

#[test]
fn an_exported_app_has_every_name_or_its_own() {
    let loaded = good(&west(
        "\
names: [\"{app}-dapr.{namespace}.svc\", \"{app}.{namespace}.mesh.example\"]
clusters: { east: { networks: [10.0.0.0/8] } }
apps:
  - { app: shop/Checkout, endpoints: [\"10.1.1.1:50002\"] }
  - { app: shop/orders, endpoints: [\"orders:50002\"] }
  - { app: shop/hidden, endpoints: [\"hidden:50002\"] }
exports:
  - { app: shop/Checkout, allow: [{ networksOf: east }, { network: \"2001:db8::/32\" }, any] }
  - { app: shop/orders, name: orders.example, allow: any }
",
    ));
    let routes = &loaded.config.routes.routes;
    let names = |index: usize| {
        routes[index].names.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["checkout-dapr.shop.svc", "checkout.shop.mesh.example"]);
    assert_eq!(names(1), ["orders.example"]);
    assert_eq!(routes.len(), 2);
    assert_eq!((&*routes[0].label, routes[0].kind), ("shop/Checkout", Kind::App));
    assert_eq!(
        routes[0].allow,
        Allow::Rules(vec![
            AllowRule::NetworksOf("east".into(), vec!["10.0.0.0/8".parse().unwrap()]),
            AllowRule::Network("2001:db8::/32".parse().unwrap()),
            AllowRule::Any,
        ])
    );
    assert_eq!(routes[0].names[0].1.to_string(), "strait.yaml:9:12");
    assert_eq!(routes[0].endpoints[0].origin.to_string(), "strait.yaml:5:39");
    let reserved: Vec<&str> =
        loaded.config.routes.reserved.iter().map(|name| name.suffix.as_str()).collect();
    assert_eq!(reserved, ["svc", "mesh.example"]);
}

#[test]
fn a_plain_route_without_allow_is_open_and_says_so() {
    let loaded = good(&west("routes: [{ name: \"*.a.example\", endpoints: [\"h:1\"] }]"));
    assert_eq!(loaded.config.routes.routes[0].allow, Allow::Open);
    assert_eq!(
        shown(&loaded.warnings),
        "\
strait.yaml:2:18: warning: routes[0].name: the route is open to whoever reaches a listener: it has no `allow`
2 | routes: [{ name: \"*.a.example\", endpoints: [\"h:1\"] }]
  |                  ^^^^^^^^^^^^^
help: add `allow`: a list of `network: CIDR` and `networksOf: CLUSTER`, or `any` if that is meant
"
    );
}

#[test]
fn two_apps_with_one_endpoint_are_worth_a_warning() {
    let loaded = good(&west(
        "apps:
  - { app: shop/checkout, endpoints: [\"checkout:50002\", \"checkout:50003\"] }
  - { app: shop/orders, endpoints: [\"CHECKOUT.:50002\"] }
",
    ));
    assert_eq!(
        shown(&loaded.warnings),
        "\
strait.yaml:4:37: warning: apps[1].endpoints[0]: checkout:50002 is also an endpoint of shop/checkout, at strait.yaml:3:39
4 |   - { app: shop/orders, endpoints: [\"CHECKOUT.:50002\"] }
  |                                     ^^^^^^^^^^^^^^^^^
help: a sidecar serves one app: give each an endpoint of its own, unless what listens there routes by SNI itself
"
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = good("cluster: west\n").config;
    assert_eq!(config.listeners.ingress[0].address, "[::]:8443".parse().unwrap());
    assert_eq!(config.listeners.admin, AdminAddress::Tcp("127.0.0.1:9901".parse().unwrap()));
    assert_eq!((config.listeners.ingress.len(), config.listeners.metrics), (1, None));
    assert_eq!(*config.settings, Settings::default());
    assert_eq!((config.resolver, config.routes.routes.len()), (Resolver::default(), 0));
}

#[test]
fn settings_are_what_is_written() {
    let loaded = good(&west("\
listeners: { ingress: [{ address: \"127.0.0.1:0\", proxyProtocol: { from: [10.0.0.0/8] } }, { address: \"127.0.0.1:0\" }], admin: { address: \"unix:/run/a.sock\" } }
resolver: { servers: [10.96.0.10, \"[::1]:5353\"] }
limits: { helloTimeout: 250ms, helloBytes: 4096, connectTimeout: 2s, connectTotal: 1m, idleTimeout: 15s, drainDelay: 5s, drainTimeout: 0, maxAge: 90s, connections: 0 }
log: { connections: refusals }
metrics: { routes: 7 }
routes: [{ name: a.b, endpoints: [{ address: \"h:1\", weight: 3, priority: 2 }], allow: any, check: { interval: 500ms }, sendProxy: v2, quietClose: false }]
"));
    let config = &loaded.config;
    assert_eq!(config.listeners.ingress.len(), 2);
    assert_eq!(config.listeners.ingress[0].proxy_from, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.listeners.admin, AdminAddress::Unix(PathBuf::from("/run/a.sock")));
    assert_eq!(
        config.resolver.servers,
        ["10.96.0.10:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]
    );
    let limits = &config.settings.limits;
    assert_eq!(limits.hello_timeout, Duration::from_millis(250));
    assert_eq!((limits.hello_bytes, limits.connections), (4096, 0));
    assert_eq!(
        (limits.connect_timeout, limits.connect_total),
        (Duration::from_secs(2), Duration::from_mins(1))
    );
    assert_eq!(
        (limits.idle_timeout, limits.drain_delay),
        (Duration::from_secs(15), Duration::from_secs(5))
    );
    assert_eq!((limits.drain_timeout, limits.max_age), (Duration::ZERO, Duration::from_secs(90)));
    assert_eq!((config.settings.log, config.settings.metrics_routes), (ConnectionLog::Refusals, 7));
    let route = &config.routes.routes[0];
    assert_eq!((route.endpoints[0].weight, route.endpoints[0].priority), (3, 2));
    assert!(matches!(route.endpoints[0].at, EndpointAt::Host(_, 1)));
    let check = route.check.unwrap();
    assert_eq!(
        (check.interval, check.timeout),
        (Duration::from_millis(500), Duration::from_millis(500))
    );
    assert!(route.send_proxy && !route.quiet_close);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let text = "\u{feff}cluster: west\r\nlimits:\r\n  helloTimeout: 5x\r\n";
    assert_eq!(messages(text), ["3: limits.helloTimeout: \"5x\" is not a duration"]);
}

#[test]
fn aliases_stand_for_what_they_name() {
    let loaded = good(&west(
        "\
routes:
  - { name: a.b, endpoints: &both [\"h:1\", \"h:2\"], allow: any }
  - { name: a.c, endpoints: *both, allow: any }
",
    ));
    assert_eq!(loaded.config.routes.routes[1].endpoints.len(), 2);
}

#[test]
fn a_bomb_of_aliases_is_stopped_and_told_of_routes_files() {
    let mut text = String::from("cluster: west\na: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.extend([format!("a{level}: &a{level} [{below}]\n")]);
    }
    let problems = parse(&text).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("more than 2,000,000 values"), "{}", problems[0]);
    assert!(problems[0].fix.contains("routesFiles"), "{}", problems[0]);
}

/// Routes with every key, 20 values each; by aliases, which count in full and are quicker to read.
fn many_routes(count: usize) -> String {
    let first = "routes:
- { name: r.example, endpoints: &e [{ address: \"h:1\", weight: 1 }], allow: &a [{ network: 10.0.0.0/8 }], check: &c { kind: tcp } }
";
    let route = |number| format!("- {{ name: r{number}, endpoints: *e, allow: *a, check: *c }}\n");
    west(first) + &(1..count).map(route).collect::<String>()
}

#[test]
fn a_hundred_thousand_routes_load() {
    assert_eq!(good(&many_routes(100_000)).config.routes.routes.len(), 100_000);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self) -> Result<Loaded, String> {
        config::load(self.0.path()).map_err(|problems| {
            shown(&problems).replace(&format!("{}/", self.0.path().display()), "")
        })
    }
}

#[test]
fn a_directory_is_one_configuration() {
    let folder = Folder::new(&[
        (
            "a.yaml",
            "cluster: west\nroutes: [{ name: a.b, endpoints: [\"h:1\"], allow: any }]\nlimits: { helloTimeout: 1s }\n",
        ),
        ("b.yml", "limits: { connectTotal: 9s }\nroutesFiles: [maps/names.map]\n"),
        (
            "clusters.d/east.yaml",
            "clusters: { east: { networks: [10.0.0.0/8] } }\nroutes: [{ name: a.c, endpoints: [\"h:1\"], allow: [{ networksOf: east }] }]\n",
        ),
        ("maps/names.map", "a.d 10.0.0.1:1\n"),
        ("empty.yaml", "# nothing yet\n"),
        ("notes.txt", "{ not yaml"),
        (".hidden.yaml", "{ not yaml"),
        ("..data/a.yaml", "{ not yaml"),
        ("other/a.yaml", "{ not yaml"),
    ]);
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.config.routes.routes.len(), 2);
    assert_eq!(loaded.config.routes.files[0].routes, 1);
    let limits = &loaded.config.settings.limits;
    assert_eq!(
        (limits.hello_timeout, limits.connect_total),
        (Duration::from_secs(1), Duration::from_secs(9))
    );
    assert_eq!(loaded.files.len(), 5);
}

#[test]
fn one_setting_in_two_files_is_an_error_that_names_both() {
    let folder =
        Folder::new(&[("a.yaml", "cluster: west\n"), ("b.yaml", "log: {}\ncluster: east\n")]);
    assert_eq!(
        folder.load().unwrap_err(),
        "\
b.yaml:2:10: error: cluster: this setting stands in two files, also at a.yaml:1:10
2 | cluster: east
  |          ^^^^
help: leave it in one of them; only lists and maps may be spread over files
"
    );
}

#[test]
fn one_endpoint_of_two_apps_is_seen_across_files() {
    let folder = Folder::new(&[
        ("a.yaml", "cluster: west\napps: [{ app: a/b, endpoints: [\"[::ffff:10.0.0.1]:1\"] }]\n"),
        ("b.yaml", "apps: [{ app: a/c, endpoints: [\"10.0.0.1:1\"] }]\n"),
    ]);
    let warning = &folder.load().unwrap().warnings[0];
    assert!(warning.file.ends_with("b.yaml"));
    assert_eq!((warning.line, warning.column), (1, 32));
    assert!(warning.message.starts_with("10.0.0.1:1 is also an endpoint of a/b, at "), "{warning}");
    assert!(warning.message.ends_with("a.yaml:2:32"), "{warning}");
}

#[test]
fn what_is_not_there_is_told() {
    assert!(
        Folder::new(&[("notes.txt", "")])
            .load()
            .unwrap_err()
            .contains("no *.yaml or *.yml in this directory")
    );
    let problems = config::load(Path::new("/nonexistent/strait.yaml")).unwrap_err();
    assert!(
        shown(&problems).starts_with("/nonexistent/strait.yaml: error: cannot be read: "),
        "{}",
        shown(&problems)
    );
    let problems = config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(shown(&problems).contains("it is not a regular file"), "{}", shown(&problems));
}

#[test]
fn a_bad_line_of_a_routes_file_rejects_the_whole() {
    let folder = Folder::new(&[
        ("a.yaml", "cluster: west\nroutesFiles: [names.map]\n"),
        ("names.map", "a.b 10.0.0.1:1\na.c 10.0.0.1\n"),
    ]);
    assert!(folder.load().unwrap_err().starts_with("names.map:2:5: error: an endpoint needs a port: host:port\n2 | a.c 10.0.0.1\n  |     ^^^^^^^^\n"));
}

#[test]
fn a_fingerprint_stands_for_all_contents() {
    let folder = Folder::new(&[
        ("a.yaml", "cluster: west\nroutesFiles: [names.map]\n"),
        ("names.map", "a.b 10.0.0.1:1\n"),
    ]);
    let first = folder.load().unwrap();
    assert_eq!(first.fingerprint, folder.load().unwrap().fingerprint);
    fs::write(folder.0.path().join("names.map"), "a.b 10.0.0.1:2\n").unwrap();
    assert_ne!(first.fingerprint, folder.load().unwrap().fingerprint);
}

proptest! {
    // Each case reads a whole file: more of them are the fuzz target's part.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = config::parse_text(Path::new("a.yaml"), &bytes);
        let _ = config::parse_routes_text(Path::new("a.map"), &bytes);
    }

    /// Whatever is cut, doubled or written over: the outcome is a configuration or errors that can be shown.
    #[test]
    fn no_mutation_of_a_good_file_makes_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30, "[\\PC\n\t{}\\[\\]:&*!|>'\"#-]{0,6}"), 1..8),
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, put) in edits {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, put.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            prop_assert!(!shown(&problems).is_empty());
        }
    }
}
