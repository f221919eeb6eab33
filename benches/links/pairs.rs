//! Two gateways of a kind, with mutual TLS 1.3 between them and certificates of `strait certs`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::gateway::{BASE, Gateway};
use crate::common::process::certificates;
use crate::common::{counterpart, wait_for};
use crate::load::backend::{Backends, COUNT};
use crate::load::process::{self, Processes};
use crate::load::{Way, hello};
use crate::peer::{Peer, free_address};

/// What carries connections from `address` to the backends.
pub(crate) struct Pair {
    pub(crate) label: &'static str,
    pub(crate) address: SocketAddr,
    processes: [Processes; 2],
    _held: Held,
}

/// Ended when dropped.
enum Held {
    Strait(#[allow(dead_code, reason = "held")] [Gateway; 2]),
    Haproxy(#[allow(dead_code, reason = "held")] [Peer; 2]),
}

impl Pair {
    /// HAProxy's first, where it is installed: what the other is compared with.
    pub(crate) fn start_all(backends: &Backends) -> io::Result<Vec<Self>> {
        process::raise_descriptor_limit();
        let folder = tempfile::tempdir()?;
        certificates(folder.path(), &["west", "east"]);
        let mut pairs = Vec::new();
        if counterpart("links", "haproxy").is_some() {
            pairs.push(Self::haproxy(&folder, backends)?);
        }
        pairs.push(Self::strait(&folder, backends)?);
        for pair in &pairs {
            Way { backends, gateway: Some(pair.address) }.prove()?;
        }
        Ok(pairs)
    }

    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let [near, far] = &self.processes;
        Ok(near.cpu()? + far.cpu()?)
    }

    fn strait(folder: &TempDir, backends: &Backends) -> io::Result<Self> {
        let (mut apps, mut exports, mut imports) = (String::new(), String::new(), String::new());
        for number in 0..COUNT {
            let (app, name) = (format!("bench/app-{number}"), hello::name(number));
            let endpoint = backends.address(number);
            writeln!(apps, "  - {{ app: {app}, endpoints: [\"{endpoint}\"] }}").expect(TAKES);
            let allow = "allow: [{ cluster: west }]";
            writeln!(exports, "  - {{ app: {app}, name: {name}, {allow} }}").expect(TAKES);
            let clusters = "clusters: [east], allow: any";
            writeln!(imports, "  - {{ app: {app}, name: {name}, {clusters} }}").expect(TAKES);
        }
        let base = |cluster| {
            let link = folder.path().join("tls").join(cluster);
            let link =
                format!("link: {{ directory: {}, trustDomain: example.org }}\n", link.display());
            format!("{}{link}log: {{ connections: refusals }}\n", BASE.replace("west", cluster))
        };
        let east = Gateway::with_config(&format!(
            "{}clusters: {{ west: {{}} }}\napps:\n{apps}exports:\n{exports}",
            base("east")
        ));
        let west = Gateway::with_config(&format!(
            "{}local: {{ networks: [127.0.0.0/8] }}\nclusters: {{ east: {{ gateways: [\"{}\"] }} }}\nimports:\n{imports}",
            base("west"),
            east.ingress()
        ));
        let processes = [Processes::of(west.pid())?, Processes::of(east.pid())?];
        let address = west.ingress();
        Ok(Self { label: "strait", address, processes, _held: Held::Strait([west, east]) })
    }

    /// <https://docs.haproxy.org/2.6/configuration.html>: `ssl`, `verify required`, `alpn`, `ssl-min-ver`, `ciphersuites`.
    fn haproxy(folder: &TempDir, backends: &Backends) -> io::Result<Self> {
        let tls = |cluster: &str| -> io::Result<String> {
            let from = folder.path().join("tls").join(cluster);
            let pem = folder.path().join(format!("{cluster}.pem"));
            let parts = [fs::read(from.join("tls.crt"))?, fs::read(from.join("tls.key"))?];
            fs::write(&pem, parts.concat())?;
            let ca = from.join("ca.crt");
            let (pem, ca) = (pem.display(), ca.display());
            Ok(format!(
                "ssl crt {pem} ca-file {ca} verify required alpn strait/1 ssl-min-ver TLSv1.3 ciphersuites {CIPHERS}"
            ))
        };
        let (near, far) = (free_address()?, free_address()?);
        let names = |server: &dyn Fn(usize) -> String| {
            let mut map = String::new();
            let mut text = String::new();
            for number in 0..COUNT {
                writeln!(map, "{} b{number}", hello::name(number)).expect(TAKES);
                writeln!(text, "backend b{number}\n  server one {}", server(number)).expect(TAKES);
            }
            (map, text)
        };
        let east = names(&|number| backends.address(number).to_string());
        let to_far = format!("{far} {}", tls("west")?);
        let west = names(&|_| to_far.clone());
        let far_bind = format!("{far} {}", tls("east")?);
        let start = |name, bind: &str, parts| run_haproxy(folder.path(), name, bind, parts);
        let peers = [start("west", &near.to_string(), west)?, start("east", &far_bind, east)?];
        let way = Way { backends, gateway: Some(near) };
        wait_for("HAProxy", || way.open(0).ok());
        let [west, east] = &peers;
        let processes = [Processes::of(west.pid())?, Processes::of(east.pid())?];
        Ok(Self { label: "haproxy", address: near, processes, _held: Held::Haproxy(peers) })
    }
}

/// What Strait's links have, so that both encrypt alike: OpenSSL's first would be the one with 256 bits.
const CIPHERS: &str = "TLS_AES_128_GCM_SHA256";

const TAKES: &str = "a string takes all";

fn run_haproxy(
    folder: &Path,
    name: &str,
    bind: &str,
    (map, backends): (String, String),
) -> io::Result<Peer> {
    let names = folder.join(format!("{name}.map"));
    fs::write(&names, map)?;
    let text = format!(
        "global
  nbthread {}
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option tcp-smart-accept
  option tcp-smart-connect
frontend names
  bind {bind}
  tcp-request inspect-delay 1m
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  tcp-request content reject
  use_backend %[req.ssl_sni,lower,map({})]
{backends}",
        thread::available_parallelism().map_or(1, Into::into),
        names.display()
    );
    let file = folder.join(format!("{name}.cfg"));
    fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Peer::start(&mut command, &folder.join(format!("{name}.log")))
}
