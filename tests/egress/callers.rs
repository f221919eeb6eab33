//! Who calls: known by the network, by a name, by a user, or by nothing.

use std::fs;

use super::common::app::{App, dial_from, handshake};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::{dns_server, measured, wait_for, wait_until};
use super::{Bench, address_of, app, ip, own_address, problems};

/// One app behind a gateway that knows these callers, and who may call.
fn bench(more: &str, callers: &str, allow: &str) -> Bench {
    let bind = own_address();
    let authority = Authority::new();
    let apps = vec![App::start(&authority, &app(0), &[&bind])];
    let egress = format!("{{ bind: {bind}, ports: 21000-21009 }}");
    let base = BASE.replace("  admin:", &format!("  egress: {egress}\n  admin:"));
    let text = format!(
        "{base}{more}apps:\n  - {{ app: shop/app0, endpoints: [\"{}\"] }}\n{callers}\
         imports: [{{ app: shop/app0, name: app0.example, clusters: [west]{allow} }}]\n",
        apps[0].address
    );
    let gateway = Gateway::with_config(&text);
    Bench { gateway, apps, tls: authority.client(), egress }
}

const TWO: &str = "  - { app: shop/one, from: [{ network: 127.0.1.0/24 }] }\n  \
                   - { app: shop/two, from: [{ network: 127.0.0.0/22 }, { network: 127.0.8.8/32 }] }\n";

/// Calls from somewhere: who answers, or how it ended.
fn call(bench: &Bench, from: &str) -> String {
    let address = bench.address(0);
    let stream = dial_from(ip(from), address).unwrap();
    // By port: a record of an earlier call may come later.
    let source = stream.local_addr().unwrap().to_string();
    let host = address.ip().to_string();
    if let Ok(who) =
        handshake(stream, &host, &bench.tls).and_then(|mut connection| connection.who())
    {
        return who;
    }
    let client = |record: &serde_json::Value| record["client"] == source.as_str();
    wait_for("the record of the refusal", || {
        let record = bench.gateway.records().into_iter().rfind(|record| client(record))?;
        Some(record["ending"].as_str()?.to_owned())
    })
}

#[test]
fn a_caller_is_known_by_its_network_and_by_one_app_alone() {
    let bench = bench("", TWO, ", allow: [shop/two]");
    assert_eq!(call(&bench, "127.0.2.1"), app(0));
    assert_eq!(call(&bench, "127.0.8.8"), app(0));
    assert_eq!(call(&bench, "127.0.9.9"), "unknown_caller");
    assert_eq!(call(&bench, "127.0.1.1"), "unknown_caller", "two apps are there");
    let records = bench.gateway.records();
    let reason = |from: &str| {
        let of = |record: &&serde_json::Value| {
            record["client"].as_str().is_some_and(|client| client.starts_with(from))
        };
        records.iter().find(of).unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("127.0.1.1").contains("ambiguous"), "{}", reason("127.0.1.1"));
    assert!(reason("127.0.9.9").contains("no app's `from`"), "{}", reason("127.0.9.9"));
    assert_eq!(bench.apps[0].accepted(), 2);
}

#[test]
fn nobody_may_call_without_allow_anybody_with_any_and_nobody_who_is_not_named() {
    assert_eq!(call(&bench("", TWO, ""), "127.0.2.1"), "denied");
    assert_eq!(call(&bench("", TWO, ", allow: any"), "127.0.9.9"), app(0));
    let one = bench("", TWO, ", allow: [shop/one]");
    assert_eq!(call(&one, "127.0.8.8"), "denied");
}

#[test]
fn a_name_stands_for_pods_and_is_asked_once_more_before_a_new_one_is_refused() {
    let dns = dns_server();
    dns.rely_on(300);
    dns.addresses("pods.example", &["127.0.4.1"]);
    let resolver =
        format!("resolver: {{ servers: [\"{}\"], allowLocalAddresses: true }}\n", dns.address);
    let callers = "  - { app: shop/front, from: [{ dns: pods.example }] }\n";
    let bench = bench(&resolver, callers, ", allow: [shop/front]");
    assert_eq!(call(&bench, "127.0.4.1"), app(0));
    dns.addresses("pods.example", &["127.0.4.1", "127.0.4.2"]);
    let since = std::time::Instant::now();
    assert_eq!(call(&bench, "127.0.4.2"), app(0), "its first call");
    measured(&format!(
        "the first call of a pod that DNS's last answer, good for 300 s, did not have: {:?}",
        since.elapsed()
    ));
    assert_eq!(call(&bench, "127.0.4.3"), "unknown_caller");
    dns.addresses("pods.example", &["127.0.4.3"]);
    // What was asked out of turn a moment ago is not asked again at once.
    wait_until("the next pod is known", || call(&bench, "127.0.4.3") == app(0));
    assert_eq!(call(&bench, "127.0.4.1"), "unknown_caller", "a pod that is gone");
    // Whatever strangers try, the name server has its peace.
    let asked = dns.asked("pods.example");
    let since = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(call(&bench, "127.0.4.9"), "unknown_caller");
    }
    let allowed = usize::try_from(since.elapsed().as_secs()).unwrap() + 2;
    assert!(dns.asked("pods.example") - asked <= 2 * allowed);
}

#[cfg(target_os = "linux")]
#[test]
fn callers_of_this_machine_are_told_apart_by_their_user() {
    let own = fs::metadata("/proc/self")
        .map(|found| std::os::unix::fs::MetadataExt::uid(&found))
        .unwrap();
    let users = |one: u32, two: u32| {
        format!(
            "  - {{ app: shop/one, from: [{{ uid: {one} }}] }}\n  - {{ app: shop/two, from: [{{ uid: {two} }}] }}\n"
        )
    };
    assert_eq!(call(&bench("", &users(own, own + 1), ", allow: [shop/one]"), "127.0.0.1"), app(0));
    assert_eq!(
        call(&bench("", &users(own + 1, own), ", allow: [shop/one]"), "127.0.0.1"),
        "denied"
    );
    let stranger = bench("", &users(own + 1, own + 2), ", allow: [shop/one]");
    assert_eq!(call(&stranger, "127.0.0.1"), "unknown_caller");
}

#[test]
fn addresses_that_a_few_nodes_put_in_place_of_all_callers_are_told() {
    let bench = bench("", TWO, ", allow: [shop/two]");
    for _ in 0..20 {
        assert_eq!(call(&bench, "127.0.9.1"), "unknown_caller");
    }
    assert_eq!(call(&bench, "127.0.9.2"), "unknown_caller");
    let told = problems(&bench.gateway).join("\n");
    assert!(told.contains("127.0.9.1, 127.0.9.2") && told.contains("SNAT"), "{told}");
    let last = bench.gateway.records().pop().unwrap();
    assert!(last["reason"].as_str().unwrap().contains("SNAT"), "{last}");
    assert_eq!(address_of(&bench.gateway, "shop/app0").map(|at| at.port()), Some(21_000));
    assert!(ip("127.0.9.1").is_loopback());
}
