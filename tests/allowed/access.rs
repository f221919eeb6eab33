//! Who may ask the admin API from where, and what keeps pages in a browser from it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::common::authority::Authority;
use crate::common::gateway::{BASE, Gateway, filled};
use crate::common::process::strait;
use crate::common::{counterpart, wait_for, wait_until};

use super::api::curl;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const STORE: &str = "\
local: { networks: [127.0.0.0/8] }
names: [\"{app}.{namespace}.mesh.example\"]
allowedApps: { store: { file: { directory: allowed } } }
";

/// A gateway whose admin API listens at a port, and its address there.
struct Moved {
    gateway: Gateway,
    port: u16,
}

impl Moved {
    /// At `address`, an IP address, with more settings of the listener.
    fn to(address: &str, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let gateway = Gateway::in_folder(tempfile::tempdir().unwrap(), "strait.yaml", |folder| {
            fs::create_dir(folder.join("allowed")).unwrap();
            fs::write(folder.join("strait.yaml"), filled(&format!("{BASE}{STORE}"), folder))
                .unwrap();
            prepare(folder);
        });
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let moved = Self { gateway, port };
        moved.change(address, more);
        moved
    }

    fn change(&self, address: &str, more: &str) {
        let admin = format!("admin: {{ address: \"{address}:{}\"{more} }}", self.port);
        let text = BASE.replace("admin: { address: \"unix:{folder}/admin.sock\" }", &admin);
        self.gateway.rewrite_all(&format!("{text}{STORE}"));
        let scheme = if more.contains("tls") { "https" } else { "http" };
        wait_until("the listener is there", || {
            let url = format!("{scheme}://127.0.0.1:{}/healthz", self.port);
            curl("access", &["-k", &url]).is_none_or(|answer| answer.code == 200)
        });
    }

    /// The code that a path is answered with.
    fn get(&self, path: &str, more: &[&str]) -> u16 {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        curl("access", &[&[&*url], more].concat()).map_or(0, |answer| answer.code)
    }

    fn strait(&self, arguments: &[&str]) -> Output {
        strait(arguments, self.gateway.folder())
    }
}

fn write_token(folder: &Path, text: &str) {
    let beside = folder.join(".token");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(beside, folder.join("token")).unwrap();
}

fn has_curl(test: &str) -> bool {
    counterpart(test, "curl").is_some()
}

#[test]
fn a_listener_that_others_reach_asks_for_a_token() {
    if !has_curl("a_listener_that_others_reach_asks_for_a_token") {
        return;
    }
    let moved =
        Moved::to("0.0.0.0", "", |folder| write_token(folder, &format!("deploy:{TOKEN}\n")));
    assert_eq!([moved.get("/healthz", &[]), moved.get("/readyz", &[])], [200, 200]);
    assert_eq!([moved.get("/status", &[]), moved.get("/v1/allowed", &[])], [403, 403]);
    let checked = moved.strait(&["check", "strait.yaml"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned()
        + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("nothing says who may ask here"), "{said}");

    moved.change("0.0.0.0", ", tokenFile: token");
    wait_until("tokens are asked for", || moved.get("/status", &[]) == 401);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(moved.get("/status", &["-H", &bearer]), 200);
    assert_eq!(moved.get("/status", &["-H", "Authorization: Bearer wrong"]), 401);
    let put = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", "{}"];
    assert_eq!(moved.get("/v1/allowed/shop/frontend", &put), 401);
    assert_eq!(moved.get("/v1/allowed/shop/frontend", &[&put[..], &["-H", &bearer]].concat()), 200);
    let line = wait_for("the change is in the log", || {
        moved.gateway.log().into_iter().find(|line| line["what"] == "set")
    });
    let operator = line["operator"].as_str().unwrap();
    assert!(operator.starts_with("token deploy from 127.0.0.1:"), "{operator}");
    assert!(
        moved.gateway.lines().iter().all(|line| !line.contains(TOKEN)),
        "a token is in the log"
    );

    let admin = format!("http://127.0.0.1:{}", moved.port);
    let asked = moved.strait(&["allowed", "--admin", &admin]);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.code() == Some(1) && said.contains("tokenFile"), "{said}");
    let asked = moved.strait(&["status", "--admin", &admin, "--token-file", "token"]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");

    // The file is what counts, at every request.
    write_token(moved.gateway.folder(), &format!("{TOKEN}-new\n"));
    assert_eq!(moved.get("/status", &["-H", &bearer]), 401);
    assert_eq!(moved.get("/status", &["-H", &format!("{bearer}-new")]), 200);
}

#[test]
fn a_certificate_of_the_right_authority_is_enough() {
    if !has_curl("a_certificate_of_the_right_authority_is_enough") {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    let fill = |folder: &Path, authority: &Authority| {
        authority.issue(&["127.0.0.1"]).write(folder, "tls");
        fs::set_permissions(folder.join("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
        authority.write(folder);
    };
    let tls = ", tls: { directory: admin, clientCa: admin/ca.pem }";
    let moved = Moved::to("0.0.0.0", tls, |folder| {
        fs::create_dir(folder.join("admin")).unwrap();
        fill(&folder.join("admin"), &authority);
        authority.issue(&["ops.example"]).write(folder, "ops");
        other.issue(&["stranger.example"]).write(folder, "stranger");
    });
    let folder = moved.gateway.folder();
    let path_to = |name: &str| folder.join(name).display().to_string();
    let url = format!("https://127.0.0.1:{}/v1/allowed/shop/frontend", moved.port);
    let put = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", "{}", &url];
    let ask = |own: Option<&str>, ca: &str| {
        let (certificate, key) = (
            own.map(|own| path_to(&format!("{own}.crt"))),
            own.map(|own| path_to(&format!("{own}.key"))),
        );
        let mut arguments = vec!["--cacert", ca];
        if let (Some(certificate), Some(key)) = (&certificate, &key) {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        arguments.extend(put);
        curl("access", &arguments).map_or(0, |answer| answer.code)
    };
    let ca = path_to("admin/ca.pem");
    assert_eq!(ask(None, &ca), 401);
    assert_eq!(ask(Some("ops"), &ca), 200);
    assert_eq!(ask(Some("stranger"), &ca), 0, "the handshake ends it");
    let line = wait_for("the change is in the log", || {
        moved.gateway.log().into_iter().find(|line| line["what"] == "set")
    });
    let operator = line["operator"].as_str().unwrap();
    assert!(operator.starts_with("certificate ops.example from 127.0.0.1:"), "{operator}");

    let admin = format!("https://127.0.0.1:{}", moved.port);
    let proof = ["--ca-file", &ca, "--cert-file", "ops.crt", "--key-file", "ops.key"];
    let asked =
        moved.strait(&[&["allow", "shop/a", "shop/b", "--admin", &admin], &proof[..]].concat());
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let asked = moved.strait(&["allowed", "--admin", &admin]);
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--ca-file"), "{asked:?}");

    // Renewed by another authority: taken without a restart, and the old clients are strangers then.
    fill(&folder.join("admin"), &other);
    let ca = path_to("admin/ca.pem");
    wait_until("the new certificate is served", || ask(Some("stranger"), &ca) == 200);
    assert_eq!(ask(Some("ops"), &ca), 0);
}

#[test]
fn pages_in_a_browser_on_this_machine_change_and_read_nothing() {
    if !has_curl("pages_in_a_browser_on_this_machine_change_and_read_nothing") {
        return;
    }
    let moved = Moved::to("127.0.0.1", "", |_| {});
    let at = "/v1/allowed/shop/frontend";
    let put = |more: &[&str]| moved.get(at, &[&["-X", "PUT", "-d", "{}"][..], more].concat());
    let json = "Content-Type: application/json";
    assert_eq!(put(&["-H", json]), 200);
    // What a form can send.
    assert_eq!(put(&[]), 415);
    assert_eq!(put(&["-H", "Content-Type: text/plain"]), 415);
    assert_eq!(put(&["-H", json, "-H", "Origin: https://evil.example"]), 403);
    assert_eq!(put(&["-H", json, "-H", "Origin: null"]), 403);
    let own = format!("Origin: http://127.0.0.1:{}", moved.port);
    assert_eq!(put(&["-H", json, "-H", &own]), 200);
    // A name of its own that it has led to this machine.
    assert_eq!(put(&["-H", json, "-H", "Host: evil.example"]), 421);
    assert_eq!(moved.get(at, &["-H", "Host: evil.example"]), 421);
}

#[test]
fn files_that_cannot_be_used_are_told_before_they_are_in_force() {
    let gateway = Gateway::start("");
    let folder = gateway.folder();
    write_token(folder, "short");
    for (more, expected) in [
        ("tokenFile: nothing", "the tokens cannot be read"),
        ("tokenFile: token", "at least 22"),
        ("tls: { directory: nothing }", "cannot be read"),
    ] {
        let admin = format!("admin: {{ address: \"unix:{{folder}}/admin.sock\", {more} }}");
        let text = BASE.replace("admin: { address: \"unix:{folder}/admin.sock\" }", &admin);
        let text = filled(&text, folder);
        fs::write(folder.join("bad.yaml"), text).unwrap();
        let checked = strait(&["check", "bad.yaml"], folder);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned()
            + &String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.code() == Some(1) && said.contains(expected), "{more}: {said}");
    }
}
