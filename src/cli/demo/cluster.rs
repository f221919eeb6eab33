//! One cluster: a gateway at its edge, configured by a file that it watches, and the apps behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::admin::status::Status;
use crate::app::{Gateway, Options};
use crate::cli::allowed;
use crate::cli::client::{self, Admin, AdminUrl};
use crate::permissions::api::wire::RemoteApp;

use super::DemoError;
use super::app::App;

/// What has not happened within this time does not happen. A gateway needs a quarter of a second for a changed file; a busy machine
/// gets more.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// How often to ask whether it has.
const GLANCE: Duration = Duration::from_millis(10);

/// Where a cluster's gateway listens. Ports stay the same when it is started again, as in real life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// For connections.
    pub(super) ingress: SocketAddr,
    /// For whoever looks after it.
    pub(super) admin: SocketAddr,
}

/// A cluster.
pub(super) struct Cluster {
    /// Its name.
    pub(super) name: &'static str,
    /// Where its gateway listens.
    pub(super) places: Places,
    /// Its gateway's configuration.
    pub(super) file: PathBuf,
    /// What its gateway is in front of.
    pub(super) apps: Vec<App>,
    gateway: Option<Gateway>,
}

/// Asks until there is an answer.
pub(super) async fn until<T>(
    cluster: &'static str,
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, DemoError>,
) -> Result<T, DemoError> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if began.elapsed() > SETTLE {
            return Err(DemoError::Late { cluster, what });
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// A free port of an address. Nobody else takes one of these addresses but by chance, so it is still free a moment later.
pub(super) fn free(address: Ipv4Addr) -> Result<SocketAddr, DemoError> {
    let anywhere = SocketAddr::new(IpAddr::V4(address), 0);
    let bound = TcpListener::bind(anywhere).and_then(|listener| listener.local_addr());
    bound.map_err(|source| DemoError::Address { address: anywhere, source })
}

impl Places {
    /// Free ones at an address of the cluster.
    pub(super) fn at(address: Ipv4Addr) -> Result<Self, DemoError> {
        Ok(Self { ingress: free(address)?, admin: free(address)? })
    }
}

impl Cluster {
    /// Writes the configuration and starts the gateway from it.
    pub(super) async fn start(
        name: &'static str,
        folder: &Path,
        places: Places,
        configuration: &str,
        apps: Vec<App>,
    ) -> Result<Self, DemoError> {
        let file = folder.join(name).join("strait.yaml");
        write(&file, configuration)?;
        let mut cluster = Self { name, places, file, apps, gateway: None };
        cluster.begin().await?;
        Ok(cluster)
    }

    /// Starts the gateway, again if it has been killed.
    pub(super) async fn begin(&mut self) -> Result<(), DemoError> {
        // One core each: this is there to be read, not to be fast.
        let options = Options { config: self.file.clone(), cores: 1, handover: None };
        self.gateway = Some(Box::pin(Gateway::start(options)).await?);
        Ok(())
    }

    /// Ends the gateway as a crash does: every connection is cut.
    pub(super) async fn kill(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
    }

    /// The app of that id.
    pub(super) fn app(&mut self, id: &str) -> Option<&mut App> {
        self.apps.iter_mut().find(|app| app.id == id)
    }

    /// Its admin API, as `--admin` takes it.
    pub(super) fn admin(&self) -> AdminUrl {
        AdminUrl::Tcp(self.places.admin.to_string())
    }

    /// What `strait status` shows.
    pub(super) async fn status(&self) -> Result<Status, DemoError> {
        let answer = client::get(&Admin::near(self.admin()), "/status", SETTLE).await?;
        let read = serde_json::from_str(&answer.body);
        read.map_err(|_| DemoError::Lacking { cluster: self.name, what: "status" })
    }

    /// Changes words of the configuration and waits until they are in force. Says how long that took.
    pub(super) async fn change(&self, from: &str, to: &str) -> Result<Duration, DemoError> {
        let before = self.status().await?.generation;
        let failed = |source| DemoError::File { path: self.file.clone(), source };
        let text = fs::read_to_string(&self.file).map_err(failed)?;
        write(&self.file, &text.replace(from, to))?;
        let written = Instant::now();
        until(self.name, "taken up its changed configuration", async || {
            Ok((self.status().await?.generation > before).then_some(()))
        })
        .await?;
        Ok(written.elapsed())
    }

    /// Asks for what `strait allow CALLER TARGET` asks for, or `strait revoke`. Says how long it took until that was in force.
    pub(super) async fn permit(
        &self,
        verb: &str,
        caller: &str,
        target: &str,
    ) -> Result<Duration, DemoError> {
        let remote = RemoteApp { app: target.to_owned(), clusters: Vec::new() };
        let admin = Admin::near(self.admin());
        let (_, written) = Box::pin(allowed::request(&admin, caller, verb, &remote)).await?;
        let after = written.in_force_after_ms.filter(|_| written.in_force == Some(true));
        let late = DemoError::Late { cluster: self.name, what: "put a permission in force" };
        after.map(Duration::from_millis).ok_or(late)
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
