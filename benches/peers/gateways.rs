//! The gateways, each set up as its own documentation says for this: a port, a server name read from the hello, 64 names.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use crate::common::gateway::{Gateway, STRAIT};
use crate::common::{counterpart, wait_for};
use crate::load::backend::{Backends, COUNT};
use crate::load::process::{self, Processes};
use crate::load::{self, Way, hello};
use crate::peer::{Peer, free_address};
use crate::works::Target;

/// Where Debian and others keep the module that reads hellos, unless it is compiled in.
const STREAM_MODULES: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Haproxy,
    /// Made to splice always and not only when it guesses that it pays.
    HaproxySplice,
    Nginx,
    Envoy,
    Strait,
}

/// A started gateway.
pub(crate) struct Running {
    kind: Kind,
    address: SocketAddr,
    processes: Processes,
    held: Held,
}

enum Held {
    Strait(Gateway),
    /// With the folder that it reads.
    Peer(Peer, #[allow(dead_code, reason = "held")] TempDir),
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Haproxy, Self::HaproxySplice, Self::Nginx, Self::Envoy, Self::Strait];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Strait => "strait",
        }
    }

    /// What the program says it is, or why it cannot be used.
    pub(crate) fn version(self) -> Result<String, String> {
        let (program, argument) = match self {
            Self::Haproxy | Self::HaproxySplice => ("haproxy", "-v"),
            Self::Nginx => ("nginx", "-v"),
            Self::Envoy => ("envoy", "--version"),
            Self::Strait => (STRAIT, "--version"),
        };
        let is_there = match self {
            Self::Haproxy | Self::HaproxySplice | Self::Nginx => {
                counterpart("peers", program).is_some()
            }
            // Debian has none, so that CI does without it.
            Self::Envoy => Command::new(program).arg(argument).output().is_ok(),
            Self::Strait => true,
        };
        if !is_there {
            return Err("it is not installed".to_owned());
        }
        if self == Self::Nginx && stream_module().is_none() {
            return Err("it lacks the module stream".to_owned());
        }
        let output =
            Command::new(program).arg(argument).output().map_err(|error| error.to_string())?;
        let text = [output.stdout, output.stderr].concat();
        version(&String::from_utf8_lossy(&text)).ok_or_else(|| "it does not say what it is".into())
    }

    pub(crate) fn start(self, backends: &Backends) -> io::Result<Running> {
        let descriptors = process::raise_descriptor_limit();
        let running = match self {
            Self::Strait => {
                let gateway = Gateway::start(&load::strait_config(backends));
                let processes = Processes::of(gateway.pid())?;
                Running {
                    kind: self,
                    address: gateway.ingress(),
                    processes,
                    held: Held::Strait(gateway),
                }
            }
            Self::Haproxy | Self::HaproxySplice | Self::Nginx | Self::Envoy => {
                let folder = tempfile::tempdir()?;
                let address = free_address()?;
                let mut command = match self {
                    Self::Nginx => nginx(folder.path(), address, backends, descriptors)?,
                    Self::Envoy => envoy(folder.path(), address, backends)?,
                    Self::Haproxy | Self::HaproxySplice | Self::Strait => {
                        let forced = self == Self::HaproxySplice;
                        haproxy(folder.path(), address, backends, descriptors, forced)?
                    }
                };
                let peer = Peer::start(&mut command, &folder.path().join("log"))?;
                let way = Way { backends, gateway: Some(address) };
                wait_for(self.label(), || way.open(0).ok());
                // Its workers are there as well, now that it answers.
                let processes = Processes::of(peer.pid())?;
                Running { kind: self, address, processes, held: Held::Peer(peer, folder) }
            }
        };
        // Also a warm-up: what a gateway makes once, with its first connections, is not measured.
        Way { backends, gateway: Some(running.address) }.prove()?;
        Ok(running)
    }
}

impl Running {
    pub(crate) fn target<'a>(&self, backends: &'a Backends) -> Target<'a> {
        let way = Way { backends, gateway: Some(self.address) };
        Target { label: self.kind.label(), way, processes: Some(self.processes.clone()) }
    }

    /// Ends it; an error if it had ended before.
    pub(crate) fn stop(self) -> io::Result<()> {
        let ended = match self.held {
            Held::Strait(mut gateway) => gateway.has_ended(),
            Held::Peer(mut peer, _folder) => peer.has_ended()?,
        };
        if ended {
            Err(io::Error::other(format!("{} ended by itself", self.kind.label())))
        } else {
            Ok(())
        }
    }
}

/// The name and the number in "HAProxy version 2.6.12-1 2026/10/17 - https://…", "nginx version: nginx/1.22.1",
/// "envoy  version: 5a1e…/1.40.0/Clean/RELEASE/BoringSSL", "strait 0.1.0".
fn version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    let name = line.split_whitespace().next()?.rsplit('/').next()?;
    let mut parts = line.split([' ', '/']).skip(1);
    let number = parts.find(|part| part.contains('.') && part.starts_with(char::is_numeric))?;
    Some(format!("{name} {number}"))
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// <https://docs.haproxy.org/2.6/configuration.html>: `req.ssl_sni`, `use_backend`, `option splice-auto`, `tcp-smart-accept`,
/// `tcp-smart-connect`, `tune.pipesize`.
fn haproxy(
    folder: &Path,
    address: SocketAddr,
    backends: &Backends,
    descriptors: u64,
    forced: bool,
) -> io::Result<Command> {
    let (splice, pipes, tuned) = if forced {
        ("option splice-request\n  option splice-response", 1000, "tune.pipesize 262144")
    } else {
        ("option splice-auto", 200, "")
    };
    // Two descriptors each for a connection and a pipe, and some to spare.
    let connections = (descriptors.min(100_000).saturating_sub(500) / 2).saturating_sub(pipes);
    let map = folder.join("names.map");
    let mut text = format!(
        "global
  nbthread {}
  maxconn {connections}
  maxpipes {pipes}
  {tuned}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  {splice}
  option tcp-smart-accept
  option tcp-smart-connect
frontend names
  bind {address}
  tcp-request inspect-delay 1m
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  tcp-request content reject
  use_backend %[req.ssl_sni,lower,map({})]
",
        threads(),
        map.display()
    );
    let mut names = String::new();
    for number in 0..COUNT {
        writeln!(names, "{} b{number}", hello::name(number)).expect("a string takes all");
        writeln!(text, "backend b{number}\n  server one {}", backends.address(number))
            .expect("a string takes all");
    }
    fs::write(&map, names)?;
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

/// <https://nginx.org/en/docs/stream/ngx_stream_ssl_preread_module.html>, and `reuseport` and `multi_accept`.
fn nginx(
    folder: &Path,
    address: SocketAddr,
    backends: &Backends,
    descriptors: u64,
) -> io::Result<Command> {
    let module = stream_module().unwrap_or_default();
    let mut names = String::new();
    for number in 0..COUNT {
        writeln!(names, "    {} {};", hello::name(number), backends.address(number))
            .expect("a string takes all");
    }
    let text = format!(
        "{module}
worker_processes {};
daemon off;
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections {}; multi_accept on; }}
stream {{
  map_hash_bucket_size 128;
  map $ssl_preread_server_name $endpoint {{
{names}  }}
  server {{
    listen {address} reuseport backlog=4096;
    ssl_preread on;
    preread_timeout 1m;
    proxy_connect_timeout 5s;
    proxy_timeout 1h;
    proxy_half_close on;
    proxy_pass $endpoint;
  }}
}}
",
        threads(),
        descriptors.min(100_000).saturating_sub(100)
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-e").arg("error.log").arg("-c").arg(file);
    Ok(command)
}

/// <https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/listener_filters/tls_inspector>: a filter chain per name.
fn envoy(folder: &Path, address: SocketAddr, backends: &Backends) -> io::Result<Command> {
    let socket = |address: SocketAddr| {
        format!(
            "{{ socket_address: {{ address: {}, port_value: {} }} }}",
            address.ip(),
            address.port()
        )
    };
    let mut chains = String::new();
    let mut clusters = String::new();
    for number in 0..COUNT {
        let (name, endpoint) = (hello::name(number), socket(backends.address(number)));
        write!(
            chains,
            "    - filter_chain_match: {{ server_names: [{name}] }}
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: b{number} }}
"
        )
        .expect("a string takes all");
        // By default a cluster takes 1,024 connections.
        write!(
            clusters,
            "  - name: b{number}
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000 }}] }}
    load_assignment: {{ cluster_name: b{number}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {endpoint} }} }}] }}] }}
"
        )
        .expect("a string takes all");
    }
    let text = format!(
        "static_resources:
  listeners:
  - name: names
    address: {}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector }}
    listener_filters_timeout: 60s
    filter_chains:
{chains}  clusters:
{clusters}",
        socket(address)
    );
    let file = folder.join("envoy.yaml");
    fs::write(&file, text)?;
    let mut command = Command::new("envoy");
    command.arg("--config-path").arg(file).arg("--concurrency").arg(threads().to_string());
    command.args(["--disable-hot-restart", "--log-level", "error"]);
    Ok(command)
}

/// What loads the module: nothing, where it is compiled in. `None`: nginx has no such module.
fn stream_module() -> Option<String> {
    let file = STREAM_MODULES.into_iter().find(|file| Path::new(file).is_file());
    let compiled_in = || {
        let output = Command::new("nginx").arg("-V").output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.split(' ').any(|argument| argument == "--with-stream").then(String::new)
    };
    file.map(|file| format!("load_module {file};")).or_else(compiled_in)
}
