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

use crate::model::allowed::{self, AllowedApps, Documents, RemoteApp};
use crate::model::app::AppId;
use crate::model::name::Name;
use crate::model::offer::{Callee, Exported, Offer, Offers};
use crate::model::snapshot::Addresses;
use crate::state::{Folder, Kept, StateError};

use super::{Snapshot, SourceStatus};

/// How often it is looked whether there is something to write. Changes come in bursts, and a source that says every second that
/// nothing has changed shall not wake anybody for each word.
const LOOK: Duration = Duration::from_secs(1);
/// A source that changes without rest is written no more often than this: each time waits for the disk.
const REST: Duration = Duration::from_secs(5);
/// What has not changed is confirmed this often, which writes no content: so far the age after a crash may be off.
const CONFIRM: Duration = Duration::from_mins(1);

/// What a source said before the restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered<T> {
    /// What it said.
    pub said: T,
    /// When that was last known to be true.
    pub as_of: SystemTime,
}

/// How every source is doing, by name.
pub type Sources = BTreeMap<Arc<str>, SourceStatus>;

/// The addresses that a source said before the restart, if they were kept. A file that is of no use is told, and left out.
pub async fn recall_addresses(folder: &Path, source: &str) -> Option<Remembered<Addresses>> {
    let Kept { snapshot: Content::Hosts(hosts), as_of } = recall(folder, source).await? else {
        return None;
    };
    let said = addresses(hosts);
    (!said.0.is_empty()).then_some(Remembered { said, as_of })
}

/// The apps that another cluster exported before the restart, with their names and numbers of healthy endpoints.
pub async fn recall_apps(
    folder: &Path,
    source: &str,
) -> Option<Remembered<BTreeMap<Callee, Exported>>> {
    let Kept { snapshot: Content::Apps(apps), as_of } = recall(folder, source).await? else {
        return None;
    };
    let said = exported(apps);
    (!said.is_empty()).then_some(Remembered { said, as_of })
}

/// The documents of allowed apps that were in force before the restart.
pub async fn recall_documents(folder: &Path, source: &str) -> Option<Remembered<Documents>> {
    let Kept { snapshot: Content::Documents(documents), as_of } = recall(folder, source).await?
    else {
        return None;
    };
    let said = documents_of(documents);
    (!said.is_empty()).then_some(Remembered { said, as_of })
}

async fn recall(folder: &Path, source: &str) -> Option<Kept<Content>> {
    let (folder, wanted) = (Folder::new(folder), source.to_owned());
    let loaded = spawn_blocking(move || folder.load::<Content>(&wanted)).await.ok()?;
    match loaded {
        Ok(kept) => {
            if let Some(Kept { as_of, .. }) = &kept {
                let age = as_of.elapsed().unwrap_or_default();
                info!(source, ?age, "what it said before the restart is used until it speaks");
            }
            kept
        }
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
    snapshot: Arc<Snapshot>,
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
            let Some((snapshot, as_of)) = known(status) else { continue };
            match self.due(source, snapshot, as_of, last) {
                Due::Nothing => continue,
                Due::Confirm => folder.confirm(source, as_of)?,
                Due::Write => {
                    let snapshot = Content::from(&**snapshot);
                    folder.keep(source, &Kept { snapshot, as_of })?;
                }
            }
            let snapshot = Arc::clone(snapshot);
            let written = Written { snapshot, as_of, at: Instant::now() };
            self.written.insert(Arc::clone(source), written);
        }
        Ok(())
    }

    fn due(&self, source: &str, now: &Arc<Snapshot>, as_of: SystemTime, last: bool) -> Due {
        let Some(Written { snapshot, as_of: before, at }) = self.written.get(source) else {
            return Due::Write;
        };
        if !Arc::ptr_eq(snapshot, now) && snapshot != now {
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
fn known(status: &SourceStatus) -> Option<(&Arc<Snapshot>, SystemTime)> {
    let snapshot = status.snapshot.as_ref().filter(|snapshot| !snapshot.is_empty())?;
    let age = status.age()?;
    Some((snapshot, SystemTime::now().checked_sub(age)?))
}

/// Until a source has spoken, its file stays.
fn has_something(status: &SourceStatus) -> bool {
    status.snapshot.is_none() || known(status).is_some()
}

/// A snapshot as it is written: in the order of names, so that two files can be compared.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Content {
    Hosts(BTreeMap<String, Vec<IpAddr>>),
    Apps(BTreeMap<String, App>),
    Documents(BTreeMap<String, Document>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: String,
    /// By app, in the order of the document.
    allowed: Vec<(String, Vec<String>)>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    names: Vec<String>,
    healthy_endpoints: u32,
}

impl From<&Snapshot> for Content {
    fn from(snapshot: &Snapshot) -> Self {
        match snapshot {
            Snapshot::Addresses(Addresses(hosts)) => Self::Hosts(
                hosts.iter().map(|(name, list)| (name.to_string(), list.clone())).collect(),
            ),
            Snapshot::Offers(offers) => Self::apps(offers),
            Snapshot::Documents(documents) => Self::documents(documents),
        }
    }
}

impl Content {
    fn apps(offers: &Offers) -> Self {
        let app = |(app, Offer { names, reach }): (&Callee, &Offer)| {
            let names = names.iter().map(ToString::to_string).collect();
            (app.to_string(), App { names, healthy_endpoints: reach.healthy() })
        };
        Self::Apps(offers.apps.iter().map(app).collect())
    }

    fn documents(documents: &Documents) -> Self {
        let remote = |RemoteApp { app, clusters }: &RemoteApp| {
            (app.to_string(), clusters.iter().map(ToString::to_string).collect())
        };
        let written = |(caller, document): (&AppId, &Arc<allowed::Document>)| {
            let allowed = document.says.allowed.iter().map(remote).collect();
            (caller.to_string(), Document { version: document.version.to_string(), allowed })
        };
        Self::Documents(documents.iter().map(written).collect())
    }
}

/// What is no name was not written by this program, and leads nowhere.
fn addresses(hosts: BTreeMap<String, Vec<IpAddr>>) -> Addresses {
    let hosts = hosts.into_iter();
    Addresses(hosts.filter_map(|(name, list)| Some((Name::parse(&name).ok()?, list))).collect())
}

fn documents_of(documents: BTreeMap<String, Document>) -> Documents {
    let remote = |(app, clusters): (String, Vec<String>)| {
        let clusters = clusters.into_iter().map(Arc::from).collect();
        Some(RemoteApp { app: AppId::parse(&app).ok()?, clusters })
    };
    let document = |(caller, Document { version, allowed }): (String, Document)| {
        let app = AppId::parse(&caller).ok()?;
        let allowed = allowed.into_iter().filter_map(remote).collect();
        let says = AllowedApps { app: app.clone(), allowed };
        let version = version.as_str().into();
        Some((app, Arc::new(allowed::Document { says, version })))
    };
    documents.into_iter().filter_map(document).collect()
}

fn exported(apps: BTreeMap<String, App>) -> BTreeMap<Callee, Exported> {
    let apps = apps.into_iter().filter_map(|(app, App { names, healthy_endpoints: healthy })| {
        let names: Vec<_> = names.iter().filter_map(|name| Name::parse(name).ok()).collect();
        let app = Callee::parse(&app).filter(|_| !names.is_empty())?;
        Some((app, Exported { names, healthy }))
    });
    apps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Said;
    use crate::model::offer::Reach;
    use std::fs;

    fn snapshot(known: &[(&str, &str)]) -> Snapshot {
        let known = known.iter();
        let parse = |(name, ip): &(&str, &str)| {
            (Name::parse(name).unwrap(), vec![ip.parse::<IpAddr>().unwrap()])
        };
        Addresses(known.map(parse).collect()).into()
    }

    fn said(known: &[(&str, &str)]) -> SourceStatus {
        let mut status = SourceStatus::silent("dns".into());
        let snapshot = snapshot(known);
        status.hear(&Said::Snapshot(snapshot.clone()), std::time::Instant::now());
        status.snapshot = Some(Arc::new(snapshot));
        status
    }

    fn sources(status: SourceStatus) -> Sources {
        Sources::from([(Arc::clone(&status.name), status)])
    }

    #[test]
    fn what_was_written_is_remembered_and_what_is_no_name_is_not() {
        let known = snapshot(&[("b.example", "10.0.0.2"), ("a.example", "fd00::1")]);
        let Content::Hosts(mut hosts) = Content::from(&known) else { panic!("hosts are hosts") };
        assert_eq!(hosts.keys().collect::<Vec<_>>(), ["a.example", "b.example"]);
        hosts.insert("no name".into(), vec![]);
        assert_eq!(Snapshot::from(addresses(hosts)), known);
    }

    #[test]
    fn apps_are_remembered_with_their_names() {
        let (app, name) = (Callee::parse("shop/a").unwrap(), Name::parse("a.example").unwrap());
        let reach = Arc::new(Reach::new(&Arc::default(), 3));
        let offer = Offer { names: vec![name.clone()], reach };
        let apps = BTreeMap::from([(app.clone(), offer)]);
        let offers = Offers { cluster: "east".into(), apps, ignored: 0 };
        let written = Content::from(&Snapshot::Offers(offers.into()));
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(text, r#"{"apps":{"shop/a":{"names":["a.example"],"healthyEndpoints":3}}}"#);
        let Content::Apps(mut apps) = written else { panic!("apps are apps") };
        apps.insert("shop/nameless".into(), App { names: vec![], healthy_endpoints: 1 });
        apps.insert("no app".into(), App { names: vec!["b.example".into()], healthy_endpoints: 1 });
        let expected = Exported { names: vec![name], healthy: 3 };
        assert_eq!(exported(apps), BTreeMap::from([(app, expected)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_written_after_a_rest_and_what_does_not_change_is_confirmed() {
        let mut keeper = Keeper::default();
        let (one, other) = (snapshot(&[("a.example", "10.0.0.1")]), snapshot(&[]));
        let (one, other) = (Arc::new(one), Arc::new(other));
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(keeper.due("dns", &one, start, false), Due::Write);
        let written = Written { snapshot: Arc::clone(&one), as_of: start, at: Instant::now() };
        keeper.written.insert("dns".into(), written);
        let same = Arc::new(Snapshot::clone(&one));
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
