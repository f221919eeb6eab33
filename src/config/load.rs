//! From a path to a configuration: reads, joins, decodes, resolves.

use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::Arc;

use crate::model::routes_file::RoutesFile;
use crate::model::snapshot::Routes;

use super::disk::{self, Content, Fingerprint, Opened};
use super::file::File;
use super::problem::{Problem, Problems, Wrong};
use super::resolve::{NamedFile, Resolved, resolve};
use super::stamps::Stamps;
use super::tree::{NodeId, Tree, Value};
use super::{Config, decode, merge, routes_file};

/// A configuration that is valid, and what it was made of.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the operator should know; it stops nothing.
    pub warnings: Vec<Problem>,
    /// Stands for all contents read, routes files included: equal fingerprints mean that nothing has changed.
    pub fingerprint: u64,
    /// All files read, routes files last.
    pub files: Vec<PathBuf>,
}

/// What a look at the files gave, good or bad.
#[derive(Debug)]
pub struct Reading {
    /// The configuration, or all that is wrong with it.
    pub outcome: Result<Loaded, Vec<Problem>>,
    /// Stands for all contents read.
    pub fingerprint: u64,
    /// Tells without reading that all files still are those that were read.
    pub stamps: Stamps,
    /// The YAML files read.
    pub files: Vec<PathBuf>,
    /// The routes files that they name.
    pub routes_files: Vec<PathBuf>,
    /// What there is of the routes when something is wrong, perhaps with them: names that collide do so in any case.
    pub partial: Option<Routes>,
}

/// Loads a file, or a directory of files.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    read(path).outcome
}

/// Loads a file or directory, and tells what was read even when it is wrong, so that a watcher knows where to wait.
pub fn read(path: &Path) -> Reading {
    let mut stamps = Stamps::new();
    let reading = match disk::yaml_files(path) {
        Ok(files) => {
            let mut read = |file: PathBuf| (disk::read_yaml(&file, &mut stamps), file);
            let contents: Vec<_> = files.into_iter().map(&mut read).collect();
            let contents = contents.into_iter().map(|(content, file)| (file, content)).collect();
            assemble(path, contents, &mut |file| disk::open_routes(file, &mut stamps))
        }
        Err(error) => {
            let mut fingerprint = Fingerprint::default();
            let problem = unreadable(path, &error);
            fingerprint.add(path, &Err(error));
            Reading {
                outcome: Err(vec![problem]),
                fingerprint: fingerprint.finish(),
                stamps: Stamps::default(),
                files: vec![],
                routes_files: vec![],
                partial: None,
            }
        }
    };
    Reading { stamps, ..reading }
}

/// Loads one file's text, without a look at the disk: routes files that it names count as missing.
pub fn parse_text(name: &Path, text: &[u8]) -> Result<Loaded, Vec<Problem>> {
    let mut missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    assemble(name, vec![(name.to_owned(), Ok(text.to_owned()))], &mut missing).outcome
}

/// Checks one routes file's text.
pub fn parse_routes_text(name: &Path, text: &[u8]) -> Result<RoutesFile, Vec<Problem>> {
    let (mut problems, mut fingerprint) = (Problems::default(), Fingerprint::default());
    let opened = Opened { source: Box::new(io::Cursor::new(text.to_owned())), length: text.len() };
    // Memory is read without errors.
    let file = routes_file::read(name, opened, &mut fingerprint, &mut problems).ok().flatten();
    let (errors, _) = problems.finish();
    file.filter(|_| errors.is_empty()).ok_or(errors)
}

type OpenRoutes<'a> = &'a mut dyn FnMut(&Path) -> io::Result<Opened>;

fn assemble(path: &Path, contents: Vec<(PathBuf, Content)>, open: OpenRoutes<'_>) -> Reading {
    let mut fingerprint = Fingerprint::default();
    for (file, content) in &contents {
        fingerprint.add(file, content);
    }
    let files: Vec<PathBuf> = contents.iter().map(|(file, _)| file.clone()).collect();
    let mut problems = Problems::default();
    let resolved = written(path, contents, &mut problems);
    let routes_files = resolved.iter().flat_map(|resolved| &resolved.routes_files);
    let routes_files: Vec<_> = routes_files.map(|file| file.path.clone()).collect();
    let complete =
        resolved.map(|resolved| complete(resolved, open, &mut fingerprint, &mut problems));
    let fingerprint = fingerprint.finish();
    let (errors, warnings) = problems.finish();
    let (outcome, partial) = match complete {
        Some(Ok(config)) if errors.is_empty() => {
            let files = [&*files, &*routes_files].concat();
            (Ok(Loaded { config, warnings, fingerprint, files }), None)
        }
        Some(Ok(config)) => (Err(errors), Arc::into_inner(config.routes)),
        Some(Err(routes)) => (Err(errors), Some(*routes)),
        None => (Err(errors), None),
    };
    let stamps = Stamps::default();
    Reading { outcome, fingerprint, stamps, files, routes_files, partial }
}

/// What the YAML files say. `None` only together with errors.
fn written(
    path: &Path,
    contents: Vec<(PathBuf, Content)>,
    problems: &mut Problems,
) -> Option<Resolved> {
    let (tree, root) = tree(path, contents, problems)?;
    let file: File = decode::decode(&tree, root, problems)?;
    Some(resolve(&tree, root, &file, problems))
}

fn tree(
    path: &Path,
    contents: Vec<(PathBuf, Content)>,
    problems: &mut Problems,
) -> Option<(Tree, NodeId)> {
    if contents.is_empty() {
        let fix = "put *.yaml files there, or name a file; hidden ones do not count";
        problems.error(|| {
            Problem::of_file(path, Wrong::new("no *.yaml or *.yml in this directory", fix))
        });
    }
    let mut tree = Tree::default();
    let mut roots = Vec::new();
    let mut whole = true;
    for (file, content) in contents {
        let text =
            readable(&file, content, problems).and_then(|bytes| utf8(&file, bytes, problems));
        match text.map(|text| tree.read(&file, text, problems)) {
            Some(Ok(root)) => roots.extend(root),
            Some(Err(())) | None => whole = false,
        }
    }
    // With a file missing, the others would seem to miss what stands in it.
    if !whole {
        return None;
    }
    tree.complete();
    let root = merge::merge(&mut tree, roots, problems);
    let root = root.filter(|&root| !matches!(tree.value(root), Value::Null));
    if root.is_none() && !problems.has_errors() {
        let fix = "write at least `cluster: NAME`; config/strait.yaml has every key";
        problems.error(|| Problem::of_file(path, Wrong::new("there is no setting in it", fix)));
    }
    tree.complete();
    root.map(|root| (tree, root))
}

fn readable(file: &Path, content: Content, problems: &mut Problems) -> Option<Vec<u8>> {
    content.map_err(|error| problems.error(|| unreadable(file, &error))).ok()
}

fn unreadable(file: &Path, error: &io::Error) -> Problem {
    let fix = if error.kind() == io::ErrorKind::NotFound {
        "check the path; a relative one counts from the folder of the file that names it, or from the working directory"
    } else {
        "make it readable for the user that the gateway runs as"
    };
    Problem::of_file(file, Wrong::new(format!("cannot be read: {error}"), fix))
}

fn utf8(file: &Path, bytes: Vec<u8>, problems: &mut Problems) -> Option<String> {
    let wrong =
        |error: FromUtf8Error| routes_file::not_utf8(file, error.as_bytes(), error.utf8_error(), 0);
    String::from_utf8(bytes).map_err(|error| problems.error(|| wrong(error))).ok()
}

/// Adds the routes files and puts everything together. Without a cluster's name there are the routes alone.
fn complete(
    resolved: Resolved,
    open: OpenRoutes<'_>,
    fingerprint: &mut Fingerprint,
    problems: &mut Problems,
) -> Result<Config, Box<Routes>> {
    let mut files = Vec::new();
    for NamedFile { path, problem } in &resolved.routes_files {
        fingerprint.add_path(path);
        let read =
            open(path).and_then(|opened| routes_file::read(path, opened, fingerprint, problems));
        let read = read.map_err(|error| {
            fingerprint.add_error(&error);
            problems.error(|| Problem {
                message: format!("{}: cannot be read: {error}", path.display()),
                ..problem.clone()
            });
        });
        files.extend(read.ok().flatten().map(Arc::new));
    }
    let Resolved {
        routes,
        reserved,
        local,
        callers,
        egress,
        peers,
        namespaces,
        permissions,
        store,
        cluster,
        listeners,
        settings,
        resolver,
        links,
        state_dir,
        ..
    } = resolved;
    let name = cluster.clone().unwrap_or_default();
    let routes = Routes {
        routes,
        files,
        reserved,
        local,
        callers,
        cluster: name,
        peers,
        namespaces,
        permissions,
        egress,
    };
    let Some(cluster) = cluster else { return Err(Box::new(routes)) };
    let (settings, routes) = (Arc::new(settings), Arc::new(routes));
    Ok(Config { cluster, listeners, settings, resolver, links, store, routes, state_dir })
}
