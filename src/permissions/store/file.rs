//! Documents in a folder: `<namespace>.<app id>.json` for each caller. A namespace holds no dot, so a name says which part is
//! which; and there are no folders within, so that a Kubernetes `ConfigMap` may be mounted there.
//!
//! The version is the content's hash. A file is replaced whole, under a lock on the folder that every gateway of the machine takes.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::config::Stamp;
use crate::model::allowed::Version;
use crate::model::app::AppId;
use crate::watch::{POLL, Watch};

use super::dial::{PATIENCE, blocking};
use super::teller::Teller;
use super::{
    Doing, Entry, Expected, MOST_BYTES, MOST_BYTES_OF_ALL, MOST_KEYS, PREFIX, Store, StoreError,
    Told, Unreadable, versions,
};

const ENDING: &str = ".json";
/// Locked while a file is replaced. Hidden, as all that is no document.
const LOCK: &str = ".strait.lock";
/// Between two tries to get the lock. Who has it holds it for the time of a write.
const LOCK_AGAIN: Duration = Duration::from_millis(5);
/// Whoever may write these grants.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// A folder of documents.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// A document that was read, and what the system said of its file then.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    is_certain: bool,
}

/// What a look has found: of each key, what it has if that may be new.
type Found = Vec<(String, Option<Entry>)>;

impl Folder {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    async fn follow_all(&self, teller: &mut Teller<'_>) {
        let mut watch = Watch::new(POLL);
        let mut seen = None;
        while !teller.is_done() {
            // Before the look, so that a change during it is a sign.
            watch.follow([self.0.clone()]);
            let (folder, is_first, before) = (self.clone(), seen.is_none(), seen.take());
            let looked = blocking(move || folder.look(before.unwrap_or_default())).await;
            match looked {
                Err(reason) => {
                    teller.failed(reason).await;
                    continue;
                }
                Ok((now, found)) => {
                    seen = Some(now);
                    tell(teller, found, is_first).await;
                }
            }
            tokio::select! {
                () = watch.sign() => {}
                () = teller.done() => {}
            }
        }
    }

    /// Reads what has changed since the files were seen.
    fn look(
        &self,
        mut before: HashMap<String, Seen>,
    ) -> io::Result<(HashMap<String, Seen>, Found)> {
        let (mut now, mut found, mut bytes) = (HashMap::new(), Vec::new(), 0);
        for entry in fs::read_dir(&self.0).map_err(|error| self.about(&error))? {
            let name = entry?.file_name();
            let Some(key) = name.to_str().and_then(key) else { continue };
            let file = look_at(&self.0.join(&name), before.get(&key));
            // Gone since the folder was listed.
            let Some((seen, entry)) = file.map_err(|error| self.about(&error))? else { continue };
            before.remove(&key);
            if let Some(entry) = entry {
                bytes += entry.value.as_ref().map_or(0, String::len);
                found.push((key.clone(), Some(entry)));
            }
            now.insert(key, seen);
            if now.len() > MOST_KEYS || bytes > MOST_BYTES_OF_ALL {
                let message =
                    format!("more than {MOST_KEYS} documents or {MOST_BYTES_OF_ALL} bytes");
                return Err(self.about(&io::Error::other(message)));
            }
        }
        found.extend(before.into_keys().map(|key| (key, None)));
        Ok((now, found))
    }

    /// Does something while no other gateway of this machine does.
    fn alone<T>(&self, act: impl FnOnce(&Path) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.0);
        let lock = made.and_then(|()| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).mode(FILE_MODE).open(self.0.join(LOCK))
        });
        let lock = lock.map_err(|error| refused(&self.0, &error))?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                // Dropping the file gives the lock back.
                Ok(()) => return act(&self.0),
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => {
                    std::thread::sleep(LOCK_AGAIN);
                }
                Err(error) => return Err(StoreError::Unavailable(format!("{LOCK}: {error}"))),
            }
        }
    }

    fn about(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.0.display()))
    }

    /// Runs what blocks beside the others.
    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&folder)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}

impl Store for Folder {
    fn describe(&self) -> String {
        format!("folder {}", self.0.display())
    }

    fn follow<'a>(&'a self, told: &'a mpsc::Sender<Told>) -> Doing<'a, ()> {
        Box::pin(async move { self.follow_all(&mut Teller::new(told)).await })
    }

    fn read<'a>(&'a self, key: &'a str) -> Doing<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            let file = self.0.join(file(key)?);
            self.run(move |_| Ok(current(&file))).await
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<Version, StoreError>> {
        Box::pin(async move {
            let (name, value, expected) = (file(key)?, value.to_owned(), expected.clone());
            let write = move |folder: &Path| {
                let file = folder.join(name);
                versions::check(&expected, current(&file).map(|entry| entry.version).as_ref())?;
                replace(folder, &file, value.as_bytes()).map_err(|error| refused(&file, &error))?;
                Ok(versions::of_content(value.as_bytes()))
            };
            self.run(move |folder| folder.alone(write)).await
        })
    }

    fn remove<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (name, expected) = (file(key)?, expected.clone());
            let remove = move |folder: &Path| {
                let file = folder.join(name);
                let now = current(&file);
                versions::check(&expected, now.as_ref().map(|entry| &entry.version))?;
                if now.is_some() {
                    let removed =
                        fs::remove_file(&file).and_then(|()| File::open(folder)?.sync_all());
                    removed.map_err(|error| refused(&file, &error))?;
                }
                Ok(now.is_some())
            };
            self.run(move |folder| folder.alone(remove)).await
        })
    }
}

async fn tell(teller: &mut Teller<'_>, found: Found, is_first: bool) {
    if is_first {
        let all = found.into_iter().filter_map(|(key, entry)| Some((key, entry?))).collect();
        return teller.all(all).await;
    }
    let mut news = false;
    for (key, entry) in found {
        news |= teller.one(key, entry).await;
    }
    if !news {
        teller.unchanged().await;
    }
}

/// The key of a file; `None` for what is no document.
fn key(name: &str) -> Option<String> {
    let stem =
        name.strip_suffix(ENDING).filter(|stem| !stem.is_empty() && !stem.starts_with('.'))?;
    // One that names no namespace is told as it is, so that the operator hears what is wrong with it.
    Some(format!("{PREFIX}{}", stem.replacen('.', "/", 1)))
}

/// The file of a key. Only an app has one: a key from elsewhere could lead out of the folder.
fn file(key: &str) -> Result<String, StoreError> {
    let app = key.strip_prefix(PREFIX).and_then(|app| AppId::parse(app).ok());
    let app = app.ok_or_else(|| StoreError::Refused(format!("{key} is no key of an app")))?;
    Ok(format!("{}.{}{ENDING}", app.namespace(), app.app()))
}

/// What a file has, if that may be new; `None`: there is no such file. A folder whose files nobody may ask for is an outage: what was in
/// them is not gone.
fn look_at(path: &Path, before: Option<&Seen>) -> io::Result<Option<(Seen, Option<Entry>)>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let stamp = Stamp::of(&metadata);
    if before.is_some_and(|seen| seen.is_certain && seen.stamp == stamp) {
        return Ok(Some((Seen { stamp, is_certain: true }, None)));
    }
    let is_certain = stamp.is_certain(SystemTime::now());
    Ok(current(path).map(|entry| (Seen { stamp, is_certain }, Some(entry))))
}

/// What a file has. One that cannot be read is there all the same: nothing is taken back because of it.
fn current(file: &Path) -> Option<Entry> {
    match read(file) {
        Ok(bytes) => Some(versions::entry(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let value = Err(Unreadable::System(error.kind()));
            Some(Entry { value, version: versions::of_content(b"") })
        }
    }
}

/// A file's beginning: one byte more than a document may have shows that it is too long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes beside the file, brings it to disk, and puts it in the file's place.
fn replace(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!(".{:016x}.tmp", RandomState::new().hash_one(file)));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut new = options.create_new(true).write(true).mode(FILE_MODE).open(&beside)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&beside, file)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // May not be there at all.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A folder that cannot be written, such as a `ConfigMap`, is no outage: trying again helps nobody.
fn refused(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Refused(format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_namespace_and_app() {
        assert_eq!(key("shop.front.end.json").as_deref(), Some("strait/apps/shop/front.end"));
        assert_eq!(file("strait/apps/shop/front.end").unwrap(), "shop.front.end.json");
        assert_eq!(key("front.json").as_deref(), Some("strait/apps/front"));
        for other in ["README.md", ".json", "..data", ".a.b.json", "a.b.json~"] {
            assert_eq!(key(other), None, "{other}");
        }
        for bad in
            ["strait/apps/a", "strait/apps/../x", "x", "strait/apps/a/b/c", "strait/apps/a/.."]
        {
            let name = file(bad);
            assert!(name.as_ref().is_err() || name.unwrap() == "a....json", "{bad}");
        }
    }

    fn text(found: &Found) -> Vec<(String, Option<String>)> {
        let text = |entry: &Entry| entry.value.clone().unwrap_or_default();
        let mut all: Vec<_> =
            found.iter().map(|(key, entry)| (key.clone(), entry.as_ref().map(text))).collect();
        all.sort();
        all
    }

    #[test]
    fn a_look_reads_what_has_changed_and_tells_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = Folder::new(folder.path());
        fs::write(path("shop.a.json"), "1").unwrap();
        fs::write(path("shop.b.json"), "1").unwrap();
        fs::write(path("notes.txt"), "1").unwrap();
        let (mut seen, found) = store.look(HashMap::new()).unwrap();
        assert_eq!(found.len(), 2);
        // As if both were old.
        for seen in seen.values_mut() {
            seen.is_certain = true;
        }
        let (seen, found) = store.look(seen).unwrap();
        assert_eq!(found, []);
        fs::write(path("shop.a.json"), "22").unwrap();
        fs::remove_file(path("shop.b.json")).unwrap();
        let (_, found) = store.look(seen).unwrap();
        let a = ("strait/apps/shop/a".to_owned(), Some("22".to_owned()));
        assert_eq!(text(&found), [a, ("strait/apps/shop/b".to_owned(), None)]);
    }

    #[tokio::test]
    async fn what_is_written_is_there_whole_and_under_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(&folder.path().join("made"));
        let key = "strait/apps/shop/a";
        let first = store.write(key, "one", &Expected::Nothing).await.unwrap();
        let again = store.write(key, "two", &Expected::Nothing).await;
        assert_eq!(again, Err(StoreError::Conflict(Some(first.clone()))));
        let second = store.write(key, "two", &Expected::Version(first)).await.unwrap();
        let entry = store.read(key).await.unwrap().unwrap();
        assert_eq!((entry.value.as_deref(), &entry.version), (Ok("two"), &second));
        let names = fs::read_dir(folder.path().join("made")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [LOCK, "shop.a.json"]);
        assert_eq!(store.remove(key, &Expected::Version(second)).await, Ok(true));
        assert_eq!(store.remove(key, &Expected::Anything).await, Ok(false));
        assert_eq!(store.read(key).await, Ok(None));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let store = Folder::new(&folder.path().join("file"));
        let written = store.write("strait/apps/shop/a", "one", &Expected::Anything).await;
        assert!(matches!(written, Err(StoreError::Refused(_))), "{written:?}");
    }
}
