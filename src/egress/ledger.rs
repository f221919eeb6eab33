//! The owner of the lock: plans, and has every address written down before anybody is told of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fmt, fs, io};

use crate::model::egress::{Place, Space};

use super::lock::{self, LineError};
use super::plan::{Allocation, Allocations, Denial, Grants, Plan, Problem, Wanted, plan};

/// While somebody lacks an address, the lock is looked at again so often: an operator, or another replica, may have mended it.
const RETRY: Duration = Duration::from_secs(5);

/// It is looked at so often in any case: another gateway that shares it may have let an address rest which this one serves, and
/// takes note of the answer long before the rest is over.
const LOOK: Duration = Duration::from_mins(1);

/// Who has which address: in memory, and in the file that outlives it.
#[derive(Debug, Default)]
pub struct Ledger {
    path: PathBuf,
    known: Allocations,
    /// The file as it was last seen or written; `None` while there is none.
    seen: Option<String>,
    /// What it says.
    kept: Allocations,
    trouble: Option<Trouble>,
}

/// What is in force, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Who has what.
    pub allocations: Allocations,
    /// Who lacks what.
    pub problems: Vec<Problem>,
    /// What is wrong with the lock itself.
    pub trouble: Option<Trouble>,
    /// When to settle again, though nothing else has changed.
    pub next: Option<SystemTime>,
}

/// What is wrong with the lock: nothing new is given as long as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Lines that cannot be read. The others count.
    Garbled(Vec<LineError>),
    /// It is there and cannot be read: the system's words.
    Unreadable(String),
    /// It is there and cannot be written: the system's words.
    ReadOnly(String),
    /// It is not there and cannot be made: the system's words.
    NoPlace(String),
    /// Another gateway holds it for longer than a write takes.
    Busy,
}

impl Ledger {
    /// Plans for those who are wanted, and keeps the outcome at the path. What cannot be written down is not given.
    pub fn settle(
        &mut self,
        path: &Path,
        wanted: &[Wanted],
        space: &Space,
        now: SystemTime,
    ) -> Settled {
        if self.path != path {
            *self = Self {
                path: path.to_owned(),
                known: std::mem::take(&mut self.known),
                ..Self::default()
            };
        }
        let alone = lock::alone(path);
        self.trouble = match &alone {
            Ok(_) => self.read(now),
            Err(lock::Busy) => Some(self.trouble_of(What::Busy)),
        };
        let grants = self
            .trouble
            .as_ref()
            .map_or(Grants::Allowed, |trouble| Grants::Denied(trouble.what.denial()));
        let mut planned = plan(&self.known, wanted, space, grants, now);
        if self.trouble.is_none()
            && let Err(error) = self.write(&planned)
        {
            let what = match self.seen {
                Some(_) => What::ReadOnly(error.to_string()),
                None => What::NoPlace(error.to_string()),
            };
            planned = plan(&self.known, wanted, space, Grants::Denied(what.denial()), now);
            self.trouble = Some(self.trouble_of(what));
        }
        self.known = planned.allocations.clone();
        self.settled(planned, wanted, now)
    }

    /// What would be in force with the lock as it is: nothing is given and nothing written.
    pub fn look(path: &Path, wanted: &[Wanted], space: &Space, now: SystemTime) -> Settled {
        let mut ledger = Self { path: path.to_owned(), ..Self::default() };
        let trouble = ledger.read(now);
        let grants = Grants::Denied(Denial::OnlyLooked);
        let Plan { allocations, problems, .. } = plan(&ledger.known, wanted, space, grants, now);
        Settled { allocations, problems, trouble, next: None }
    }

    /// Takes over what somebody else has written, and says what cannot be read.
    fn read(&mut self, now: SystemTime) -> Option<Trouble> {
        let text = match read(&self.path) {
            Ok(text) => text,
            // Not there yet, or taken away: it is made of what is known.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (self.seen, self.kept) = (None, Allocations::default());
                return None;
            }
            Err(error) => return Some(self.trouble_of(What::Unreadable(error.to_string()))),
        };
        let (found, errors) = lock::parse(&text);
        if self.seen.as_ref() != Some(&text) {
            self.kept = found.clone();
            self.take_over(found, now);
            self.seen = Some(text);
        }
        (!errors.is_empty()).then(|| self.trouble_of(What::Garbled(errors)))
    }

    /// The file counts. What it does not have any more rests all the same: somebody may still hold connections.
    fn take_over(&mut self, found: Allocations, now: SystemTime) {
        for (place, known) in std::mem::replace(&mut self.known, found).0 {
            let resting = Some(known.resting.unwrap_or(now));
            let rests = Allocation { resting, ..known };
            self.known.0.entry(place).or_insert(rests);
        }
    }

    fn write(&mut self, planned: &Plan) -> io::Result<()> {
        let text = lock::text(&planned.allocations);
        if self.seen.as_ref() == Some(&text)
            || self.seen.is_none() && planned.allocations.0.is_empty()
        {
            return Ok(());
        }
        lock::write(&self.path, &text)?;
        (self.seen, self.kept) = (Some(text), planned.allocations.clone());
        Ok(())
    }

    fn trouble_of(&self, what: What) -> Trouble {
        Trouble { path: self.path.clone(), what }
    }

    fn settled(&self, planned: Plan, wanted: &[Wanted], now: SystemTime) -> Settled {
        let Plan { allocations, problems, next } = planned;
        let retry = (!problems.is_empty()).then(|| now + RETRY);
        let look = (!allocations.0.is_empty()).then(|| now + LOOK);
        let next = next.into_iter().chain(retry).chain(look).min();
        // A lock that cannot be changed troubles nobody whose address a restart would not move.
        let pins: HashSet<_> = wanted.iter().filter_map(|one| one.spec.pin).collect();
        let mut in_use = allocations.0.iter().filter(|(_, one)| one.resting.is_none());
        let is_kept = |(place, one): (&Place, &Allocation)| {
            let kept = self.kept.0.get(place);
            pins.contains(place) || kept.is_some_and(|kept| kept.holder == one.holder)
        };
        let harmless = problems.is_empty() && in_use.all(is_kept);
        let is_harmless = |trouble: &Trouble| {
            harmless && matches!(trouble.what, What::ReadOnly(_) | What::NoPlace(_))
        };
        let trouble = self.trouble.clone().filter(|trouble| !is_harmless(trouble));
        Settled { allocations, problems, trouble, next }
    }
}

/// Only a file: a pipe would hold the reader for ever.
fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.is_file() {
        fs::read_to_string(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
    }
}

impl What {
    fn denial(&self) -> Denial {
        match self {
            Self::Garbled(_) | Self::Unreadable(_) => Denial::Garbled,
            Self::ReadOnly(_) => Denial::ReadOnly,
            Self::NoPlace(_) => Denial::NoPlace,
            Self::Busy => Denial::Busy,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Garbled(errors) => {
                for (number, error) in errors.iter().enumerate() {
                    write!(out, "{}{path}:{error}", if number == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            What::Unreadable(error) => write!(out, "{path} cannot be read: {error}"),
            What::ReadOnly(error) => write!(out, "{path} cannot be written: {error}"),
            What::Busy => write!(out, "{path} is held by another gateway for too long"),
            What::NoPlace(error) => write!(
                out,
                "{path} cannot be made: {error}; only pinned egress addresses are served"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::egress::EgressSpec;
    use std::os::unix::fs::PermissionsExt;

    fn space() -> Space {
        let [bind, announce] = ["::", "10.0.0.5"].map(|ip| ip.parse().unwrap());
        Space::Ports { bind, announce, range: Some(20000..=20009) }
    }

    fn wanted(holders: &[&str]) -> Vec<Wanted> {
        let spec = EgressSpec::default();
        holders.iter().map(|&holder| Wanted { holder: holder.into(), spec }).collect()
    }

    /// 2027-01-15T08:00:00Z
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
    }

    /// Who uses what.
    fn used(settled: &Settled) -> Vec<String> {
        let used = settled.allocations.0.iter().filter(|(_, found)| found.resting.is_none());
        used.map(|(place, found)| format!("{place} {}", found.holder)).collect()
    }

    struct Kept {
        folder: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Kept {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), ledger: Ledger::default() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join(lock::FILE)
        }

        fn settle(&mut self, holders: &[&str]) -> Settled {
            self.ledger.settle(
                &self.folder.path().join(lock::FILE),
                &wanted(holders),
                &space(),
                now(),
            )
        }

        fn restart(&mut self) {
            self.ledger = Ledger::default();
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }
    }

    #[test]
    fn a_restart_keeps_every_address_and_the_rest_of_those_that_were_freed() {
        let mut kept = Kept::new();
        assert_eq!(used(&kept.settle(&["a", "b"])), ["20000 a", "20001 b"]);
        kept.restart();
        assert_eq!(used(&kept.settle(&["0", "b"])), ["20001 b", "20002 0"]);
        assert!(kept.text().contains("20000 a free-since 2027-01-15T08:00:00Z"), "{}", kept.text());
        kept.restart();
        assert_eq!(used(&kept.settle(&["0", "a", "b"])), ["20000 a", "20001 b", "20002 0"]);
    }

    #[test]
    fn what_is_the_same_is_not_written_again() {
        let mut kept = Kept::new();
        kept.settle(&["a"]);
        fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o444)).unwrap();
        let settled = kept.settle(&["a"]);
        assert_eq!((settled.trouble, settled.problems), (None, vec![]));
        kept.restart();
        assert_eq!(kept.settle(&["a"]).trouble, None);
        assert!(!Kept::new().path().exists());
    }

    #[test]
    fn a_lock_that_cannot_be_written_refuses_who_is_not_in_it_with_the_line_to_add() {
        let mut kept = Kept::new();
        kept.settle(&["a"]);
        fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o444)).unwrap();
        let settled = kept.settle(&["a", "b"]);
        assert_eq!(used(&settled), ["20000 a"]);
        let told = settled.problems[0].to_string();
        assert!(
            told.starts_with("b: it is not in egress.lock") && told.contains("`20001 b`"),
            "{told}"
        );
        assert!(settled.trouble.unwrap().to_string().contains("cannot be written"));
        assert_eq!(settled.next, Some(now() + RETRY));
        // The operator adds it where the file comes from.
        let more = format!("{}20001 b\n", kept.text());
        fs::remove_file(kept.path()).unwrap();
        fs::write(kept.path(), more).unwrap();
        fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o444)).unwrap();
        let settled = kept.settle(&["a", "b"]);
        assert_eq!((used(&settled).len(), settled.trouble), (2, None));
        assert_eq!(settled.next, Some(now() + LOOK));
    }

    #[test]
    fn without_a_place_for_the_lock_only_pins_are_served() {
        let mut ledger = Ledger::default();
        let mut wishes = wanted(&["a", "b"]);
        wishes[0].spec.pin = Some(Place::Port(20005));
        let settled = ledger.settle(Path::new("/proc/egress.lock"), &wishes, &space(), now());
        assert_eq!(used(&settled), ["20005 a"]);
        assert!(settled.problems[0].to_string().contains("set a stateDir that can be written"));
        let trouble = settled.trouble.unwrap().to_string();
        assert!(trouble.contains("only pinned egress addresses are served"), "{trouble}");
    }

    #[test]
    fn a_garbled_lock_is_left_alone_and_nothing_new_is_given() {
        let mut kept = Kept::new();
        let garbled = "20003 a\nwhat is this line for\n";
        fs::write(kept.path(), garbled).unwrap();
        let settled = kept.settle(&["a", "b"]);
        assert_eq!(used(&settled), ["20003 a"]);
        let trouble = settled.trouble.unwrap().to_string();
        assert!(trouble.contains("egress.lock:2: expected"), "{trouble}");
        assert_eq!(kept.text(), garbled);
        fs::write(kept.path(), "20003 a\n").unwrap();
        assert_eq!(used(&kept.settle(&["a", "b"])), ["20000 b", "20003 a"]);
    }

    #[test]
    fn two_gateways_with_one_lock_never_give_an_address_twice() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(lock::FILE);
            let both = std::sync::Barrier::new(2);
            let settle = |holders: &[&str]| {
                let (mut ledger, wanted) = (Ledger::default(), wanted(holders));
                both.wait();
                let settled = ledger.settle(&path, &wanted, &space(), now());
                (ledger, settled)
            };
            let ((mut one, first), (_, other)) = std::thread::scope(|scope| {
                let other = scope.spawn(|| settle(&["c", "d"]));
                (settle(&["a", "b"]), other.join().unwrap())
            });
            let places = |settled: &Settled| -> HashSet<_> {
                let used = settled.allocations.0.iter().filter(|(_, one)| one.resting.is_none());
                used.map(|(place, _)| *place).collect()
            };
            assert!(places(&first).is_disjoint(&places(&other)), "{first:?} {other:?}");
            // What the later one took for given up is in use, and said to be so at the next look.
            let again = one.settle(&path, &wanted(&["a", "b"]), &space(), now() + LOOK);
            assert_eq!(places(&again), places(&first));
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.lines().any(|line| line.ends_with(" a")), "{text}");
        }
    }

    #[test]
    fn while_another_holds_the_lock_what_is_given_is_served_and_nothing_new() {
        let mut kept = Kept::new();
        kept.settle(&["a"]);
        let held = lock::alone(&kept.path()).unwrap().unwrap();
        let settled = kept.settle(&["a", "b"]);
        assert_eq!(used(&settled), ["20000 a"]);
        assert!(
            settled.problems[0].to_string().starts_with("b: nothing new is given while another")
        );
        assert_eq!(settled.next, Some(now() + RETRY));
        drop(held);
        assert_eq!(used(&kept.settle(&["a", "b"])), ["20000 a", "20001 b"]);
    }

    #[test]
    fn who_only_looks_learns_what_is_there_and_changes_nothing() {
        let mut kept = Kept::new();
        kept.settle(&["a", "gone"]);
        let before = kept.text();
        let settled = Ledger::look(&kept.path(), &wanted(&["a", "b"]), &space(), now());
        assert_eq!(used(&settled), ["20000 a"]);
        assert!(
            settled.problems[0].to_string().starts_with("b: it has no line in egress.lock yet")
        );
        assert_eq!(kept.text(), before);
    }

    #[test]
    fn what_another_hand_writes_counts_and_what_it_removes_rests() {
        let mut kept = Kept::new();
        kept.settle(&["a", "b"]);
        fs::write(kept.path(), "20007 b\n20001 c\n").unwrap();
        assert_eq!(used(&kept.settle(&["b", "c"])), ["20001 c", "20007 b"]);
        assert!(kept.text().contains("20000 a free-since"), "{}", kept.text());
        fs::remove_file(kept.path()).unwrap();
        kept.settle(&["b", "c"]);
        assert!(kept.text().contains("20007 b"), "a lock that is taken away is made again");
    }
}
