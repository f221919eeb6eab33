//! What `explain` says is what a connection gets.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value;

use super::common::gateway::Gateway;
use super::{Came, ask_from, marked};

/// Asked for, with what a hello may hold besides names: case, a trailing dot, what is no name.
const NAMES: [&str; 25] = [
    "exact.example",
    "EXACT.example.",
    "under_score.example",
    "open.example",
    "network.example",
    "networks.example",
    "nobody.example",
    "below.example",
    "a.below.example",
    "a.b.below.example",
    "deep.below.example",
    "a.deep.below.example",
    "own.deep.below.example",
    "none.example",
    "example",
    "dead.example",
    "imported.example",
    "for-all.example",
    "both.example",
    "127.0.0.1",
    "0x7f.1",
    "::1",
    "two..dots.example",
    ".example",
    "sp%20ace.example",
];

/// Of the two networks, both of which are local; the third is of two callers. The rest is remote.
const SOURCES: [&str; 5] = ["127.0.1.1", "127.0.2.1", "127.0.2.9", "127.1.0.1", "127.0.0.1"];

fn config(endpoints: [&str; 3]) -> String {
    let [a, b, dead] = endpoints;
    let routes = [
        ("exact.example", a, "[{ network: 127.0.1.0/24 }, { network: 127.0.2.8/29 }]"),
        ("under_score.example", b, "[any]"),
        ("open.example", a, ""),
        ("network.example", b, "[{ network: 127.0.2.0/24 }]"),
        ("networks.example", a, "[{ networksOf: east }]"),
        ("nobody.example", a, "[{ network: 192.0.2.0/24 }]"),
        ("'*.below.example'", b, ""),
        ("'*.deep.below.example'", a, "[{ network: 127.0.2.0/24 }]"),
        ("own.deep.below.example", b, "[{ networksOf: east }]"),
        ("dead.example", dead, "[{ network: 127.0.1.0/24 }]"),
    ];
    let mut text = "clusters: { east: { networks: [127.0.1.0/24] } }\nroutes:\n".to_owned();
    for (name, endpoint, allow) in routes {
        let allow = if allow.is_empty() { String::new() } else { format!(", allow: {allow}") };
        writeln!(text, "  - {{ name: {name}, endpoints: [\"{endpoint}\"]{allow} }}").unwrap();
    }
    text + &apps(a, b)
}

/// What has two sides: apps that are imported, of which this cluster serves all, so that no link is needed.
fn apps(a: &str, b: &str) -> String {
    format!(
        "\
local: {{ networks: [127.0.1.0/24, 127.0.2.0/24] }}
apps:
  - {{ app: shop/imported, endpoints: [\"{a}\"] }}
  - {{ app: shop/for-all, endpoints: [\"{b}\"] }}
  - {{ app: shop/both, endpoints: [\"{a}\"] }}
  - {{ app: shop/one, from: [{{ network: 127.0.1.0/24 }}] }}
  - {{ app: shop/two, from: [{{ network: 127.0.2.0/24 }}] }}
  - {{ app: shop/three, from: [{{ network: 127.0.2.8/29 }}] }}
exports:
  - {{ app: shop/both, name: both.example, allow: [{{ network: 127.1.0.0/16 }}] }}
imports:
  - {{ app: shop/imported, name: imported.example, clusters: [west], allow: [shop/one] }}
  - {{ app: shop/for-all, name: for-all.example, clusters: [west], allow: any }}
  - {{ app: shop/both, name: both.example, clusters: [west], allow: [shop/two] }}
"
    )
}

/// The alert's code (RFC 8446 §6) by the name that `explain` gives it.
fn alert(label: &str) -> u8 {
    match label {
        "decode_error" => 50,
        "access_denied" => 49,
        "internal_error" => 80,
        "unrecognized_name" => 112,
        "missing_extension" => 109,
        other => panic!("no alert of a name: {other}"),
    }
}

/// What `explain` foretells: the route's app, or the alert and the record's ending.
fn foretold(answer: &Value, apps: &HashMap<String, u8>) -> (Came, Option<String>) {
    let verdict = &answer["verdict"];
    if verdict["outcome"] == "routed" {
        let at = answer["priorities"][0]["endpoints"][0]["address"].as_str().unwrap();
        return (Came::App(apps[at]), None);
    }
    assert_eq!(verdict["outcome"], "refused", "{answer:#}");
    let ending = verdict["ending"].as_str().unwrap().to_owned();
    (Came::Alert(alert(verdict["alert"].as_str().unwrap())), Some(ending))
}

#[test]
fn for_every_name_and_source_explain_says_what_a_connection_gets() {
    let (alpha, beta) = (marked("127.0.0.1:0", b'a'), marked("127.0.0.1:0", b'b'));
    let [a, b] = [&alpha, &beta].map(|app| app.address.to_string());
    let apps = HashMap::from([(a.clone(), b'a'), (b.clone(), b'b')]);
    // A name that stands for nothing (RFC 6761 §6.4).
    let gateway = Gateway::start(&config([&a, &b, "own.invalid:1"]));
    let (mut refusals, mut outcomes) = (HashMap::<String, usize>::new(), HashMap::new());
    for name in NAMES {
        for source in SOURCES {
            let asked = format!("/explain?name={}&from={source}", name.replace('%', "%25"));
            let answer = gateway.get(&asked).unwrap();
            let answer: Value = serde_json::from_slice(&answer.body).unwrap();
            let (came, ending) = foretold(&answer, &apps);
            let source: IpAddr = source.parse().unwrap();
            let real = ask_from(source, gateway.ingress(), name.as_bytes());
            assert_eq!(real, came, "{name} from {source}: {answer:#}");
            *outcomes.entry(came).or_insert(0) += 1;
            if let Some(ending) = ending {
                *refusals.entry(ending).or_insert(0) += 1;
            }
        }
    }
    assert!(outcomes.len() >= 5, "no matrix: {outcomes:?}");
    assert!(refusals.contains_key("unknown_caller"), "no ambiguity: {refusals:?}");
    for (ending, times) in refusals {
        super::common::wait_until(&format!("{times} × {ending}"), || {
            super::ended(&gateway, &ending).len() == times
        });
    }

    // What clients asked for and no route is called makes no series.
    let metrics = gateway.get("/metrics").unwrap().text();
    for name in ["a.below", "a.b.below", "a.deep", "none.example", "two..dots", "EXACT", "0x7f"] {
        assert!(!metrics.contains(name), "{name}: {metrics}");
    }
}
