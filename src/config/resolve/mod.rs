//! From what was written to what can run: every value is parsed once, here, and is valid from then on.
#![expect(
    clippy::ref_option,
    reason = "the parts take settings as they stand in the written types"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::allowed::Permissions;
use crate::model::snapshot::{
    CallerSpec, EgressListeners, NamespaceImport, PeerSpec, ReservedName, RouteSpec,
};

use super::disk::folder;
use super::file::{File, List, Setting};
use super::problem::{Problem, Problems, Wrong};
use super::spot::Spot;
use super::tree::{NodeId, Tree};
use super::{Links, Listeners, Settings, Store};
use clusters::cluster_name;
use egress::Pins;
use imports::Known;

mod allowed;
mod apps;
mod callers;
mod clusters;
mod egress;
mod imports;
mod listeners;
mod namespaces;
mod routes;
mod services;
mod settings;
mod store;

/// All that a configuration says. Where an error was noted, a default stands, or nothing.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) cluster: Option<Arc<str>>,
    pub(super) listeners: Listeners,
    pub(super) settings: Settings,
    pub(super) resolver: super::Resolver,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) routes: Vec<RouteSpec>,
    pub(super) reserved: Vec<ReservedName>,
    pub(super) local: Vec<IpNet>,
    pub(super) callers: Vec<CallerSpec>,
    pub(super) egress: Option<EgressListeners>,
    pub(super) peers: Vec<PeerSpec>,
    pub(super) namespaces: Vec<NamespaceImport>,
    pub(super) permissions: Permissions,
    pub(super) store: Option<Store>,
    pub(super) links: Option<Links>,
    pub(super) routes_files: Vec<NamedFile>,
}

/// A routes file, and the problem to report when it cannot be read: at the place that names it.
#[derive(Debug)]
pub(super) struct NamedFile {
    pub(super) path: PathBuf,
    pub(super) problem: Problem,
}

/// Resolves a whole configuration; what is wrong is noted.
pub(super) fn resolve(tree: &Tree, root: NodeId, file: &File, problems: &mut Problems) -> Resolved {
    let mut resolver = Resolver { tree, problems };
    let (reserved, templates) = resolver.templates(&file.names);
    let cluster = resolver.cluster(&file.cluster, root);
    let (clusters, links) = resolver.clusters(&file.clusters, &file.link, cluster.clone());
    let local = resolver.local(&file.local);
    let apps = resolver.apps(&file.apps, &local);
    let templates = templates.as_deref();
    let mut routes = resolver.exports(&file.exports, &apps, templates, &clusters);
    let state_dir = file.state_dir.as_ref().and_then(|spot| resolver.path(spot));
    let listeners = resolver.listeners(file.listeners.as_ref());
    let written = file.listeners.as_ref().and_then(|spot| spot.value.as_ref());
    let written = written.and_then(|listeners| listeners.egress.as_ref());
    let egress = resolver.egress(written, state_dir.as_deref(), &listeners);
    let (local_networks, has_egress) = (&*local, written.is_some());
    let known =
        Known { apps: &apps, templates, clusters: &clusters, local: local_networks, has_egress };
    let mut pins = Pins::new();
    resolver.imports(&file.imports, &known, &mut pins, &mut routes);
    resolver.services(&file.services, &known, &mut pins, &mut routes);
    resolver.check_pins(file, egress.as_ref());
    resolver.check_ports(&file.services, egress.as_ref(), &listeners);
    let namespaces = resolver.namespaces(&file.imports, &known, &reserved);
    let permissions = resolver.permissions(file, &known, &reserved);
    let peers = namespaces::peers(&routes, &namespaces);
    routes.extend(resolver.routes(&file.routes, &clusters));
    Resolved {
        cluster,
        callers: apps.callers(),
        local,
        peers,
        namespaces,
        links,
        listeners,
        egress,
        settings: resolver.settings(file),
        store: resolver.allowed_apps_store(&file.allowed_apps),
        permissions,
        resolver: resolver.resolver(&file.resolver),
        state_dir,
        routes,
        reserved,
        routes_files: resolver.routes_files(&file.routes_files),
    }
}

/// What every part needs: the tree for places, the problems for mistakes.
struct Resolver<'a> {
    tree: &'a Tree,
    problems: &'a mut Problems,
}

impl Resolver<'_> {
    fn wrong(&mut self, node: NodeId, wrong: Wrong) {
        let tree = self.tree;
        self.problems.error(|| tree.problem(node, wrong));
    }

    fn doubtful(&mut self, node: NodeId, wrong: Wrong) {
        let tree = self.tree;
        self.problems.warning(|| tree.problem(node, wrong));
    }

    /// Parses a setting. `None` when it is not there or wrong; then that has been noted.
    fn parse<T>(
        &mut self,
        setting: &Setting<String>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        setting.as_ref().and_then(|spot| self.parse_spot(spot, parse))
    }

    fn parse_spot<T>(
        &mut self,
        spot: &Spot<String>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match parse(spot.value.as_deref()?) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(spot.node, wrong);
                None
            }
        }
    }

    /// A setting that must be there; `None` when it is not, which is noted.
    fn required<'s, T>(
        &mut self,
        setting: &'s Setting<T>,
        owner: NodeId,
        key: &str,
        fix: &str,
    ) -> Option<&'s Spot<T>> {
        if setting.is_none() {
            self.wrong(owner, Wrong::new(format!("`{key}` is missing"), fix));
        }
        setting.as_ref()
    }

    fn cluster(&mut self, written: &Setting<String>, root: NodeId) -> Option<Arc<str>> {
        let fix = "add `cluster: NAME`, a short name for this cluster such as `west`";
        let spot = self.required(written, root, "cluster", fix)?;
        self.parse_spot(spot, cluster_name)
    }

    /// A path as it counts: relative to the folder of the file that names it.
    fn beside(&self, node: NodeId, path: &Path) -> PathBuf {
        let folder = self.tree.file_of(node).map(|file| folder(file)).unwrap_or_default();
        if folder.as_os_str() == "." { path.to_owned() } else { folder.join(path) }
    }

    fn routes_files(&mut self, written: &List<String>) -> Vec<NamedFile> {
        let mut files: Vec<NamedFile> = Vec::new();
        for spot in items(written) {
            let Some(name) = &spot.value else { continue };
            let path = self.beside(spot.node, Path::new(name));
            if files.iter().any(|file| file.path == path) {
                self.wrong(
                    spot.node,
                    Wrong::new("this file is named twice", "remove one of the two"),
                );
                continue;
            }
            let open = Wrong::new(
                "every route of this file is open to whoever reaches a listener",
                "that is how routes files are; a route that needs `allow` belongs under `routes`",
            );
            self.doubtful(spot.node, open);
            let missing = Wrong::new(
                "",
                "check the path: a relative one counts from the folder of this file",
            );
            files.push(NamedFile { path, problem: self.tree.problem(spot.node, missing) });
        }
        files
    }
}

/// The items of a list that may be missing, or may have been no list.
fn items<T>(list: &List<T>) -> &[Spot<T>] {
    list.as_ref().and_then(|spot| spot.value.as_deref()).unwrap_or_default()
}
