//! Certificates, authorities, revocation lists and clusters that change while calls cross.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::certificates::{Ca, Wanted, write};
use super::common::app::connect;
use super::common::authority::Authority;
use super::common::gateway::{BASE, Gateway};
use super::common::process::strait;
use super::common::{measured, wait_until};
use super::grpc::{Host, Sidecar, Way};
use super::{Apps, EXPORT, IMPORT, NOBODY, ORDERS};

/// The app as its sidecar's certificate says it.
const APP: &str = "shop/orders";

/// What a gateway says when its files have come into force.
const CHANGED: &str = "links: certificates, anchors or lists have changed";

/// Two gateways with certificates that the test has made.
struct Pair {
    folders: TempDir,
    apps: Apps,
    east: Gateway,
    west: Gateway,
}

impl Pair {
    fn start(ca: &Ca) -> Self {
        let apps = Apps::start();
        let orders = apps.orders.address;
        Self::with(ca, apps, orders)
    }

    /// With another app for `orders`.
    fn with(ca: &Ca, apps: Apps, orders: SocketAddr) -> Self {
        let folders = tempfile::tempdir().unwrap();
        let of = |cluster: &str| folders.path().join(cluster);
        for cluster in ["west", "east"] {
            ca.fill(&of(cluster), &ca.gateway(cluster));
        }
        let east = Gateway::with_config(&super::east(&of("east"), orders, EXPORT));
        let west = Gateway::with_config(&super::west(&of("west"), east.ingress(), IMPORT));
        Self { folders, apps, east, west }
    }

    fn folder(&self, cluster: &str) -> PathBuf {
        self.folders.path().join(cluster)
    }

    fn gateways(&self) -> [(&'static str, &Gateway); 2] {
        [("west", &self.west), ("east", &self.east)]
    }

    /// Changes both gateways' files, one after the other, and waits until that is in force.
    fn change(&self, change: impl Fn(&str, PathBuf)) {
        for (cluster, gateway) in self.gateways() {
            let changes = || gateway.lines().iter().filter(|line| line.contains(CHANGED)).count();
            let before = changes();
            change(cluster, self.folder(cluster));
            wait_until("the change is in force", || changes() > before);
        }
    }
}

/// gRPC calls without rest: those on connections of their own, and those on one that lives on.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    callers: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: SocketAddr, root: &Authority) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (host, way) = (Arc::new(Host::new()), Way::Named(gateway, ORDERS));
        let caller = |_| {
            let (stop, calls, way) = (Arc::clone(&stop), Arc::clone(&calls), way.clone());
            let (host, own) = (Arc::clone(&host), Sidecar::new(NOBODY, "shop/frontend", root));
            thread::spawn(move || {
                let open = || host.connect(&own, &way, APP).unwrap();
                let mut pooled = open();
                while !stop.load(Ordering::Acquire) {
                    for caller in [&mut pooled, &mut open()] {
                        assert_eq!(caller.who().unwrap(), APP);
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
                assert_eq!(pooled.dials(), 1, "it has lived on");
            })
        };
        let callers = (0..4).map(caller).collect();
        Self { stop, calls, callers }
    }

    /// Waits until calls have crossed that began after this.
    fn goes_on(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        wait_until("calls cross", || self.calls.load(Ordering::Relaxed) > before + 20);
    }

    /// How many calls there were, of which none has failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.callers.into_iter().for_each(|caller| caller.join().unwrap());
        self.calls.load(Ordering::Relaxed)
    }
}

#[test]
fn everything_that_proves_who_is_who_rotates_and_no_call_fails() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (callees, root) = (Host::new(), Authority::new());
    let orders = callees.serve("127.0.0.1:0".parse().unwrap(), APP, Some(&root));
    let pair = Pair::with(&old, Apps::start(), orders);
    let load = Load::start(pair.west.ingress(), &root);
    load.goes_on();
    // Certificates; then the authority: both, certificates of the new one, that alone; then lists.
    pair.change(|cluster, folder| old.gateway(cluster).write(&folder));
    load.goes_on();
    let both = [old.pem(), new.pem()].concat();
    pair.change(|_, folder| write(&folder, "ca.crt", &both));
    load.goes_on();
    pair.change(|cluster, folder| new.gateway(cluster).write(&folder));
    load.goes_on();
    pair.change(|_, folder| write(&folder, "ca.crt", &new.pem()));
    load.goes_on();
    pair.change(|_, folder| write(&folder, "crl.pem", &new.revoke(&[77], 30)));
    load.goes_on();
    pair.change(|_, folder| write(&folder, "crl.pem", &new.revoke(&[77, 78], -1)));
    load.goes_on();
    measured(&format!("{} calls crossed twelve changes, 0 errors", load.finish()));
    for (_, gateway) in pair.gateways() {
        assert_eq!(gateway.metric("strait_links_refused_total", &[]), 0);
        gateway.wait_for_words("it has expired");
    }
}

#[test]
fn who_is_revoked_gets_no_further_link_and_keeps_what_is_open() {
    let ca = Ca::new("links");
    let pair = Pair::start(&ca);
    let uri = "spiffe://example.org/cluster/west";
    let revoked = ca.issue(&Wanted { uris: &[uri], serial: 77, ..Wanted::default() });
    pair.change(|cluster, folder| match cluster {
        "west" => revoked.write(&folder),
        _ => ca.gateway(cluster).write(&folder),
    });
    let mut open = connect(pair.west.ingress(), ORDERS, &pair.apps.tls).unwrap();
    // Sessions that could be resumed are there now.
    assert_eq!(pair.apps.call(&pair.west).unwrap(), "orders");
    write(&pair.folder("east"), "crl.pem", &ca.revoke(&[77], 30));
    wait_until("the link is refused", || pair.apps.call(&pair.west).is_err());
    pair.west.record("link_refused");
    assert_eq!(pair.east.record("link_refused")["reason"], "the certificate is revoked");
    assert_eq!(open.who().unwrap(), "orders");
    // What goes bad, or goes, lifts nothing.
    fs::remove_file(pair.folder("east").join("crl.pem")).unwrap();
    pair.east.wait_for_words("stays revoked");
    pair.apps.call(&pair.west).unwrap_err();
    ca.gateway("west").write(&pair.folder("west"));
    wait_until("another certificate does", || pair.apps.call(&pair.west).is_ok());
}

#[test]
fn clusters_are_joined_and_parted_without_a_restart() {
    let ca = Ca::new("links");
    let pair = Pair::start(&ca);
    let joined = super::west(&pair.folder("west"), pair.east.ingress(), IMPORT);
    assert_eq!(pair.apps.call(&pair.west).unwrap(), "orders");
    pair.west.rewrite_all(BASE);
    wait_until("they are parted", || pair.apps.call(&pair.west).is_err());
    pair.west.rewrite_all(&joined);
    wait_until("they are joined", || pair.apps.call(&pair.west).is_ok());
    // Certificates that are not there leave the last good configuration in force.
    let nowhere = joined.replace("/west,", "/nowhere,");
    assert_ne!(nowhere, joined);
    pair.west.rewrite_all(&nowhere);
    pair.west.wait_for_words("tls.crt");
    assert_eq!(pair.apps.call(&pair.west).unwrap(), "orders");
}

#[test]
fn check_reads_the_files_as_run_does() {
    let (ca, folder) = (Ca::new("links"), tempfile::tempdir().unwrap());
    let tls = folder.path().join("tls");
    ca.fill(&tls, &ca.gateway("west"));
    let text = super::west(&tls, "192.0.2.1:8443".parse().unwrap(), IMPORT);
    fs::write(folder.path().join("strait.yaml"), text.replace("{folder}", "/tmp")).unwrap();
    let check = || {
        let done = strait(&["check", "strait.yaml"], folder.path());
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(check(), (Some(0), String::new()));
    fs::set_permissions(tls.join("tls.key"), Permissions::from_mode(0o644)).unwrap();
    let (code, told) = check();
    assert!(
        code == Some(1) && told.contains("others on this host can read the private key"),
        "{told}"
    );
    ca.gateway("east").write(&tls);
    let (code, told) = check();
    assert!(
        code == Some(1)
            && told.contains("the certificate is for spiffe://example.org/cluster/east"),
        "{told}"
    );
    let uri = "spiffe://example.org/cluster/west";
    ca.issue(&Wanted { uris: &[uri], days: (-1, 13), ..Wanted::default() }).write(&tls);
    let (code, told) = check();
    assert!(code == Some(0) && told.contains("it expires within 14 days"), "{told}");
}

/// The log of every level, what the admin API tells and the errors about a garbled key hold no line of any key.
#[test]
fn no_key_is_ever_told() {
    let ca = Ca::new("links");
    let pair = Pair::start(&ca);
    let keys = ["west", "east"].map(|cluster| {
        let text = fs::read_to_string(pair.folder(cluster).join("tls.key")).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('-'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(pair.apps.call(&pair.west).as_deref(), Ok("orders"));
    // Two of the key's own lines in the wrong order: told as garbled, and not quoted.
    let garbled = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n",
        keys[0][1], keys[0][0]
    );
    write(&pair.folder("west"), "tls.key", &garbled);
    pair.west.wait_for_words("tls.key");
    let mut told: Vec<_> = pair.west.lines().into_iter().chain(pair.east.lines()).collect();
    for path in ["/status", "/metrics", &*format!("/explain?name={ORDERS}")] {
        told.push(pair.west.get(path).unwrap().text());
    }
    let checked =
        strait(&["check", &pair.west.config().display().to_string()], pair.folders.path());
    told.push(String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned());
    assert!(told.last().unwrap().contains("tls.key"), "{told:?}");
    for line in keys.iter().flatten() {
        assert!(line.len() > 8 && told.iter().all(|text| !text.contains(line.as_str())), "{line}");
    }
}
