//! Configuration files, good and bad, as operators write them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use strait::config::{self, AdminAddress, ConnectionLog, Loaded, Problem, Resolver, Settings};
use strait::model::snapshot::{Allow, AllowRule, EndpointAt};

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

/// Each run of lines that begin with `#-`, as a number of the first line and how many they are.
fn commented_examples() -> Vec<(usize, usize)> {
    let mut examples: Vec<(usize, usize)> = Vec::new();
    for (number, _) in SHIPPED.lines().enumerate().filter(|(_, line)| line.starts_with("#- ")) {
        match examples.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => examples.push((number, 1)),
        }
    }
    examples
}

fn uncommented(first: usize, count: usize) -> String {
    let line = |(number, line): (usize, &str)| {
        let chosen = (first..first + count).contains(&number);
        let line = if chosen { line.strip_prefix("#- ").unwrap() } else { line };
        format!("{line}\n")
    };
    SHIPPED.lines().enumerate().map(line).collect()
}

#[test]
fn every_commented_example_loads_with_its_files_beside_it() {
    let examples = commented_examples();
    assert_eq!(examples.len(), 2);
    for (first, count) in examples {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strait.yaml");
        fs::write(&path, uncommented(first, count)).unwrap();
        fs::write(folder.path().join("names.map"), "legacy.west.example 10.0.1.9:443\n").unwrap();
        if let Err(problems) = config::load(&path) {
            panic!("line {}: {}", first + 1, shown(&problems));
        }
    }
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
help: add `allow: [{ networksOf: CLUSTER }]`, `[{ network: CIDR }]`, or `any` if everybody may call it
strait.yaml:9:12: error: exports[1].app: shop/order is not one of `apps`
9 |   - { app: shop/order, allow: [{ cluster: east }] }
  |            ^^^^^^^^^^
help: did you mean `shop/orders`?
strait.yaml:9:34: error: exports[1].allow[0].cluster: `cluster` needs links between gateways, which do not exist in this version
9 |   - { app: shop/order, allow: [{ cluster: east }] }
  |                                  ^^^^^^^
help: use `networksOf`: it judges the network that a connection comes from
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
    ("imports: []", "2: imports: this version does not have `imports`"),
    ("listeners: { dns: {} }", "2: listeners.dns: this version does not have `dns`"),
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
    assert_eq!((&*routes[0].label, routes[0].is_app), ("shop/Checkout", true));
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
