//! Follows the keys of a Redis database: by keyspace events where the server tells of them, else by asking again.

use std::convert::Infallible;
use std::time::Duration;

use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, cmd};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::StreamExt;

use crate::permissions::store::dial::{Budget, within};
use crate::permissions::store::teller::Teller;
use crate::permissions::store::{BEAT, PREFIX, StoreError};

use super::Redis;
use super::commands::{Commands, Key, events};
use super::flags;

/// All keys are read again after so long although events come: SWAPDB tells of none.
const EVERYTHING: Duration = Duration::from_secs(30);
/// Bytes of events between two beats. Each has some hundred; a flood ends the connection, and then all is read anew.
const BYTES_OF_EVENTS: usize = 16 << 20;
/// Events that come so shortly after one another are answered by one question.
const TOGETHER: Duration = Duration::from_millis(2);
/// Most keys of such a question.
const MOST_TOGETHER: usize = 500;

/// Events as they come.
struct Events {
    messages: PubSubStream,
    /// Held, because without it nobody could be asked whether the connection lives.
    sink: PubSubSink,
    budget: Budget,
    channels: String,
}

impl Redis {
    /// Follows until nobody listens.
    pub(super) async fn follow_all(&self, teller: &mut Teller<'_>) {
        while !teller.is_done() {
            let Err(error) = self.session(teller).await;
            teller.failed(error.to_string()).await;
        }
    }

    /// One connection's life. Events come before the keys are read, so that no change is between the two.
    async fn session(&self, teller: &mut Teller<'_>) -> Result<Infallible, StoreError> {
        let mut commands = self.connect().await?;
        let mut events = match self.listen(&mut commands).await {
            Ok(events) => Some(events),
            Err(StoreError::Refused(why)) => {
                teller.note(
                    &self.name(),
                    &format!("no keyspace events, so changes are asked for: {why}"),
                );
                None
            }
            Err(error) => return Err(error),
        };
        teller.all(self.entries(&mut commands).await?).await;
        let (mut beat, mut everything) = (Instant::now() + BEAT, Instant::now() + EVERYTHING);
        while !teller.is_done() {
            if let Some(changed) = next(&mut events, beat).await? {
                for (key, entry) in commands.entries(&changed).await? {
                    teller.one(key, entry).await;
                }
            } else {
                let is_due = everything <= Instant::now();
                if is_due || self.may_have_missed(&mut commands, &mut events, teller).await? {
                    teller.changes(self.entries(&mut commands).await?).await;
                    everything = Instant::now() + EVERYTHING;
                } else {
                    teller.unchanged().await;
                }
                beat = Instant::now() + BEAT;
            }
        }
        Err(StoreError::Unavailable("nobody listens".to_owned()))
    }

    async fn entries(
        &self,
        commands: &mut Commands,
    ) -> Result<Vec<(String, crate::permissions::store::Entry)>, StoreError> {
        let keys = commands.keys().await?;
        let entries = commands.entries(&keys).await?;
        Ok(entries.into_iter().filter_map(|(key, entry)| Some((key, entry?))).collect())
    }

    /// Has the server tell of events. Refused: the server, or its ACL, does not allow it.
    async fn listen(&self, commands: &mut Commands) -> Result<Events, StoreError> {
        switch_on(commands).await?;
        let (mut connection, budget) = events(&self.dialer, &self.store).await?;
        let channels = format!("__keyspace@{}__:", self.store.database);
        budget.allow(BYTES_OF_EVENTS);
        let subscribed = connection.psubscribe(format!("{channels}{PREFIX}*"));
        match timeout(crate::permissions::store::dial::PATIENCE, subscribed).await {
            Err(_) => return Err(StoreError::Unavailable("PSUBSCRIBE: no answer".to_owned())),
            Ok(Err(error)) if error.code().is_some() => {
                return Err(StoreError::Refused(format!("PSUBSCRIBE: {error}")));
            }
            Ok(Err(error)) => return Err(StoreError::Unavailable(format!("PSUBSCRIBE: {error}"))),
            Ok(Ok(())) => {}
        }
        let (sink, messages) = connection.split();
        Ok(Events { messages, sink, budget, channels })
    }

    /// Whether there may be a change that no event told of. Cheap, as it is asked at every beat: FLUSHDB tells of nothing but
    /// leaves fewer keys, and somebody may have switched events off.
    async fn may_have_missed(
        &self,
        commands: &mut Commands,
        events: &mut Option<Events>,
        teller: &Teller<'_>,
    ) -> Result<bool, StoreError> {
        let Some(events) = events else { return Ok(true) };
        events.budget.allow(BYTES_OF_EVENTS);
        let alive = within("PING", events.sink.ping::<redis::Value>()).await;
        alive.map_err(StoreError::Unavailable)?;
        let was_off = switch_on(commands).await?;
        let keys = commands.one("DBSIZE", cmd("DBSIZE")).await?;
        let keys = redis::from_redis_value::<usize>(keys).unwrap_or_default();
        Ok(was_off || keys < teller.known())
    }
}

/// Adds to `notify-keyspace-events` what is missing. Whether anything was.
async fn switch_on(commands: &mut Commands) -> Result<bool, StoreError> {
    const SETTING: &str = "notify-keyspace-events";
    let mut ask = cmd("CONFIG");
    ask.arg("GET").arg(SETTING);
    let set = commands.one("CONFIG GET", ask).await?;
    let set = redis::from_redis_value::<std::collections::HashMap<String, String>>(set);
    let set = set.ok().and_then(|mut set| set.remove(SETTING));
    let set = set.ok_or_else(|| StoreError::Refused(format!("CONFIG GET knows no {SETTING}")))?;
    let Some(completed) = flags::completed(&set) else { return Ok(false) };
    let mut change = cmd("CONFIG");
    change.arg("SET").arg(SETTING).arg(completed);
    commands.one("CONFIG SET", change).await?;
    Ok(true)
}

/// The keys that something has happened to; `None`: nothing until the beat.
async fn next(events: &mut Option<Events>, beat: Instant) -> Result<Option<Vec<Key>>, StoreError> {
    let Some(events) = events else {
        sleep(beat.saturating_duration_since(Instant::now())).await;
        return Ok(None);
    };
    let Ok(first) = timeout_at(beat, events.messages.next()).await else { return Ok(None) };
    let mut keys = vec![events.key(first)?];
    while keys.len() < MOST_TOGETHER
        && let Ok(message) = timeout(TOGETHER, events.messages.next()).await
    {
        keys.push(events.key(message)?);
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(Some(keys))
}

impl Events {
    /// What is read is what the key has now, so what happened to it is not asked.
    fn key(&self, message: Option<Msg>) -> Result<Key, StoreError> {
        let ended = || StoreError::Unavailable("the connection for events has ended".to_owned());
        let channel: Vec<u8> = message.ok_or_else(ended)?.get_channel().map_err(|_| ended())?;
        channel.strip_prefix(self.channels.as_bytes()).map(<[u8]>::to_vec).ok_or_else(ended)
    }
}
