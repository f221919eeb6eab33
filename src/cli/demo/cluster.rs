//! One cluster: a gateway at its edge, configured by a file that it watches, and the apps behind it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::app::{Gateway, Options};
use crate::cli::client::{self, AdminUrl};

use super::DemoError;
use super::app::App;
use super::certificates::Authority;

/// Within this time a changed file is in force. A gateway needs a quarter of a second; a busy machine gets more.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// How often to ask whether it is.
const GLANCE: Duration = Duration::from_millis(20);

/// What a cluster is made of.
#[derive(Debug)]
pub(super) struct Layout {
    /// Its name.
    pub(super) name: &'static str,
    /// Where its gateway and its apps listen, each on a free port.
    pub(super) address: Ipv4Addr,
    /// The network that its callers call from.
    pub(super) network: &'static str,
    /// Apps that the other cluster may call, `namespace/app`, each with the `allow` rule that says from where.
    pub(super) exports: &'static [(&'static str, &'static str)],
}

/// A running cluster.
pub(super) struct Cluster {
    /// What it was started from.
    pub(super) layout: &'static Layout,
    /// Its gateway's configuration.
    pub(super) file: PathBuf,
    /// Where its gateway takes connections.
    pub(super) ingress: SocketAddr,
    /// Its gateway's admin API.
    pub(super) admin: AdminUrl,
    gateway: Gateway,
    neighbour: &'static Layout,
    exports: Vec<Export>,
}

struct Export {
    app: App,
    allow: &'static str,
}

/// The name under which callers know an app, as the gateways' `names` pattern makes it.
pub(super) fn name_of(app: &str) -> String {
    let (namespace, id) = app.split_once('/').unwrap_or(("default", app));
    format!("{id}.{namespace}.mesh.example")
}

impl Cluster {
    /// Starts the apps, writes the configuration, starts the gateway from it.
    pub(super) async fn start(
        layout: &'static Layout,
        neighbour: &'static Layout,
        folder: &Path,
        authority: &Authority,
    ) -> Result<Self, DemoError> {
        let mut exports = Vec::new();
        for &(id, allow) in layout.exports {
            let tls = authority.server(&authority.issue(id)?)?;
            let anywhere = SocketAddr::new(IpAddr::V4(layout.address), 0);
            exports.push(Export { app: App::start(id, layout.name, anywhere, tls).await?, allow });
        }
        let file = folder.join(layout.name).join("strait.yaml");
        write(&file, &yaml(layout, neighbour, &exports))?;
        // One core each: this is there to be read, not to be fast.
        let gateway =
            Gateway::start(Options { config: file.clone(), cores: 1, handover: None }).await?;
        let missing = |what| DemoError::Lacking { cluster: layout.name, what };
        let ingress = gateway.ingress().first().copied().ok_or(missing("ingress listener"))?;
        let admin = gateway.admin().parse().map_err(|_| missing("admin API"))?;
        Ok(Self { layout, file, ingress, admin, gateway, neighbour, exports })
    }

    /// The app of that id.
    pub(super) fn app(&mut self, id: &str) -> Option<&mut App> {
        self.exports.iter_mut().map(|export| &mut export.app).find(|app| app.id == id)
    }

    /// The apps that can be called.
    pub(super) fn apps(&self) -> impl Iterator<Item = &App> {
        self.exports.iter().map(|export| &export.app)
    }

    /// Gives an app another `allow` rule by writing the file and waits until it is in force. Says how long that took.
    pub(super) async fn allow(
        &mut self,
        app: &str,
        rule: &'static str,
    ) -> Result<Duration, DemoError> {
        let before = self.generation().await?;
        for export in self.exports.iter_mut().filter(|export| export.app.id == app) {
            export.allow = rule;
        }
        write(&self.file, &yaml(self.layout, self.neighbour, &self.exports))?;
        let written = Instant::now();
        while self.generation().await? <= before {
            if written.elapsed() > SETTLE {
                return Err(DemoError::Unchanged { cluster: self.layout.name });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(written.elapsed())
    }

    /// Stops the gateway, then the apps.
    pub(super) async fn stop(self) {
        self.gateway.stop().await;
    }

    /// Number of the table that the gateway works with.
    async fn generation(&self) -> Result<u64, DemoError> {
        let answer = client::get(&self.admin, "/metrics", SETTLE).await?;
        let mut values =
            answer.body.lines().filter_map(|line| line.strip_prefix("strait_table_generation "));
        let value = values.next().and_then(|value| value.parse().ok());
        value.ok_or(DemoError::Lacking { cluster: self.layout.name, what: "table" })
    }
}

/// Writes a configuration by renaming, so that the gateway never reads half of one.
fn write(file: &Path, text: &str) -> Result<(), DemoError> {
    let beside = file.with_extension("new");
    let written = || -> io::Result<()> {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        fs::write(&beside, text)?;
        fs::rename(&beside, file)
    };
    written().map_err(|source| DemoError::File { path: file.to_owned(), source })
}

fn yaml(layout: &Layout, neighbour: &Layout, exports: &[Export]) -> String {
    let Layout { name, address, .. } = layout;
    let Layout { name: peer, network: peer_network, .. } = neighbour;
    let mut text = format!(
        "\
# The gateway of {name} in `strait demo`. It takes up every change of this file at once.
cluster: {name}
listeners:
  ingress: [{{ address: \"{address}:0\" }}]
  admin: {{ address: \"127.0.0.1:0\" }}
names: [\"{{app}}.{{namespace}}.mesh.example\"]
clusters:
  {peer}: {{ networks: [{peer_network}] }}
"
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "apps:");
    for Export { app, .. } in exports {
        let _ = writeln!(text, "  - {{ app: {}, endpoints: [\"{}\"] }}", app.id, app.address);
    }
    let _ = writeln!(text, "exports:");
    for Export { app, allow } in exports {
        let _ = writeln!(text, "  - {{ app: {}, allow: [{allow}] }}", app.id);
    }
    text
}
