//! From a path to a configuration: reads, joins, decodes, resolves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::snapshot::{Routes, RoutesFile};

use super::disk::{self, Content, Fingerprint};
use super::file::File;
use super::problem::{Problem, Problems, Wrong};
use super::resolve::{Resolved, resolve};
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
    match disk::yaml_files(path) {
        Ok(files) => {
            let contents = files.into_iter().map(|file| (disk::read_yaml(&file), file));
            assemble(
                path,
                contents.map(|(content, file)| (file, content)).collect(),
                disk::read_routes,
            )
        }
        Err(error) => {
            let mut fingerprint = Fingerprint::default();
            let problem = unreadable(path, &error);
            fingerprint.add(path, &Err(error));
            let fingerprint = fingerprint.finish();
            Reading {
                outcome: Err(vec![problem]),
                fingerprint,
                files: vec![],
                routes_files: vec![],
                partial: None,
            }
        }
    }
}

/// The fingerprint that [`read`] would give if the same routes files were named: reads, and parses nothing.
pub fn fingerprint(path: &Path, routes_files: &[PathBuf]) -> u64 {
    let mut fingerprint = Fingerprint::default();
    match disk::yaml_files(path) {
        Ok(files) => {
            for file in &files {
                fingerprint.add(file, &disk::read_yaml(file));
            }
            for file in routes_files {
                fingerprint.add(file, &disk::read_routes(file));
            }
        }
        Err(error) => fingerprint.add(path, &Err(error)),
    }
    fingerprint.finish()
}

/// Loads one file's text, without a look at the disk: routes files that it names count as missing.
pub fn parse_text(name: &Path, text: &[u8]) -> Result<Loaded, Vec<Problem>> {
    let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    assemble(name, vec![(name.to_owned(), Ok(text.to_owned()))], missing).outcome
}

/// Checks one routes file's text.
pub fn parse_routes_text(name: &Path, text: &[u8]) -> Result<RoutesFile, Vec<Problem>> {
    let mut problems = Problems::default();
    let file = utf8(name, text.to_owned(), &mut problems)
        .map(|text| routes_file::parse(name, text, &mut problems));
    let (errors, _) = problems.finish();
    file.filter(|_| errors.is_empty()).ok_or(errors)
}

type ReadRoutes = fn(&Path) -> Content;

fn assemble(path: &Path, contents: Vec<(PathBuf, Content)>, read_routes: ReadRoutes) -> Reading {
    let mut fingerprint = Fingerprint::default();
    for (file, content) in &contents {
        fingerprint.add(file, content);
    }
    let files: Vec<PathBuf> = contents.iter().map(|(file, _)| file.clone()).collect();
    let mut problems = Problems::default();
    let resolved = written(path, contents, &mut problems);
    let mut routes_files = Vec::new();
    let complete = resolved.map(|resolved| {
        let mut read = |file: &Path| {
            let content = read_routes(file);
            fingerprint.add(file, &content);
            routes_files.push(file.to_owned());
            content
        };
        complete(resolved, &mut read, &mut problems)
    });
    let fingerprint = fingerprint.finish();
    let (errors, warnings) = problems.finish();
    let (outcome, partial) = match complete {
        Some(Ok(config)) if errors.is_empty() => {
            let files = [&*files, &*routes_files].concat();
            (Ok(Loaded { config, warnings, fingerprint, files }), None)
        }
        Some(Ok(config)) => (Err(errors), Arc::into_inner(config.routes)),
        Some(Err(routes)) => (Err(errors), Some(routes)),
        None => (Err(errors), None),
    };
    Reading { outcome, fingerprint, files, routes_files, partial }
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
    String::from_utf8(bytes).map_err(|error| problems.error(|| not_utf8(file, &error))).ok()
}

fn not_utf8(file: &Path, error: &std::string::FromUtf8Error) -> Problem {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let before = text.get(..valid).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let line = u32::try_from(line).unwrap_or(u32::MAX);
    let bad = valid..valid + char::REPLACEMENT_CHARACTER.len_utf8();
    Problem::at(&file.into(), &text, line, bad, Wrong::new("not UTF-8", "save the file as UTF-8"))
}

/// Adds the routes files and puts everything together. Without a cluster's name there are the routes alone.
fn complete(
    resolved: Resolved,
    read: &mut dyn FnMut(&Path) -> Content,
    problems: &mut Problems,
) -> Result<Config, Routes> {
    let mut files = Vec::new();
    for file in &resolved.routes_files {
        let content = read(&file.path).map_err(|error| {
            problems.error(|| Problem {
                message: format!("{}: cannot be read: {error}", file.path.display()),
                ..file.problem.clone()
            });
        });
        let text = content.ok().and_then(|bytes| utf8(&file.path, bytes, problems));
        files.extend(text.map(|text| Arc::new(routes_file::parse(&file.path, text, problems))));
    }
    let Resolved { routes, reserved, cluster, listeners, settings, resolver, .. } = resolved;
    let routes = Routes { routes, files, reserved };
    let Some(cluster) = cluster else { return Err(routes) };
    let (settings, routes) = (Arc::new(settings), Arc::new(routes));
    Ok(Config { cluster, listeners, settings, resolver, routes })
}
