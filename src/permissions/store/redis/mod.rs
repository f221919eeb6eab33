//! Documents in Redis, as plain string keys with `value||version`, in the format of Dapr's configuration component.

mod commands;
mod flags;
mod follow;
mod value;

use tokio::sync::mpsc;

use crate::config::RedisStore;
use crate::discovery::dns;
use crate::model::allowed::Version;

use super::dial::Dialer;
use super::teller::Teller;
use super::{Doing, Entry, Expected, Store, StoreError, Told, versions};
use commands::{Commands, Raw};

/// Tries of a write while others write the same key. Each that fails means that another has succeeded.
const TRIES: usize = 16;

/// A database of a Redis server.
pub(super) struct Redis {
    dialer: Dialer,
    store: RedisStore,
}

impl Redis {
    pub(super) fn new(store: &RedisStore, names: &dns::Settings) -> Self {
        let dialer = Dialer { server: store.server.clone(), names: names.clone() };
        Self { dialer, store: store.clone() }
    }

    fn name(&self) -> String {
        format!("redis at {}, database {}", self.store.server, self.store.database)
    }

    async fn connect(&self) -> Result<Commands, StoreError> {
        Commands::connect(&self.dialer, &self.store).await
    }

    /// Reads, judges, and replaces what was read: again, if somebody came between. What was there, and what is there now.
    async fn replace(
        &self,
        key: &str,
        value: Option<&str>,
        expected: &Expected,
    ) -> Result<(Option<Version>, u64), StoreError> {
        let mut commands = self.connect().await?;
        for _ in 0..TRIES {
            let now = current(&mut commands, key).await?;
            let version = now.as_ref().map(|bytes| value::entry(bytes).version);
            versions::check(expected, version.as_ref())?;
            if now.is_none() && value.is_none() {
                return Ok((None, 0));
            }
            let next = versions::next(version.as_ref().map(Version::as_str));
            let joined = value.map(|value| value::join(value, next));
            if commands.replace(key, now.as_deref(), joined.as_deref()).await? {
                return Ok((version, next));
            }
        }
        Err(StoreError::Unavailable(format!("{TRIES} others wrote {key} first; try again")))
    }
}

async fn current(commands: &mut Commands, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match commands.values(&[key.as_bytes().to_vec()]).await?.pop() {
        Some(Raw::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Raw::OtherType) => Err(StoreError::Refused(format!("{key} is no string"))),
        Some(Raw::Nothing) | None => Ok(None),
    }
}

impl Store for Redis {
    fn describe(&self) -> String {
        self.name()
    }

    fn follow<'a>(&'a self, told: &'a mpsc::Sender<Told>) -> Doing<'a, ()> {
        Box::pin(async move { self.follow_all(&mut Teller::new(told)).await })
    }

    fn read<'a>(&'a self, key: &'a str) -> Doing<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            let entries = self.connect().await?.entries(&[key.as_bytes().to_vec()]).await?;
            Ok(entries.into_iter().next().and_then(|(_, entry)| entry))
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<Version, StoreError>> {
        Box::pin(async move {
            if value.contains(value::MARK) {
                let message = format!("a value with `{}` cannot be kept in Redis", value::MARK);
                return Err(StoreError::Refused(message));
            }
            let (_, version) = self.replace(key, Some(value), expected).await?;
            Ok(Version::from(&*version.to_string()))
        })
    }

    fn remove<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (before, _) = self.replace(key, None, expected).await?;
            Ok(before.is_some())
        })
    }
}
