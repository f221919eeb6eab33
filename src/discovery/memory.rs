//! What the sources said last, kept on disk: a restart while one of them is down serves as before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::name::Name;
use crate::model::snapshot::Addresses;
use crate::state::{Folder, Kept, StateError};

use super::SourceStatus;

/// How often it is looked whether there is something to write. Changes come in bursts, and a source that says every second that
/// nothing has changed shall not wake anybody for each word.
const LOOK: Duration = Duration::from_secs(1);
/// A source that changes without rest is written no more often than this: each time waits for the disk.
const REST: Duration = Duration::from_secs(5);
/// What has not changed is confirmed this often, which writes no content: so far the age after a crash may be off.
const CONFIRM: Duration = Duration::from_mins(1);

/// What a source said before the restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What it said.
    pub addresses: Addresses,
    /// When that was last known to be true.
    pub as_of: SystemTime,
}

/// How every source is doing, by name.
pub type Sources = BTreeMap<Arc<str>, SourceStatus>;

/// What a source said before the restart, if that was kept. A file that is of no use is told, and left out.
pub async fn recall(folder: &Path, source: &'static str) -> Option<Remembered> {
    let folder = Folder::new(folder);
    let loaded = spawn_blocking(move || folder.load::<Hosts>(source)).await.ok()?;
    match loaded.map(|kept| kept.and_then(remember)) {
        Ok(Some(remembered)) => {
            let hosts = remembered.addresses.0.len();
            let age = remembered.as_of.elapsed().unwrap_or_default();
            info!(
                source,
                hosts,
                ?age,
                "what was known before the restart is used until the source speaks"
            );
            Some(remembered)
        }
        Ok(None) => None,
        Err(error) => {
            warn!(source, %error, "starting without what was known before the restart; the file is written anew");
            None
        }
    }
}

/// Keeps what the sources say in the folder until `stop`, and once more then. Sources that are not announced any more lose their
/// file. Trouble with the folder is told once, and serving goes on.
pub async fn keep(
    sources: watch::Receiver<Sources>,
    folder: watch::Receiver<Option<PathBuf>>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = stop.run_until_cancelled(looks.tick()).await.is_none();
        let folder = folder.borrow().clone();
        let now = sources.borrow().clone();
        let looked = spawn_blocking(move || {
            keeper.look(folder.as_deref(), &now, last);
            keeper
        });
        match looked.await {
            Ok(back) if !last => keeper = back,
            // A panic has been reported by the panic hook.
            Ok(_) | Err(_) => return,
        }
    }
}

/// What stands in the files, as far as this process has written them.
#[derive(Debug, Default)]
struct Keeper {
    folder: Option<PathBuf>,
    /// Sources that have a file, or may have one. `None` before the first look.
    wanted: Option<BTreeSet<Arc<str>>>,
    written: BTreeMap<Arc<str>, Written>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Written {
    addresses: Arc<Addresses>,
    as_of: SystemTime,
    at: Instant,
}

/// What is to be done with a source's file.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Write,
    Confirm,
}

impl Keeper {
    /// Does what is due; everything, when it is for the last time.
    fn look(&mut self, folder: Option<&Path>, sources: &Sources, last: bool) {
        let Some(path) = folder else {
            *self = Self::default();
            return;
        };
        if self.folder.as_deref() != Some(path) {
            *self = Self { folder: Some(path.to_owned()), ..Self::default() };
        }
        let done = self.write(&Folder::new(path), sources, last);
        self.tell(path, done.err());
    }

    fn write(&mut self, folder: &Folder, sources: &Sources, last: bool) -> Result<(), StateError> {
        let wanted = sources.values().filter(|status| has_something(status));
        let wanted: BTreeSet<_> = wanted.map(|status| Arc::clone(&status.name)).collect();
        if self.wanted.as_ref() != Some(&wanted) {
            folder.keep_only(|source| wanted.contains(source))?;
            self.written.retain(|source, _| wanted.contains(source));
            self.wanted = Some(wanted);
        }
        for (source, status) in sources {
            let Some((addresses, as_of)) = known(status) else { continue };
            match self.due(source, addresses, as_of, last) {
                Due::Nothing => continue,
                Due::Confirm => folder.confirm(source, as_of)?,
                Due::Write => {
                    let snapshot = Hosts::from(&**addresses);
                    folder.keep(source, &Kept { snapshot, as_of })?;
                }
            }
            let addresses = Arc::clone(addresses);
            let written = Written { addresses, as_of, at: Instant::now() };
            self.written.insert(Arc::clone(source), written);
        }
        Ok(())
    }

    fn due(&self, source: &str, now: &Arc<Addresses>, as_of: SystemTime, last: bool) -> Due {
        let Some(Written { addresses, as_of: before, at }) = self.written.get(source) else {
            return Due::Write;
        };
        if !Arc::ptr_eq(addresses, now) && addresses != now {
            return if last || at.elapsed() >= REST { Due::Write } else { Due::Nothing };
        }
        let older = as_of.duration_since(*before).unwrap_or_default();
        if older >= CONFIRM || last { Due::Confirm } else { Due::Nothing }
    }

    /// Once, not every second that it lasts.
    fn tell(&mut self, folder: &Path, error: Option<StateError>) {
        let (before, now) = (self.trouble.take(), error.map(|error| error.to_string()));
        match &now {
            Some(error) if before.as_ref() != Some(error) => warn!(
                %error,
                "stateDir is of no use: a restart will not know what the sources said. Make the folder writable for the gateway's user"
            ),
            None if before.is_some() => {
                info!(folder = %folder.display(), "stateDir can be written again");
            }
            Some(_) | None => {}
        }
        self.trouble = now;
    }
}

/// What a source has said, and when that was last known to be true. What says nothing is not worth a file.
fn known(status: &SourceStatus) -> Option<(&Arc<Addresses>, SystemTime)> {
    let addresses = status.snapshot.as_ref().filter(|addresses| !addresses.0.is_empty())?;
    let age = status.age()?;
    Some((addresses, SystemTime::now().checked_sub(age)?))
}

/// Until a source has spoken, its file stays.
fn has_something(status: &SourceStatus) -> bool {
    status.snapshot.is_none() || known(status).is_some()
}

/// [`Addresses`] as they are written: in the order of the names, so that two files can be compared.
#[derive(Debug, Serialize, Deserialize)]
struct Hosts {
    hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl From<&Addresses> for Hosts {
    fn from(addresses: &Addresses) -> Self {
        let hosts = addresses.0.iter();
        Self { hosts: hosts.map(|(name, list)| (name.to_string(), list.clone())).collect() }
    }
}

/// What is no name was not written by this program, and leads nowhere.
fn remember(Kept { snapshot, as_of }: Kept<Hosts>) -> Option<Remembered> {
    let hosts = snapshot.hosts.into_iter();
    let hosts = hosts.filter_map(|(name, list)| Some((Name::parse(&name).ok()?, list)));
    let addresses = Addresses(hosts.collect());
    (!addresses.0.is_empty()).then_some(Remembered { addresses, as_of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Said;
    use std::fs;

    fn addresses(known: &[(&str, &str)]) -> Addresses {
        let known = known.iter();
        let parse = |(name, ip): &(&str, &str)| {
            (Name::parse(name).unwrap(), vec![ip.parse::<IpAddr>().unwrap()])
        };
        Addresses(known.map(parse).collect())
    }

    fn said(known: &[(&str, &str)]) -> SourceStatus {
        let mut status = SourceStatus::silent("dns".into());
        let addresses = addresses(known);
        status.hear(&Said::Addresses(addresses.clone()), std::time::Instant::now());
        status.snapshot = Some(Arc::new(addresses));
        status
    }

    fn sources(status: SourceStatus) -> Sources {
        Sources::from([(Arc::clone(&status.name), status)])
    }

    #[test]
    fn what_was_written_is_remembered_and_what_is_no_name_is_not() {
        let known = addresses(&[("b.example", "10.0.0.2"), ("a.example", "fd00::1")]);
        let mut snapshot = Hosts::from(&known);
        assert_eq!(snapshot.hosts.keys().collect::<Vec<_>>(), ["a.example", "b.example"]);
        snapshot.hosts.insert("no name".into(), vec![]);
        let as_of = SystemTime::UNIX_EPOCH;
        let remembered = Remembered { addresses: known, as_of };
        assert_eq!(remember(Kept { snapshot, as_of }), Some(remembered));
        assert_eq!(remember(Kept { snapshot: Hosts { hosts: BTreeMap::new() }, as_of }), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_written_after_a_rest_and_what_does_not_change_is_confirmed() {
        let mut keeper = Keeper::default();
        let (one, other) = (addresses(&[("a.example", "10.0.0.1")]), addresses(&[]));
        let (one, other) = (Arc::new(one), Arc::new(other));
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(keeper.due("dns", &one, start, false), Due::Write);
        let written = Written { addresses: Arc::clone(&one), as_of: start, at: Instant::now() };
        keeper.written.insert("dns".into(), written);
        let same = Arc::new(Addresses::clone(&one));
        assert_eq!(keeper.due("dns", &same, start + CONFIRM / 2, false), Due::Nothing);
        assert_eq!(keeper.due("dns", &same, start + CONFIRM, false), Due::Confirm);
        assert_eq!(keeper.due("dns", &same, start, true), Due::Confirm);
        assert_eq!(keeper.due("dns", &other, start, false), Due::Nothing);
        assert_eq!(keeper.due("dns", &other, start, true), Due::Write);
        tokio::time::advance(REST).await;
        assert_eq!(keeper.due("dns", &other, start, false), Due::Write);
    }

    #[test]
    fn the_file_of_a_source_stays_until_it_says_that_there_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dns.snapshot.json");
        let look = |status: SourceStatus| {
            Keeper::default().look(Some(folder.path()), &sources(status), false);
            file.exists()
        };
        assert!(!look(SourceStatus::silent("dns".into())));
        assert!(look(said(&[("a.example", "10.0.0.1")])));
        assert!(look(SourceStatus::silent("dns".into())), "it has not spoken yet");
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        let mut stale = said(&[("a.example", "10.0.0.1")]);
        stale.remembered = Some(SystemTime::UNIX_EPOCH + Duration::from_hours(1));
        assert!(look(stale));
        assert!(fs::metadata(&file).unwrap().modified().unwrap() < before, "it is no younger");
        assert!(!look(said(&[])), "nothing is worth no file");
    }
}
