//! What outlives the process: a folder with a file of JSON for each source, which holds what that source said last.
//!
//! A file is replaced whole or not at all: written beside itself, brought to disk, then renamed. Its time of modification is when
//! the content was last known to be true, so that nothing has to be written while nothing changes.

use std::fmt;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a file says of itself, so that nothing else is taken for one.
const FORMAT: &str = "strait-state";
/// Raised when an older program would misread a file. Another version is not read: what it says is known again soon.
const VERSION: u32 = 1;
/// Only files with this ending are ever read or removed; others may stand beside them.
const ENDING: &str = ".snapshot.json";
/// A million hosts take 60 MB. More is no file of ours.
const MAX_BYTES: u64 = 256 << 20;
/// Names of apps, of addresses: they tell how a cluster is built.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Whoever else may write a file decides where callers are led.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// The folder. It need not exist: the first file makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// Something read from the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<T> {
    /// What the source said.
    pub snapshot: T,
    /// When that was last known to be true.
    pub as_of: SystemTime,
}

/// What went wrong with one path.
#[derive(Debug, thiserror::Error)]
#[error("{}: {trouble}", path.display())]
pub struct StateError {
    /// The file, or the folder.
    pub path: PathBuf,
    trouble: Trouble,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("it is not a regular file of at most {MAX_BYTES} bytes")]
    NoFile,
    #[error("others may write it (mode {0:03o}), so it may say anything; chmod 600 if it is yours")]
    Writable(u32),
    #[error("it is damaged: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("it is no state of the source {0}")]
    Foreign(String),
    #[error("it has version {0} of the format, and this program reads {VERSION}")]
    Version(u32),
}

/// The file's content, or its beginning where that is all that is asked for.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    format: String,
    version: u32,
    source: String,
    snapshot: T,
}

impl Folder {
    /// A folder at this path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// What is kept of a source; `None` when nothing is.
    pub fn load<T: DeserializeOwned>(&self, source: &str) -> Result<Option<Kept<T>>, StateError> {
        let path = self.file(source);
        match read(&path) {
            Ok((bytes, as_of)) => {
                let snapshot = parse(source, &bytes).map_err(|trouble| of(&path)(trouble))?;
                Ok(Some(Kept { snapshot, as_of }))
            }
            Err(Trouble::System(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(trouble) => Err(StateError { path, trouble }),
        }
    }

    /// Keeps what a source said, in place of what was kept before.
    pub fn keep<T: Serialize>(&self, source: &str, kept: &Kept<T>) -> Result<(), StateError> {
        let path = self.file(source);
        let written = self.write(source, &path, kept);
        written.map_err(of(&path))
    }

    /// What is kept of a source was true at this time too.
    pub fn confirm(&self, source: &str, as_of: SystemTime) -> Result<(), StateError> {
        let path = self.file(source);
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.set_modified(as_of)).map_err(of(&path))
    }

    /// Removes what is kept of all but these sources, and what an interrupted writing has left.
    pub fn keep_only(&self, is_wanted: impl Fn(&str) -> bool) -> Result<(), StateError> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(of(&self.0))?,
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let source = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            if source.is_some_and(|source| !is_wanted(&source.replace('@', "/"))) {
                fs::remove_file(entry.path()).map_err(of(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// `exchange/east` becomes `exchange@east.snapshot.json`: no name of a source holds an `@`.
    fn file(&self, source: &str) -> PathBuf {
        self.0.join(format!("{}{ENDING}", source.replace('/', "@")))
    }

    fn write<T: Serialize>(
        &self,
        source: &str,
        path: &Path,
        kept: &Kept<T>,
    ) -> Result<(), Trouble> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.0)?;
        let content = Content {
            format: FORMAT.to_owned(),
            version: VERSION,
            source: source.to_owned(),
            snapshot: &kept.snapshot,
        };
        let bytes = serde_json::to_vec_pretty(&content)?;
        // Ends as the others do, so that what a crash leaves is found and removed. No source begins with a dot.
        let chance = RandomState::new().hash_one(path);
        let beside = self.0.join(format!(".{chance:016x}{ENDING}"));
        let written = write_beside(&beside, &bytes, kept.as_of).and_then(|()| {
            fs::rename(&beside, path)?;
            File::open(&self.0)?.sync_all()
        });
        if written.is_err() {
            // May not be there at all.
            let _ = fs::remove_file(&beside);
        }
        Ok(written?)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(out)
    }
}

fn of<T: Into<Trouble>>(path: &Path) -> impl Fn(T) -> StateError {
    |trouble| StateError { path: path.to_owned(), trouble: trouble.into() }
}

/// Opens without waiting and looks at the kind then: a pipe would hold an ordinary opening for ever.
fn read(path: &Path) -> Result<(Vec<u8>, SystemTime), Trouble> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(Trouble::NoFile);
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS_MAY_WRITE != 0 {
        return Err(Trouble::Writable(mode));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.modified()?))
}

/// The head first: of another version nothing else is known.
fn parse<T: DeserializeOwned>(source: &str, bytes: &[u8]) -> Result<T, Trouble> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
        source: String,
    }
    let head: Head = serde_json::from_slice(bytes)?;
    if head.format != FORMAT || head.source != source {
        return Err(Trouble::Foreign(source.to_owned()));
    }
    if head.version != VERSION {
        return Err(Trouble::Version(head.version));
    }
    let content: Content<T> = serde_json::from_slice(bytes)?;
    Ok(content.snapshot)
}

fn write_beside(beside: &Path, bytes: &[u8], as_of: SystemTime) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(beside)?;
    file.write_all(bytes)?;
    file.set_times(FileTimes::new().set_modified(as_of))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tempfile::TempDir;

    const SOURCE: &str = "exchange/east";

    fn folder() -> (TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(&root.path().join("below/state"));
        (root, folder)
    }

    fn kept(snapshot: &[&str]) -> Kept<Vec<String>> {
        let as_of = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Kept { snapshot: snapshot.iter().map(ToString::to_string).collect(), as_of }
    }

    fn load(folder: &Folder) -> Result<Option<Kept<Vec<String>>>, String> {
        folder.load(SOURCE).map_err(|error| {
            let name = error.path.file_name().unwrap().to_str().unwrap().to_owned();
            format!("{name}: {}", error.trouble)
        })
    }

    fn files(folder: &Folder) -> Vec<String> {
        let entries = fs::read_dir(&folder.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_comes_back_with_its_time() {
        let (_root, folder) = folder();
        assert_eq!(load(&folder), Ok(None));
        folder.keep(SOURCE, &kept(&["a"])).unwrap();
        folder.keep(SOURCE, &kept(&["b", "c"])).unwrap();
        assert_eq!(load(&folder), Ok(Some(kept(&["b", "c"]))));
        assert_eq!(files(&folder), ["exchange@east.snapshot.json"]);
        let later = kept(&[]).as_of + Duration::from_mins(1);
        folder.confirm(SOURCE, later).unwrap();
        assert_eq!(load(&folder).unwrap().unwrap().as_of, later);
    }

    #[test]
    fn nobody_else_reads_or_writes_what_is_kept() {
        let (_root, folder) = folder();
        folder.keep(SOURCE, &kept(&["a"])).unwrap();
        let file = folder.file(SOURCE);
        assert_eq!((mode(&file), mode(&folder.0)), (0o600, 0o700));
        assert_eq!(mode(folder.0.parent().unwrap()), 0o700, "the folder above is made too");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(load(&folder).unwrap_err().contains("others may write it (mode 620)"));
        // A folder that was there keeps the rights that its owner gave it.
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o750)).unwrap();
        folder.keep(SOURCE, &kept(&["b"])).unwrap();
        assert_eq!((mode(&file), mode(&folder.0)), (0o600, 0o750));
    }

    #[test]
    fn what_is_no_whole_file_of_this_version_and_source_is_named_and_not_used() {
        let (_root, folder) = folder();
        folder.keep(SOURCE, &kept(&["a"])).unwrap();
        let file = folder.file(SOURCE);
        let whole = fs::read_to_string(&file).unwrap();
        let cases = [
            (String::new(), "it is damaged: EOF"),
            (whole[..whole.len() - 3].to_owned(), "it is damaged: EOF"),
            (whole.replace('[', "{"), "it is damaged"),
            (whole.replace("\"a\"", "1"), "it is damaged: invalid type"),
            (format!("{whole}x"), "it is damaged: trailing"),
            (whole.replace("\"version\": 1", "\"version\": 2"), "it has version 2 of the format"),
            (whole.replace("strait-state", "state"), "it is no state of the source exchange/east"),
            (whole.replace("exchange/east", "dns"), "it is no state of the source exchange/east"),
        ];
        for (text, expected) in cases {
            fs::write(&file, &text).unwrap();
            let told = load(&folder).unwrap_err();
            assert!(
                told.starts_with(&format!("exchange@east.snapshot.json: {expected}")),
                "{told}"
            );
        }
        fs::write(&file, [0xff, 0xfe, 0]).unwrap();
        assert!(load(&folder).unwrap_err().contains("it is damaged"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(load(&folder).unwrap_err().contains("it is not a regular file"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let folder = Folder::new(&root.path().join("file/state"));
        let told = folder.keep(SOURCE, &kept(&["a"])).unwrap_err().to_string();
        assert!(told.contains("file/state/exchange@east.snapshot.json: "), "{told}");
        assert!(folder.keep_only(|_| true).is_err());
        // A folder in the place of the file: written beside it, and the rename fails.
        let folder = Folder::new(root.path());
        fs::create_dir_all(folder.file(SOURCE).join("full")).unwrap();
        assert!(folder.keep(SOURCE, &kept(&["a"])).is_err());
        assert_eq!(files(&folder), ["exchange@east.snapshot.json", "file"]);
    }

    #[test]
    fn what_belongs_to_no_source_any_more_is_removed_and_nothing_else() {
        let (_root, folder) = folder();
        folder.keep_only(|_| true).unwrap();
        for source in [SOURCE, "exchange/west", "dns"] {
            folder.keep(source, &kept(&["a"])).unwrap();
        }
        for other in ["egress.lock", ".0123456789abcdef.snapshot.json"] {
            fs::write(folder.0.join(other), "").unwrap();
        }
        folder.keep_only(|source| source == SOURCE || source == "dns").unwrap();
        let left = ["dns.snapshot.json", "egress.lock", "exchange@east.snapshot.json"];
        assert_eq!(files(&folder), left);
    }
}
