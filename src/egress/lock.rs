//! The lock file: which egress address is whose, for the time after a restart and for other replicas. Text, one line an address, in
//! order, so that it can be kept with other configuration and its changes read.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, fs};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::egress::Place;

use super::plan::{Allocation, Allocations};

/// The file's name.
pub const FILE: &str = "egress.lock";

const HEAD: &str = "\
# Egress addresses, one a line: a port or an address, and the app that has it. Written by Strait; keep it over restarts.
# Callers know an app by its address: who moves or removes a line moves them. An address that is free again rests for ten
# minutes (free-since, UTC). A file that cannot be written (chmod a-w) is only read, and lines are added by hand.
";
/// A folder that is made for it is the gateway's alone, as other state's is.
const FOLDER_MODE: u32 = 0o700;
/// Another gateway needs the lock to itself for a write to disk, some milliseconds.
const LONGEST: Duration = Duration::from_secs(2);
const SHORTLY: Duration = Duration::from_millis(5);
/// Stands before the time since which an address rests.
const FREE: &str = "free-since";

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Counts from 1.
    pub line: usize,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.message)
    }
}

/// Reads a lock's text: what can be read of it, and what cannot.
pub fn parse(text: &str) -> (Allocations, Vec<LineError>) {
    let (mut allocations, mut errors) = (Allocations::default(), Vec::new());
    for (line, written) in (1..).zip(text.lines()) {
        let written = written.split('#').next().unwrap_or_default();
        let read = read_line(written).and_then(|read| match read {
            Some((place, _)) if allocations.0.contains_key(&place) => {
                Err(format!("{place} has a line already; remove one of the two"))
            }
            Some((place, allocation)) => {
                allocations.0.insert(place, allocation);
                Ok(())
            }
            None => Ok(()),
        });
        errors.extend(read.err().map(|message| LineError { line, message }));
    }
    (allocations, errors)
}

fn read_line(written: &str) -> Result<Option<(Place, Allocation)>, String> {
    let words: Vec<_> = written.split_whitespace().collect();
    let (place, holder, resting) = match *words {
        [] => return Ok(None),
        [place, holder] => (place, holder, None),
        [place, holder, FREE, since] => (place, holder, Some(since)),
        _ => {
            return Err(format!(
                "expected `20001 shop/orders`, or with `{FREE} 2026-11-23T01:02:03Z` behind it"
            ));
        }
    };
    let resting = resting.map(|since| {
        let since = OffsetDateTime::parse(since, &Rfc3339);
        since.map_err(|_| format!("no time; write it as `{FREE} 2026-11-23T01:02:03Z`"))
    });
    let place = place.parse().map_err(|error| format!("{place}: {error}"))?;
    let resting = resting.transpose()?.map(SystemTime::from);
    Ok(Some((place, Allocation { holder: holder.into(), resting })))
}

/// The text of a lock.
pub fn text(allocations: &Allocations) -> String {
    let mut text = HEAD.to_owned();
    for (place, allocation) in &allocations.0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line(*place, allocation));
    }
    text
}

/// One line of it.
pub(super) fn line(place: Place, allocation: &Allocation) -> String {
    match allocation.resting {
        None => format!("{place} {}", allocation.holder),
        Some(since) => format!("{place} {} {FREE} {}", allocation.holder, time(since)),
    }
}

/// A time of the lock: UTC, in whole seconds, rounded up, so that nothing rests less than it has to.
pub(super) fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let whole = Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0));
    // Fails only for years beyond 9999.
    OffsetDateTime::from(SystemTime::UNIX_EPOCH + whole).format(&Rfc3339).unwrap_or_default()
}

/// The lock to oneself, as long as the value lives: from reading it until it is written, so that no line of another gateway's gets
/// lost, and none gives an address away that has just been given. `None`: there are no such locks, in a file system or in a folder
/// that is not there, and nobody has one. It is on the folder, because the file itself is replaced.
///
/// # Errors
/// Another one has it for longer than anybody needs.
pub fn alone(path: &Path) -> Result<Option<fs::File>, Busy> {
    let folder = folder(path);
    // Fails where nothing can be written either.
    let _ = make(folder);
    let Ok(folder) = fs::File::open(folder) else { return Ok(None) };
    let until = Instant::now() + LONGEST;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(folder)),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => sleep(SHORTLY),
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(Busy),
            Err(_) => return Ok(None),
        }
    }
}

/// Somebody else has the lock to himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// A folder for state may not be there yet; that of the configuration is.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Puts a text in the place of the file: whole, or not at all, also when the machine dies.
///
/// A file without any write permission is left alone even by who could replace it: that is how an operator says that it is kept
/// elsewhere.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.permissions().readonly()) {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    let folder = folder(path);
    make(folder)?;
    // A hidden name in the same folder: renaming goes within a file system, and configuration does not hold hidden files.
    let beside = folder.join(format!(".{FILE}.{}", std::process::id()));
    let written = replace(&beside, path, folder, text);
    if written.is_err() {
        // What is left of it would be taken for nothing, but lie about.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn replace(beside: &Path, path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    // The name is in the folder, which is a file of its own.
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allocation(holder: &str, seconds: Option<u64>) -> Allocation {
        let resting = seconds.map(|since| SystemTime::UNIX_EPOCH + Duration::from_secs(since));
        Allocation { holder: holder.into(), resting }
    }

    #[test]
    fn a_lock_is_lines_in_order_below_what_it_is() {
        let allocations = Allocations(
            [
                ("10.9.0.7".parse().unwrap(), allocation("shop/b", None)),
                (Place::Port(20001), allocation("shop/orders", None)),
                (Place::Port(9000), allocation("shop/old", Some(1_795_396_923))),
            ]
            .into(),
        );
        let text = text(&allocations);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let old = "9000 shop/old free-since 2026-11-23T01:22:03Z";
        assert_eq!(lines, [old, "20001 shop/orders", "10.9.0.7 shop/b"]);
        assert_eq!(parse(&text), (allocations, vec![]));
    }

    #[test]
    fn every_line_that_cannot_be_read_is_told() {
        let text = "20001 shop/a # mine\n\n20001 shop/b\nx shop/c\n20002\n20003 shop/d free-since noon\n20004 shop/e free 1\n20005 shop/f";
        let (allocations, errors) = parse(text);
        let places: Vec<_> = allocations.0.keys().map(ToString::to_string).collect();
        assert_eq!(places, ["20001", "20005"]);
        assert_eq!(&*allocations.0[&Place::Port(20001)].holder, "shop/a");
        let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told[0], "3: 20001 has a line already; remove one of the two");
        assert_eq!(told[1], "4: x: neither a port from 1 to 65535 nor an IP address");
        assert!(told[2].starts_with("5: expected `20001 shop/orders`"), "{told:?}");
        assert_eq!(told[3], "6: no time; write it as `free-since 2026-11-23T01:02:03Z`");
        assert!(told[4].starts_with("7: expected"), "{told:?}");
    }

    #[test]
    fn a_lock_is_replaced_whole_and_never_against_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies about");
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        let error = write(&path, "three").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert!(write(Path::new("/proc/strait/egress.lock"), "one").is_err());
    }

    #[test]
    fn a_time_is_never_rounded_down() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(time(at), "1970-01-01T00:00:02Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            written in prop::collection::btree_map(
                prop_oneof![
                    (1_u16..).prop_map(Place::Port),
                    any::<std::net::Ipv4Addr>().prop_map(|ip| Place::Address(ip.into())),
                ],
                ("[a-z]{1,9}/[a-z]{1,9}", prop::option::of(0_u64..4_000_000_000)),
                0..9,
            ),
        ) {
            let written = written.into_iter().map(|(place, (holder, since))| (place, allocation(&holder, since)));
            let allocations = Allocations(written.collect());
            prop_assert_eq!(parse(&text(&allocations)), (allocations, vec![]));
        }

        #[test]
        fn no_text_is_too_much(text in "\\PC{0,200}|([0-9a-z#/. -]{0,30}\n){0,9}") {
            parse(&text);
        }
    }
}
