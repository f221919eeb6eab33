//! Many listeners, and a configuration that does not stand still.

use std::fmt::Write as _;
use std::time::Instant;

use super::common::gateway::{BASE, Gateway};
use super::common::{measured, wait_until};
use super::{Bench, own_address};

/// Imports of one backend under many names.
fn imports(bind: &str, count: usize, backend: &str) -> String {
    let base = BASE.replace(
        "  admin:",
        &format!("  egress: {{ bind: {bind}, ports: 21000-21999 }}\n  admin:"),
    );
    let mut text =
        format!("{base}apps:\n  - {{ app: shop/caller, from: [{{ network: 127.0.0.1/32 }}] }}\n");
    for number in 0..count {
        writeln!(text, "  - {{ app: shop/app{number}, endpoints: [\"{backend}\"] }}").unwrap();
    }
    text.push_str("imports:\n");
    for number in 0..count {
        writeln!(text, "  - {{ app: shop/app{number}, name: app{number}.example, clusters: [west], allow: any }}").unwrap();
    }
    text
}

#[test]
fn hundreds_of_listeners_are_opened_and_a_change_does_not_disturb_them() {
    const LISTENERS: usize = 300;
    let mut bench = Bench::start(1);
    let bind = own_address();
    let backend = bench.apps[0].address.to_string();
    bench.egress = format!("{{ bind: {bind}, ports: 21000-21999 }}");
    let since = Instant::now();
    bench.gateway = Gateway::with_config(&imports(&bind, LISTENERS, &backend));
    measured(&format!("{LISTENERS} egress listeners: ready after {:?}", since.elapsed()));
    let listening = |count: usize| {
        let status = bench.gateway.status();
        let all = status["egress"].as_array().unwrap();
        all.len() == count && all.iter().all(|one| one["trouble"].is_null())
    };
    assert!(listening(LISTENERS));
    let addresses: Vec<_> =
        (0..LISTENERS).map(|number| format!("{bind}:{}", 21_000 + number)).collect();
    // Every address is one app's, in the order of their names.
    let mut live: Vec<_> = addresses.iter().step_by(10).map(|at| open(&bench, at)).collect();
    bench.gateway.rewrite_all(&imports(&bind, LISTENERS + 50, &backend));
    wait_until("the new ones are open too", || listening(LISTENERS + 50));
    let sockets = descriptors(&bench.gateway);
    assert!(sockets < 2 * (LISTENERS + 50) + 2 * live.len() + 100, "{sockets} descriptors");
    bench.gateway.rewrite_all(&imports(&bind, LISTENERS - 50, &backend));
    wait_until("some are gone", || listening(LISTENERS - 50));
    for connection in &mut live {
        assert_eq!(connection.who().unwrap(), "shop/app0");
    }
}

fn open(bench: &Bench, at: &str) -> super::common::app::Connection {
    let stream = super::dial_from(super::ip(super::CALLER), at.parse().unwrap()).unwrap();
    super::handshake(stream, "app0.example", &bench.tls).unwrap()
}

fn descriptors(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.pid().as_raw_nonzero());
    std::fs::read_dir(folder).unwrap().count()
}
