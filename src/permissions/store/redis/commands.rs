//! A connection to Redis, and the few questions that are asked over it.

use std::collections::HashSet;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, Value, cmd, pipe};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use crate::config::RedisStore;
use crate::permissions::store::dial::{Budget, Dialer, within};
use crate::permissions::store::{
    Entry, LISTING, MOST_BYTES_OF_ALL, MOST_KEYS, PREFIX, StoreError, Unreadable, versions,
};

use super::value::{self, LAST_BYTE};

/// Keys of one answer to SCAN; more make other clients of the server wait.
const SCANNED: usize = 1000;
/// Values that are asked for at a time. All of them at their longest are 32 MiB.
const AT_A_TIME: usize = 500;
/// What an answer has besides values.
const OVERHEAD: usize = 1 << 20;
/// Replaces or removes a value if it is still what was read; 1 if so. Both are cut at the same byte, so that no value is too
/// long to be replaced.
const REPLACE: &str = "\
local now = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('GETRANGE', KEYS[1], 0, tonumber(ARGV[1]))
if now ~= (ARGV[2] == '1' and ARGV[3]) then return 0 end
if ARGV[4] == '1' then redis.call('SET', KEYS[1], ARGV[5]) else redis.call('DEL', KEYS[1]) end
return 1";

/// Any stream that Redis may speak over.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection for commands.
pub(super) struct Commands {
    connection: MultiplexedConnection,
    budget: Budget,
    _driver: AbortOnDropHandle<()>,
}

/// A key as Redis has it, which need not be text.
pub(super) type Key = Vec<u8>;

impl Commands {
    /// Connects and logs in.
    pub(super) async fn connect(dialer: &Dialer, store: &RedisStore) -> Result<Self, StoreError> {
        let opened = async {
            let (stream, budget, login) = stream(dialer, store).await?;
            // Its own time for an answer is 500 ms; ours is around each question.
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let opened = MultiplexedConnection::new_with_config(&login, stream, config);
            let (connection, driver) = within("login", opened).await?;
            Ok((connection, AbortOnDropHandle::new(tokio::spawn(driver)), budget))
        };
        let (connection, driver, budget) = opened.await.map_err(StoreError::Unavailable)?;
        let mut commands = Self { connection, budget, _driver: driver };
        commands.refuse_cluster().await?;
        Ok(commands)
    }

    /// A node of a cluster knows a part of the keys: what the others have would seem to be gone, and that is a revocation.
    async fn refuse_cluster(&mut self) -> Result<(), StoreError> {
        // HELLO may be asked by every user, whatever his ACL says.
        let hello = self.one("HELLO", cmd("HELLO")).await?;
        let mode = redis::from_redis_value::<std::collections::HashMap<String, Value>>(hello);
        let mode = mode.ok().and_then(|mut answer| answer.remove("mode"));
        match mode.map(redis::from_redis_value::<String>) {
            Some(Ok(mode)) if mode == "cluster" => {
                let message = "a Redis Cluster is not supported: name a server that has all keys";
                Err(StoreError::Refused(message.to_owned()))
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => {
                Err(StoreError::Unavailable("the answer to HELLO names no mode".to_owned()))
            }
        }
    }

    /// All keys below the prefix. The server says when it is done, and one that never does must not keep us.
    pub(super) async fn keys(&mut self) -> Result<Vec<Key>, StoreError> {
        let listed = tokio::time::timeout(LISTING, self.scan()).await;
        listed.unwrap_or_else(|_| Err(StoreError::Unavailable("SCAN comes to no end".to_owned())))
    }

    async fn scan(&mut self) -> Result<Vec<Key>, StoreError> {
        // SCAN may give a key twice.
        let mut keys = HashSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{PREFIX}*")).arg("COUNT").arg(SCANNED);
            let answer = self.one("SCAN", scan).await?;
            let (next, some): (String, Vec<Key>) = understood("SCAN", answer)?;
            keys.extend(some);
            if keys.len() > MOST_KEYS {
                let message = format!("more than {MOST_KEYS} keys begin with {PREFIX}");
                return Err(StoreError::Unavailable(message));
            }
            if next == "0" {
                return Ok(keys.into_iter().collect());
            }
            cursor = next;
        }
    }

    /// What keys have.
    pub(super) async fn entries(
        &mut self,
        keys: &[Key],
    ) -> Result<Vec<(String, Option<Entry>)>, StoreError> {
        let (mut entries, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for some in keys.chunks(AT_A_TIME) {
            for (key, value) in some.iter().zip(self.values(some).await?) {
                let entry = match value {
                    Raw::Bytes(value) => {
                        bytes += value.len();
                        Some(value::entry(&value))
                    }
                    Raw::OtherType => Some(Entry {
                        value: Err(Unreadable::OtherType),
                        version: versions::of_content(b""),
                    }),
                    Raw::Nothing => None,
                };
                entries.push((String::from_utf8_lossy(key).into_owned(), entry));
            }
            if bytes > MOST_BYTES_OF_ALL {
                let message = format!("all values have more than {MOST_BYTES_OF_ALL} bytes");
                return Err(StoreError::Unavailable(message));
            }
        }
        Ok(entries)
    }

    /// Values, cut at [`LAST_BYTE`]: MGET would bring all of each, and a value may have 512 MB.
    pub(super) async fn values(&mut self, keys: &[Key]) -> Result<Vec<Raw>, StoreError> {
        let mut ask = pipe();
        for key in keys {
            ask.cmd("GETRANGE").arg(key).arg(0).arg(LAST_BYTE);
        }
        let answers = self.ask("GETRANGE", &ask, keys.len() * (LAST_BYTE + 1)).await?;
        let mut values = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            values.push(if let Value::BulkString(bytes) = answer {
                // Of a key that is not there GETRANGE gives as much as of one that is empty.
                if bytes.is_empty() { self.empty_or_gone(key).await? } else { Raw::Bytes(bytes) }
            } else if is_of_other_type(&answer) {
                Raw::OtherType
            } else {
                return Err(unexpected("GETRANGE", &answer));
            });
        }
        Ok(values)
    }

    async fn empty_or_gone(&mut self, key: &Key) -> Result<Raw, StoreError> {
        let mut exists = cmd("EXISTS");
        exists.arg(key);
        let answer = self.one("EXISTS", exists).await?;
        let exists: bool = understood("EXISTS", answer)?;
        Ok(if exists { Raw::Bytes(Vec::new()) } else { Raw::Nothing })
    }

    /// Puts `value` in the place of `now`, `None` being nothing. False: something else was there by then.
    pub(super) async fn replace(
        &mut self,
        key: &str,
        now: Option<&[u8]>,
        value: Option<&str>,
    ) -> Result<bool, StoreError> {
        let flag = |is_there: bool| if is_there { "1" } else { "0" };
        let mut eval = cmd("EVAL");
        eval.arg(REPLACE).arg(1).arg(key).arg(LAST_BYTE);
        eval.arg(flag(now.is_some())).arg(now.unwrap_or_default());
        eval.arg(flag(value.is_some())).arg(value.unwrap_or_default());
        let answer = self.one("EVAL", eval).await?;
        understood("EVAL", answer)
    }

    /// One command.
    pub(super) async fn one(
        &mut self,
        what: &str,
        command: redis::Cmd,
    ) -> Result<Value, StoreError> {
        let mut ask = pipe();
        ask.add_command(command);
        match self.ask(what, &ask, 0).await?.pop() {
            Some(Value::ServerError(error)) => Err(StoreError::Refused(format!("{what}: {error}"))),
            Some(answer) => Ok(answer),
            None => Err(StoreError::Unavailable(format!("{what}: no answer"))),
        }
    }

    async fn ask(
        &mut self,
        what: &str,
        pipeline: &Pipeline,
        bytes: usize,
    ) -> Result<Vec<Value>, StoreError> {
        self.budget.allow(bytes + OVERHEAD);
        let asked = self.connection.send_packed_commands(pipeline, 0, pipeline.len());
        within(what, asked).await.map_err(StoreError::Unavailable)
    }
}

/// What a key has.
pub(super) enum Raw {
    Bytes(Vec<u8>),
    OtherType,
    Nothing,
}

/// A connection for events.
pub(super) async fn events(
    dialer: &Dialer,
    store: &RedisStore,
) -> Result<(PubSub, Budget), StoreError> {
    let opened = async {
        let (stream, budget, login) = stream(dialer, store).await?;
        let events = within("login", PubSub::new(&login, stream)).await?;
        Ok((events, budget))
    };
    opened.await.map_err(StoreError::Unavailable)
}

async fn stream(
    dialer: &Dialer,
    store: &RedisStore,
) -> Result<(Box<dyn Duplex>, Budget, RedisConnectionInfo), String> {
    let password = dialer.password().await?;
    let tls = dialer.tls().await?;
    let (stream, budget) = dialer.connect().await?;
    // The library's name would be one command more that an ACL has to allow.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    login = login.set_db(store.database.into());
    if let Some(user) = &store.server.user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let stream: Box<dyn Duplex> = match tls {
        Some(tls) => Box::new(within("TLS", tls.connect(stream)).await?),
        None => Box::new(stream),
    };
    Ok((stream, budget, login))
}

fn understood<T: redis::FromRedisValue>(what: &str, answer: Value) -> Result<T, StoreError> {
    redis::from_redis_value(answer)
        .map_err(|error| StoreError::Unavailable(format!("{what}: nonsense: {error}")))
}

fn is_of_other_type(answer: &Value) -> bool {
    if let Value::ServerError(error) = answer { error.code() == "WRONGTYPE" } else { false }
}

fn unexpected(what: &str, answer: &Value) -> StoreError {
    if let Value::ServerError(error) = answer {
        return StoreError::Refused(format!("{what}: {error}"));
    }
    StoreError::Unavailable(format!("{what}: nonsense for an answer"))
}
