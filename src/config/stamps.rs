//! What the system says of files, to know without reading them that they are what they were.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disk;

/// A stamp says nothing of a file that was changed so short a time before it was read: clocks of file systems stand still for
/// up to 10 ms (ext4, xfs, tmpfs), so that a second change may leave the same times. Such a file is read again.
const UNCERTAIN: Duration = Duration::from_millis(100);
/// The same where times have no fractions: those clocks stand still for up to 2 s (FAT).
const UNCERTAIN_SECONDS: Duration = Duration::from_secs(3);

/// The stamps of all files of a configuration, taken of what was read.
///
/// The time of change (ctime) is the system's own: a file that is written in place, to the same size and with its old time of
/// modification put back, has another one. What stamps do not see: a write through a memory map before the system has noted it,
/// a clock that was set back to the very nanosecond, and network file systems that tell what they have cached. A reload (SIGHUP)
/// reads in any case.
#[derive(Debug, Default)]
pub struct Stamps {
    /// In the order in which they were read: YAML files first.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether all files had been what they are for a while.
    certain: bool,
}

/// What the system says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file that was opened, or is about to be read.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change was long enough before now.
    pub(crate) fn is_certain(&self, now: SystemTime) -> bool {
        let (seconds, fraction) = self.changed;
        let [Ok(seconds), Ok(fraction)] = [seconds, fraction].map(u64::try_from) else {
            return false;
        };
        let uncertain = if fraction == 0 { UNCERTAIN_SECONDS } else { UNCERTAIN };
        let changed = Duration::from_secs(seconds) + Duration::from_nanos(fraction);
        UNIX_EPOCH.checked_add(changed + uncertain).is_some_and(|certain| certain < now)
    }
}

impl Stamps {
    /// None, at this moment.
    pub(super) fn new() -> Self {
        Self { files: Vec::new(), certain: true }
    }

    /// Notes a file that was opened and is about to be read; none if there was none.
    pub(super) fn add(&mut self, path: &Path, metadata: Option<&Metadata>) {
        let stamp = metadata.map(Stamp::of);
        self.certain &= stamp.as_ref().is_none_or(|stamp| stamp.is_certain(SystemTime::now()));
        self.files.push((path.to_owned(), stamp));
    }

    /// Whether the files of this configuration are, for certain, those that were read. Reads none of them.
    pub fn still_hold(&self, path: &Path) -> bool {
        let Ok(yaml) = disk::yaml_files(path) else { return false };
        let same = |(file, stamp): &(PathBuf, Option<Stamp>)| {
            fs::metadata(file).ok().as_ref().map(Stamp::of) == *stamp
        };
        let read = self.files.iter().map(|(file, _)| file);
        self.certain && read.take(yaml.len()).eq(&yaml) && self.files.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// The stamps of a folder with a YAML file and a routes file, as if both were old.
    fn stamps(folder: &Path) -> Stamps {
        let mut stamps = Stamps::new();
        for file in disk::yaml_files(folder).unwrap() {
            stamps.add(&file, fs::metadata(&file).ok().as_ref());
        }
        let routes = folder.join("names.map");
        stamps.add(&routes, fs::metadata(&routes).ok().as_ref());
        Stamps { certain: true, ..stamps }
    }

    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "cluster: west\n").unwrap();
        fs::write(folder.path().join("names.map"), "a.example x:1\n").unwrap();
        folder
    }

    /// Tells whether stamps hold after a change. A clock that stands still for a moment is waited for.
    fn hold_after(change: impl Fn(&Path)) -> bool {
        let folder = folder();
        let stamps = stamps(folder.path());
        assert!(stamps.still_hold(folder.path()));
        let clock = folder.path().join(".clock");
        let time = |file: &Path| fs::metadata(file).map(|it| (it.ctime(), it.ctime_nsec())).ok();
        let before = time(&folder.path().join("names.map"));
        while time(&clock) <= before {
            fs::write(&clock, "tick").unwrap();
        }
        change(folder.path());
        stamps.still_hold(folder.path())
    }

    #[test]
    fn every_change_of_a_file_shows() {
        assert!(hold_after(|_| ()));
        assert!(
            hold_after(|folder| drop(fs::read(folder.join("names.map")))),
            "reading is no change"
        );
        let in_place =
            |folder: &Path| fs::write(folder.join("names.map"), "b.example x:1\n").unwrap();
        assert!(!hold_after(in_place));
        assert!(
            !hold_after(|folder| {
                let times = fs::metadata(folder.join("names.map")).unwrap().modified().unwrap();
                in_place(folder);
                let file = File::options().write(true).open(folder.join("names.map")).unwrap();
                file.set_times(FileTimes::new().set_modified(times)).unwrap();
            }),
            "its old time put back"
        );
        assert!(!hold_after(|folder| {
            in_place(&folder.join("."));
            fs::rename(folder.join("names.map"), folder.join("x")).unwrap();
            symlink("x", folder.join("names.map")).unwrap();
        }));
        assert!(!hold_after(|folder| fs::remove_file(folder.join("names.map")).unwrap()));
        assert!(!hold_after(|folder| fs::write(folder.join("b.yaml"), "").unwrap()));
        assert!(!hold_after(|folder| fs::remove_file(folder.join("a.yaml")).unwrap()));
    }

    #[test]
    fn what_has_just_changed_is_uncertain() {
        let stamp = |changed| Stamp { device: 1, inode: 1, size: 1, modified: changed, changed };
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert!(!stamp((10, 5_000_000)).is_certain(at(10_006)));
        assert!(stamp((10, 5_000_000)).is_certain(at(10_200)));
        assert!(!stamp((10, 0)).is_certain(at(12_000)), "a clock of whole seconds");
        assert!(stamp((10, 0)).is_certain(at(14_000)));
        assert!(!stamp((10, 5_000_000)).is_certain(at(9000)), "changed in the future");
        let folder = folder();
        let stamps = Stamps { certain: false, ..stamps(folder.path()) };
        assert!(!stamps.still_hold(folder.path()));
    }
}
