//! The service over a store in memory: writers that meet, and stores that do not do what they should.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::permissions::store::{Doing, Told, versions};

/// A store whose versions count its writes.
#[derive(Default)]
struct Memory {
    entries: Mutex<HashMap<String, (String, usize)>>,
    writes: AtomicUsize,
    /// What every answer is instead.
    fails: Mutex<Option<StoreError>>,
    /// Never answers.
    silent: bool,
}

impl Memory {
    fn with(key: &str, value: &str) -> Arc<Self> {
        let memory = Self::default();
        memory.entries.lock().unwrap().insert(key.to_owned(), (value.to_owned(), 100));
        Arc::new(memory)
    }

    async fn answer<T>(
        &self,
        answer: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Others get their turn between a read and the write that follows.
        tokio::task::yield_now().await;
        if self.silent {
            std::future::pending::<()>().await;
        }
        let failed = self.fails.lock().unwrap().clone();
        failed.map_or_else(answer, Err)
    }

    fn check(there: Option<usize>, expected: &Expected) -> Result<(), StoreError> {
        let there = there.map(|version| Version::from(&*version.to_string()));
        versions::check(expected, there.as_ref())
    }
}

impl Store for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn follow<'a>(&'a self, _: &'a mpsc::Sender<Told>) -> Doing<'a, ()> {
        Box::pin(std::future::pending())
    }

    fn read<'a>(&'a self, key: &'a str) -> Doing<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(self.answer(|| {
            let entries = self.entries.lock().unwrap();
            Ok(entries.get(key).map(|(value, version)| Entry {
                value: Ok(value.clone()),
                version: Version::from(&*version.to_string()),
            }))
        }))
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<Version, StoreError>> {
        Box::pin(self.answer(|| {
            let mut entries = self.entries.lock().unwrap();
            Self::check(entries.get(key).map(|(_, version)| *version), expected)?;
            let version = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
            entries.insert(key.to_owned(), (value.to_owned(), version));
            Ok(Version::from(&*version.to_string()))
        }))
    }

    fn remove<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<bool, StoreError>> {
        Box::pin(self.answer(|| {
            let mut entries = self.entries.lock().unwrap();
            Self::check(entries.get(key).map(|(_, version)| *version), expected)?;
            Ok(entries.remove(key).is_some())
        }))
    }
}

fn app(written: &str) -> AppId {
    AppId::parse(written).unwrap()
}

fn remote(written: &str, clusters: &[&str]) -> RemoteApp {
    RemoteApp { app: app(written), clusters: clusters.iter().map(|&name| name.into()).collect() }
}

fn frontend() -> AppId {
    app("shop/frontend")
}

fn service(store: Option<&Arc<Memory>>) -> Arc<Service> {
    let store = store.map(|store| Arc::clone(store) as Arc<dyn Store>);
    let (_, in_force) = watch::channel(Arc::default());
    Arc::new(Service::new(Box::new(move || store.clone()), in_force))
}

fn version(changed: Result<Changed, ServiceError>) -> Version {
    changed.unwrap().document.unwrap().version
}

#[tokio::test]
async fn writers_that_meet_lose_nothing_of_each_other() {
    let store = Arc::new(Memory::default());
    let service = service(Some(&store));
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let service = Arc::clone(&service);
            let remote = remote(&format!("shop/app{number}"), &[]);
            tokio::spawn(
                async move { service.allow(&frontend(), &remote, &Precondition::None).await },
            )
        })
        .collect();
    for writer in writers {
        assert!(writer.await.unwrap().unwrap().changed);
    }
    assert_eq!(service.get(&frontend()).await.unwrap().says.allowed.len(), 8);
    assert_eq!(store.writes.load(Ordering::Relaxed), 8);
}

#[tokio::test]
async fn a_version_that_is_expected_is_the_only_one_that_is_replaced() {
    let service = service(Some(&Arc::default()));
    let says = AllowedApps { app: frontend(), allowed: vec![] };
    let set = async |wanted| service.set(says.clone(), &wanted).await;
    let absent = Err(ServiceError::Precondition(None));
    assert_eq!(set(Precondition::Present).await, absent);
    assert_eq!(set(Precondition::OneOf(vec!["1".into()])).await, absent);
    let first = version(set(Precondition::Absent).await);
    let there = |version: &Version| Some(version.clone());
    let known = set(Precondition::Absent).await.unwrap_err();
    assert_eq!(known, ServiceError::Store(StoreError::Conflict(there(&first))));
    let second = version(set(Precondition::OneOf(vec!["x".into(), first.clone()])).await);
    let old = Precondition::OneOf(vec![first]);
    assert_eq!(set(old.clone()).await, Err(ServiceError::Precondition(there(&second))));
    let orders = remote("shop/orders", &[]);
    assert!(service.allow(&frontend(), &orders, &old).await.is_err());
    assert!(service.delete(&frontend(), &old).await.is_err());
    version(set(Precondition::None).await);
    version(set(Precondition::Present).await);
    assert!(service.delete(&frontend(), &Precondition::Present).await.unwrap().changed);
    let gone = service.delete(&frontend(), &Precondition::None).await;
    assert_eq!(gone, Err(ServiceError::Absent(frontend())));
}

#[tokio::test]
async fn what_is_so_already_is_not_written_again() {
    let store = Arc::new(Memory::default());
    let service = service(Some(&store));
    let allow = async |clusters: &[&str]| {
        let remote = remote("shop/orders", clusters);
        service.allow(&frontend(), &remote, &Precondition::None).await.unwrap()
    };
    let revoke = async || {
        let wanted = Precondition::None;
        service.revoke(&frontend(), &app("shop/orders"), &wanted).await.unwrap()
    };
    assert!(!revoke().await.changed);
    assert!(allow(&[]).await.changed && !allow(&[]).await.changed);
    assert!(allow(&["east"]).await.changed && !allow(&["east"]).await.changed);
    let last = revoke().await;
    assert!(last.changed && !revoke().await.changed);
    assert_eq!(last.document.unwrap().says.allowed, []);
    assert_eq!(store.writes.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_is_stored_and_no_document_is_told_with_its_place_and_can_be_replaced() {
    let store = Memory::with("strait/apps/shop/frontend", "{\n]");
    let service = service(Some(&store));
    let orders = remote("shop/orders", &[]);
    for error in [
        service.get(&frontend()).await.unwrap_err(),
        service.allow(&frontend(), &orders, &Precondition::None).await.unwrap_err(),
    ] {
        let ServiceError::Garbled(_, wrong) = error else { panic!("{error}") };
        assert_eq!(wrong.line, 2);
    }
    let says = AllowedApps { app: frontend(), allowed: vec![orders] };
    version(service.set(says, &Precondition::OneOf(vec!["100".into()])).await);
    assert_eq!(service.get(&frontend()).await.unwrap().says.allowed.len(), 1);
}

#[tokio::test]
async fn a_document_that_grows_too_long_is_not_written() {
    let service = service(Some(&Arc::default()));
    let long = |number| remote(&format!("shop/{}{number}", "a".repeat(200)), &[]);
    let allowed: Vec<_> = (0..MOST_BYTES / 200).map(long).collect();
    let says = AllowedApps { app: frontend(), allowed };
    let error = service.set(says, &Precondition::None).await.unwrap_err();
    assert!(matches!(error, ServiceError::TooLong(..)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_not_there_fails_or_says_nothing_is_told_apart() {
    let get =
        async |store: Option<&Arc<Memory>>| service(store).get(&frontend()).await.unwrap_err();
    assert_eq!(get(None).await, ServiceError::NoStore);
    let refused = StoreError::Refused("NOPERM".to_owned());
    let failing =
        Arc::new(Memory { fails: Mutex::new(Some(refused.clone())), ..Memory::default() });
    assert_eq!(get(Some(&failing)).await, ServiceError::Store(refused));
    let silent = Arc::new(Memory { silent: true, ..Memory::default() });
    let error = get(Some(&silent)).await;
    assert!(matches!(error, ServiceError::Store(StoreError::Unavailable(_))), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_until_his_version_is_in_force() {
    let (sender, in_force) = watch::channel(Arc::default());
    let service = Service::new(Box::new(|| None), in_force);
    let (caller, wait) = (frontend(), Duration::from_secs(1));
    let two = Version::from("2");
    assert!(service.until_in_force(&caller, None, wait).await);
    assert!(!service.until_in_force(&caller, Some(&two), wait).await);
    let known =
        |version| crate::permissions::in_force::testing::in_force(&[("shop/frontend", version)]);
    let reached = service.until_in_force(&caller, Some(&two), wait);
    let telling = async {
        tokio::task::yield_now().await;
        sender.send(Arc::new(known("1"))).unwrap();
        tokio::task::yield_now().await;
        sender.send(Arc::new(known("2"))).unwrap();
    };
    assert!(tokio::join!(reached, telling).0);
    assert!(!service.until_in_force(&caller, None, wait).await);
}
