//! A namespace that is imported as a whole: each of its apps has addresses of its own, as they come and go.

use super::common::app::{App, dial_from, handshake};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::certificates;
use super::common::{wait_for, wait_until};
use super::{CALLER, egress_of, ip, own_address};

/// What east exports of the namespace `lab`.
fn east(link: &str, apps: &[(&str, &App)]) -> String {
    let list = |line: &dyn Fn(&str, &App) -> String| -> String {
        let entry =
            |(id, app): &(&str, &App)| format!("  - {{ app: lab/{id}, {} }}\n", line(id, app));
        apps.iter().map(entry).collect::<Vec<_>>().concat()
    };
    let served = list(&|_, app| format!("endpoints: [\"{}\"]", app.address));
    let exported = list(&|_, _| "allow: [{ cluster: west }]".to_owned());
    let names = "names: [\"{app}.{namespace}.example\"]";
    format!(
        "{}{link}{names}\nclusters: {{ west: {{}} }}\napps:\n{served}exports:\n{exported}",
        BASE.replace("west", "east")
    )
}

#[test]
fn each_app_of_a_namespace_has_addresses_of_its_own_that_it_keeps() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["west", "east"]);
    let link = |cluster: &str| {
        let tls = folder.path().join("tls").join(cluster);
        format!("link: {{ directory: {}, trustDomain: example.org }}\n", tls.display())
    };
    let authority = Authority::new();
    let [a, b, c] = ["a", "b", "c"].map(|id| App::start(&authority, id, &["127.0.0.1"]));
    let far = Gateway::with_config(&east(&link("east"), &[("a", &a), ("b", &b)]));
    let egress = format!("  egress: {{ bind: {}, ports: 21000-21009 }}\n  admin:", own_address());
    let near = Gateway::with_config(&format!(
        "{}{}names: [\"{{app}}.{{namespace}}.example\"]\nclusters: {{ east: {{ gateways: [\"{}\"] }} }}\n\
         imports: [{{ app: \"lab/*\", clusters: [east], allow: any, addresses: 2 }}]\n",
        BASE.replace("  admin:", &egress),
        link("west"),
        far.ingress()
    ));
    let addresses = |id: &str| -> Vec<std::net::SocketAddr> {
        let status = near.status();
        let label = format!("lab/{id}");
        let own = status["egress"].as_array().unwrap().iter();
        let own = own.filter(|one| one["app"] == *label && one["trouble"].is_null());
        own.map(|one| one["address"].as_str().unwrap().parse().unwrap()).collect()
    };
    let two = |id: &str| {
        wait_for("two addresses", || Some(addresses(id)).filter(|found| found.len() == 2))
    };
    let who = |at| {
        let stream = dial_from(ip(CALLER), at)?;
        handshake(stream, "127.0.0.1", &authority.client())?.who()
    };
    let (of_a, of_b) = (two("a"), two("b"));
    for (id, own) in [("a", &of_a), ("b", &of_b)] {
        assert!(own.iter().all(|&at| who(at).unwrap() == id), "{id}");
    }
    // One goes, another comes: nobody gets what was the first's, and it has that again when it is back.
    far.rewrite_all(&east(&link("east"), &[("a", &a), ("c", &c)]));
    let of_c = two("c");
    wait_until("the one is gone", || egress_of(&near, "lab/b").is_none());
    assert!(of_c.iter().all(|at| !of_b.contains(at)) && who(of_c[1]).unwrap() == "c");
    assert_eq!(addresses("a"), of_a);
    assert!(who(of_b[0]).is_err());
    far.rewrite_all(&east(&link("east"), &[("a", &a), ("b", &b), ("c", &c)]));
    wait_until("it is back", || addresses("b") == of_b);
    assert_eq!(who(of_b[1]).unwrap(), "b");
}
