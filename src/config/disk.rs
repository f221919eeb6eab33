//! Which files are the configuration, and what stands in them.

use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::model::folding::Folding;

use super::stamps::Stamps;

/// Largest YAML file: the limit of values stops at about a tenth of it, so it only keeps a slip (a disk image, a log) out of
/// memory.
const MAX_YAML_BYTES: u64 = 256 << 20;
/// Largest routes file: ten million lines of a hundred bytes, and line numbers and offsets fit into 32 bits.
const MAX_ROUTES_BYTES: u64 = 1 << 30;

/// A file's content, or why there is none.
pub(super) type Content = io::Result<Vec<u8>>;

/// A file to read from, once.
pub(super) struct Opened {
    pub(super) source: Box<dyn Read>,
    /// Bytes that it had when it was opened.
    pub(super) length: usize,
}

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

/// Reads a YAML file and notes what it was.
pub(super) fn read_yaml(path: &Path, stamps: &mut Stamps) -> Content {
    let Opened { mut source, length } = open(path, MAX_YAML_BYTES, stamps)?;
    let mut bytes = Vec::with_capacity(length);
    source.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a routes file and notes what it was.
pub(super) fn open_routes(path: &Path, stamps: &mut Stamps) -> io::Result<Opened> {
    open(path, MAX_ROUTES_BYTES, stamps)
}

/// Opens first and looks at the kind then: between a look and an opening the file may become another one.
fn open(path: &Path, most: u64, stamps: &mut Stamps) -> io::Result<Opened> {
    let opened = open_at_once(path).and_then(|file| Ok((file.metadata()?, file)));
    stamps.add(path, opened.as_ref().ok().map(|(metadata, _)| metadata));
    let (metadata, file) = opened?;
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
    // Should it grow meanwhile: no further than this.
    let source = Box::new(file.take(most));
    Ok(Opened { source, length: usize::try_from(metadata.len()).unwrap_or_default() })
}

/// Opens without waiting: a pipe that nobody writes to would hold an ordinary opening for ever.
fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits());
    OpenOptions::new().read(true).custom_flags(flags.unwrap_or_default()).open(path)
}

/// Folds files' names and contents, or why they cannot be read, into one number: equal numbers mean that nothing has changed.
#[derive(Debug, Default)]
pub(super) struct Fingerprint(Folding);

impl Fingerprint {
    pub(super) fn add(&mut self, path: &Path, content: &Content) {
        path.hash(&mut self.0);
        match content {
            Ok(bytes) => bytes.hash(&mut self.0),
            Err(error) => self.add_error(error),
        }
    }

    /// A file whose content comes in pieces.
    pub(super) fn add_path(&mut self, path: &Path) {
        path.hash(&mut self.0);
    }

    /// Where pieces end is up to the content alone.
    pub(super) fn add_piece(&mut self, piece: &[u8]) {
        piece.hash(&mut self.0);
    }

    pub(super) fn add_error(&mut self, error: &io::Error) {
        error.to_string().hash(&mut self.0);
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe.yaml");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let mut stamps = Stamps::new();
        for read in [read_yaml(&path, &mut stamps).err(), open_routes(&path, &mut stamps).err()] {
            assert_eq!(read.unwrap().to_string(), "it is not a regular file");
        }
    }
}
