//! A name that changes its app: what lived of the first is closed before the second is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use rustls::ClientConfig;

use super::common::app::{App, connect};
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::wait_until;
use super::{Folders, base, west};

const NAME: &str = "x.example";
const OTHER: &str = "y.example";
/// Pooled connections, each with calls all the time.
const CALLERS: usize = 8;

/// Two apps, each of which may be called by either name.
fn apps() -> (Arc<ClientConfig>, [App; 2]) {
    let authority = Authority::new();
    let app = |app: &str| App::start(&authority, app, &[NAME, OTHER]);
    (authority.client(), [app("a"), app("b")])
}

/// `apps` and a list of both under the two names, `entry` being what stands in it besides.
fn listed(list: &str, names: [&str; 2], entry: &str) -> String {
    let [a, b] = names;
    format!(
        "{list}:\n  - {{ app: shop/a, name: {a}, {entry} }}\n  - {{ app: shop/b, name: {b}, {entry} }}\n"
    )
}

fn served(apps: &[App; 2]) -> String {
    let [a, b] = apps.each_ref().map(|app| app.address);
    format!(
        "apps:\n  - {{ app: shop/a, endpoints: [\"{a}\"] }}\n  - {{ app: shop/b, endpoints: [\"{b}\"] }}\n"
    )
}

/// Calls by the name while it goes from the one app to the other. Nobody may be answered by the first whose call began when
/// somebody had been answered by the second.
fn nothing_goes_astray(at: SocketAddr, tls: &Arc<ClientConfig>, rename: impl FnOnce()) {
    let (calling, second) = (AtomicUsize::new(0), AtomicBool::new(false));
    let pooled = || {
        let mut connection = connect(at, NAME, tls).unwrap();
        assert_eq!(connection.who().unwrap(), "a");
        calling.fetch_add(1, SeqCst);
        let began_second = loop {
            let began_second = second.load(SeqCst);
            match connection.who() {
                Ok(who) => assert_eq!((&*who, began_second), ("a", false), "a pooled connection"),
                Err(_) => break began_second,
            }
        };
        let who = connect(at, NAME, tls).and_then(|mut connection| connection.who()).unwrap();
        second.store(true, SeqCst);
        assert_eq!(who, "b", "after the close, which another had seen: {began_second}");
    };
    thread::scope(|scope| {
        (0..CALLERS).for_each(|_| drop(scope.spawn(pooled)));
        wait_until("all call", || calling.load(SeqCst) == CALLERS);
        rename();
    });
}

fn revoked(gateway: &Gateway) -> usize {
    gateway.records().iter().filter(|record| record["ending"] == "revoked").count()
}

#[test]
fn a_name_of_exports_leads_to_the_other_app_once_all_who_came_by_it_are_gone() {
    let (tls, apps) = apps();
    let config =
        |names| format!("{BASE}{}{}", served(&apps), listed("exports", names, "allow: any"));
    let gateway = Gateway::with_config(&config([NAME, OTHER]));
    let mut elsewhere = connect(gateway.ingress(), OTHER, &tls).unwrap();
    assert_eq!(elsewhere.who().unwrap(), "b");
    nothing_goes_astray(gateway.ingress(), &tls, || {
        gateway.rewrite_all(&config(["z.example", NAME]));
    });
    wait_until("each has its record", || revoked(&gateway) == CALLERS);
    assert_eq!(gateway.record("revoked")["route"], "shop/a");
    assert_eq!(elsewhere.who().unwrap(), "b", "its name is nobody else's");
}

#[test]
fn a_name_that_led_nowhere_in_between_is_no_exception() {
    let (tls, apps) = apps();
    let config =
        |names| format!("{BASE}{}{}", served(&apps), listed("exports", names, "allow: any"));
    let gateway = Gateway::with_config(&config([NAME, OTHER]));
    let mut pooled = connect(gateway.ingress(), NAME, &tls).unwrap();
    let generation = |more: u64| gateway.status()["generation"].as_u64().unwrap() + more;
    let next = generation(1);
    gateway.rewrite_all(&config(["z.example", OTHER]));
    wait_until("the name leads nowhere", || generation(0) == next);
    assert_eq!(pooled.who().unwrap(), "a", "no connection is cut for that");
    gateway.rewrite_all(&config(["z.example", NAME]));
    pooled.ended().unwrap();
    assert_eq!(gateway.record("revoked")["route"], "shop/a");
    let who = connect(gateway.ingress(), NAME, &tls).and_then(|mut connection| connection.who());
    assert_eq!(who.unwrap(), "b");
}

#[test]
fn a_name_of_imports_leads_to_the_other_app_once_all_links_for_it_are_gone() {
    let (tls, apps) = apps();
    let folders = Folders::new();
    let exports = listed("exports", [NAME, OTHER], "allow: [{ cluster: west }]");
    let clusters = "clusters: { west: {} }\n";
    let far = format!("{}{}{clusters}{exports}", base("east", &folders.of("east")), served(&apps));
    let far = Gateway::with_config(&far);
    let near = |names| {
        let imports = listed("imports", names, "clusters: [east], allow: any");
        west(&folders.of("west"), far.ingress(), &imports)
    };
    let gateway = Gateway::with_config(&near([NAME, OTHER]));
    nothing_goes_astray(gateway.ingress(), &tls, || {
        gateway.rewrite_all(&near(["z.example", NAME]));
    });
    wait_until("each has its record", || revoked(&gateway) == CALLERS);
    let record = gateway.record("revoked");
    assert_eq!((&record["route"], &record["via"]), (&"shop/a".into(), &"east".into()));
    assert_eq!(revoked(&far), 0);
}

#[test]
fn links_for_a_name_that_the_far_side_gives_to_another_app_are_closed_there() {
    let (tls, apps) = apps();
    let folders = Folders::new();
    let far = |names| {
        let exports = listed("exports", names, "allow: [{ cluster: west }]");
        let clusters = "clusters: { west: {} }\n";
        format!("{}{}{clusters}{exports}", base("east", &folders.of("east")), served(&apps))
    };
    let gateway = Gateway::with_config(&far([NAME, OTHER]));
    let import =
        format!("imports: [{{ app: shop/a, name: {NAME}, clusters: [east], allow: any }}]\n");
    let near = Gateway::with_config(&west(&folders.of("west"), gateway.ingress(), &import));
    let mut pooled = connect(near.ingress(), NAME, &tls).unwrap();
    assert_eq!(pooled.who().unwrap(), "a");
    gateway.rewrite_all(&far(["z.example", NAME]));
    pooled.ended().unwrap();
    assert_eq!(gateway.record("revoked")["cluster"], "west");
}
