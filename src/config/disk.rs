//! Which files are the configuration, and what stands in them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// Largest YAML file: the limit of values stops at about a tenth of it, so it only keeps a slip (a disk image, a log) out of
/// memory.
const MAX_YAML_BYTES: u64 = 256 << 20;
/// Largest routes file: ten million lines of a hundred bytes, and line numbers and offsets fit into 32 bits.
const MAX_ROUTES_BYTES: u64 = 1 << 30;

/// A file's content, or why there is none.
pub(super) type Content = io::Result<Vec<u8>>;

/// The YAML files of a configuration, in the order in which they are joined: the file itself, or in a directory all `*.yaml` and
/// `*.yml`, by name, then those of the directories `*.d`. Hidden ones are not looked at: `..data` is Kubernetes' own.
pub(super) fn yaml_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = visible_entries(path)?;
    let mut files: Vec<PathBuf> =
        entries.iter().filter(|entry| is_yaml_file(entry)).cloned().collect();
    for directory in entries.iter().filter(|entry| is_drop_in(entry)) {
        files.extend(visible_entries(directory)?.into_iter().filter(|entry| is_yaml_file(entry)));
    }
    Ok(files)
}

/// The directories in which a change of the configuration shows.
pub(crate) fn directories(path: &Path, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = files.iter().map(|file| folder(file)).collect();
    if path.is_dir() {
        directories.push(path.to_owned());
        let entries = visible_entries(path).unwrap_or_default();
        directories.extend(entries.into_iter().filter(|entry| is_drop_in(entry)));
    } else {
        directories.push(folder(path));
    }
    directories.sort_unstable();
    directories.dedup();
    directories
}

/// The folder of a file, `.` for a bare name.
pub(super) fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn visible_entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

fn is_yaml_file(path: &Path) -> bool {
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    yaml && !path.is_dir()
}

fn is_drop_in(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "d") && path.is_dir()
}

/// Reads a YAML file.
pub(super) fn read_yaml(path: &Path) -> Content {
    read(path, MAX_YAML_BYTES)
}

/// Reads a routes file.
pub(super) fn read_routes(path: &Path) -> Content {
    read(path, MAX_ROUTES_BYTES)
}

fn read(path: &Path, most: u64) -> Content {
    let metadata = std::fs::metadata(path)?;
    // Anything else may never end or never begin: a device, a pipe.
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {most} bytes"),
        ));
    }
    std::fs::read(path)
}

/// Folds files' names and contents, or why they cannot be read, into one number: equal numbers mean that nothing has changed.
#[derive(Debug, Default)]
pub(super) struct Fingerprint(DefaultHasher);

impl Fingerprint {
    pub(super) fn add(&mut self, path: &Path, content: &Content) {
        path.hash(&mut self.0);
        match content {
            Ok(bytes) => bytes.hash(&mut self.0),
            Err(error) => error.to_string().hash(&mut self.0),
        }
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finish()
    }
}
