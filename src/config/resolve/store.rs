//! Where the documents of allowed apps are kept.

use std::path::PathBuf;

use url::Url;

use crate::config::file::Setting;
use crate::config::problem::{Problem, Wrong};
use crate::config::spot::Spot;
use crate::config::store::{PostgresqlStore, RedisStore, Store, StoreServer};
use crate::config::store_file as file;
use crate::config::tree::NodeId;

use super::Resolver;

/// The port of a Redis server where the URL names none.
const REDIS_PORT: u16 = 6379;
/// The same of `PostgreSQL`.
const POSTGRESQL_PORT: u16 = 5432;
/// The table and the channel that `strait store init` makes where nothing is said.
const DEFAULT_TABLE: &str = "strait_apps";
/// Longest name in `PostgreSQL` (NAMEDATALEN - 1).
const LONGEST_NAME: usize = 63;

const REDIS_URL: &str = "write redis://HOST:6379/DATABASE, or rediss:// for TLS";
const POSTGRESQL_URL: &str = "write postgresql://USER@HOST:5432/DATABASE?sslmode=verify-full";
const NEEDS_CA: &str = "add `caFile: FILE`, the certificates of the authorities that may have issued the server's; Debian has those of public ones in /etc/ssl/certs/ca-certificates.crt";

/// What a URL says.
struct Written {
    host: String,
    port: u16,
    user: Option<String>,
    path: String,
    tls: bool,
}

impl Resolver<'_> {
    /// The store. `None` where it is missing or wrong, which has been noted.
    pub(super) fn store(&mut self, written: &Spot<file::Store>) -> Option<Store> {
        let keys = written.value.as_ref()?;
        match (&keys.file, &keys.redis, &keys.postgresql) {
            (Some(file), None, None) => self.file_store(file),
            (None, Some(redis), None) => self.redis(redis).map(Store::Redis),
            (None, None, Some(table)) => self.postgresql(table).map(Store::Postgresql),
            _ => {
                let fix = "write one of `file`, `redis` and `postgresql`";
                self.wrong(written.node, Wrong::new("a store is exactly one", fix));
                None
            }
        }
    }

    fn file_store(&mut self, written: &Spot<file::FileStore>) -> Option<Store> {
        let keys = written.value.as_ref()?;
        let fix =
            "add `directory: allowed`, a folder with <namespace>.<app id>.json for each caller";
        let spot = self.required(&keys.directory, written.node, "directory", fix)?;
        Some(Store::File { directory: self.path(spot)? })
    }

    fn redis(&mut self, written: &Spot<file::RedisStore>) -> Option<RedisStore> {
        let keys = written.value.as_ref()?;
        let spot = self.required(&keys.url, written.node, "url", REDIS_URL)?;
        let (url, database) = self.url(spot, redis_url)?;
        let server = self.server(url, written.node, &keys.password_file, &keys.ca_file)?;
        Some(RedisStore { server, database })
    }

    fn postgresql(&mut self, written: &Spot<file::PostgresqlStore>) -> Option<PostgresqlStore> {
        let keys = written.value.as_ref()?;
        let spot = self.required(&keys.url, written.node, "url", POSTGRESQL_URL)?;
        let url = self.url(spot, postgresql_url);
        let mut name = |setting, parse: fn(&str) -> Result<String, Wrong>| match setting {
            &None => Some(DEFAULT_TABLE.to_owned()),
            setting => self.parse(setting, parse),
        };
        let (table, channel) = (name(&keys.table, table), name(&keys.channel, identifier));
        let url = url?;
        let database = url.path.clone();
        let server = self.server(url, written.node, &keys.password_file, &keys.ca_file)?;
        Some(PostgresqlStore { server, database, table: table?, channel: channel? })
    }

    /// Parses a URL. A problem does not show it: somebody may have written a password there, and what is told is logged.
    fn url<T>(
        &mut self,
        spot: &Spot<String>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let wrong = match parse(spot.value.as_deref()?) {
            Ok(parsed) => return Some(parsed),
            Err(wrong) => wrong,
        };
        let tree = self.tree;
        self.problems.error(|| {
            let problem = tree.problem(spot.node, wrong);
            Problem { text: String::new(), excerpt: None, ..problem }
        });
        None
    }

    fn server(
        &mut self,
        url: Written,
        node: NodeId,
        password_file: &Setting<String>,
        ca_file: &Setting<String>,
    ) -> Option<StoreServer> {
        let mut file = |setting: &Setting<String>| -> Option<PathBuf> {
            setting.as_ref().and_then(|spot| self.path(spot))
        };
        let (password_file, ca_path) = (file(password_file), file(ca_file));
        if url.tls && ca_file.is_none() {
            self.wrong(
                node,
                Wrong::new("`caFile` is missing: TLS without it proves nothing", NEEDS_CA),
            );
            return None;
        }
        if let (false, Some(spot)) = (url.tls, ca_file) {
            let fix = "write rediss:// or sslmode=verify-full for TLS, or leave `caFile` out";
            self.wrong(spot.node, Wrong::new("the connection is without TLS", fix));
            return None;
        }
        let Written { host, port, user, path: _, tls: _ } = url;
        Some(StoreServer { host, port, user, password_file, ca_file: ca_path })
    }
}

fn redis_url(written: &str) -> Result<(Written, u32), Wrong> {
    let url = parsed(written, REDIS_URL)?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => {
            return Err(Wrong::new(
                "the URL of Redis begins with redis:// or rediss://",
                REDIS_URL,
            ));
        }
    };
    if url.query().is_some() {
        return Err(Wrong::new("the URL of Redis has no `?`", REDIS_URL));
    }
    let parts = parts(&url, REDIS_PORT, tls, REDIS_URL)?;
    let database = if parts.path.is_empty() { Ok(0) } else { parts.path.parse() };
    let database = database.map_err(|_| {
        Wrong::new(format!("`{}` is no number of a database", parts.path.escape_debug()), REDIS_URL)
    })?;
    Ok((parts, database))
}

fn postgresql_url(written: &str) -> Result<Written, Wrong> {
    let url = parsed(written, POSTGRESQL_URL)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(Wrong::new("the URL begins with postgresql://", POSTGRESQL_URL));
    }
    let parts = parts(&url, POSTGRESQL_PORT, is_verified(&url)?, POSTGRESQL_URL)?;
    if parts.user.is_none() || parts.path.is_empty() {
        return Err(Wrong::new("the URL names a user and a database", POSTGRESQL_URL));
    }
    Ok(parts)
}

/// What `sslmode` says. Others than these two encrypt, and would do so with whoever answers in the server's place.
fn is_verified(url: &Url) -> Result<bool, Wrong> {
    let mut modes = url.query_pairs();
    let mode = modes.next();
    let fix = "write sslmode=verify-full, with `caFile`, or sslmode=disable";
    match mode.as_ref().map(|(key, value)| (&**key, &**value)) {
        Some(("sslmode", "verify-full")) if modes.next().is_none() => Ok(true),
        Some(("sslmode", "disable")) if modes.next().is_none() => Ok(false),
        Some(("sslmode", other))
            if matches!(other, "allow" | "prefer" | "require" | "verify-ca") =>
        {
            Err(Wrong::new(format!("sslmode={other} does not prove who the server is"), fix))
        }
        _ => Err(Wrong::new("the URL says `sslmode`, and nothing else behind the `?`", fix)),
    }
}

fn parsed(written: &str, fix: &str) -> Result<Url, Wrong> {
    Url::parse(written).map_err(|error| Wrong::new(format!("it is no URL: {error}"), fix))
}

fn parts(url: &Url, default_port: u16, tls: bool, fix: &str) -> Result<Written, Wrong> {
    if url.password().is_some() {
        let fix = "write it to a file, and `passwordFile: FILE`; take it out of the URL";
        return Err(Wrong::new("a password does not stand in the configuration", fix));
    }
    let path = url.path().trim_start_matches('/').to_owned();
    let user = Some(url.username().to_owned()).filter(|user| !user.is_empty());
    if url.fragment().is_some() || path.contains(['/', '%']) || url.username().contains('%') {
        let message =
            "user and database are written without `%` and `#`, and the database without `/`";
        return Err(Wrong::new(message, fix));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| Wrong::new("the URL names no host", fix))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Written { host, port: url.port().unwrap_or(default_port), user, path, tls })
}

/// `table` or `schema.table`.
fn table(written: &str) -> Result<String, Wrong> {
    match written.split_once('.') {
        Some((schema, table)) => {
            identifier(schema)?;
            identifier(table)?;
            Ok(written.to_owned())
        }
        None => identifier(written),
    }
}

/// A name that `PostgreSQL` and Dapr, which quotes none, understand alike.
fn identifier(written: &str) -> Result<String, Wrong> {
    let plain = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '_');
    let is_good = written.chars().all(plain)
        && written.starts_with(|first: char| !first.is_ascii_digit())
        && written.len() <= LONGEST_NAME;
    if is_good {
        return Ok(written.to_owned());
    }
    let message = format!("`{}` is no name that needs no quotes", written.escape_debug());
    Err(Wrong::new(
        message,
        "write up to 63 lower-case letters, digits and underscores, no digit first",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, Wrong>) -> String {
        result.err().map(|wrong| wrong.message).unwrap_or_default()
    }

    #[test]
    fn a_redis_url_says_where_and_whether_with_tls() {
        let (url, database) = redis_url("rediss://strait@redis.example/3").unwrap();
        assert_eq!(
            (&*url.host, url.port, url.user.as_deref()),
            ("redis.example", 6379, Some("strait"))
        );
        assert!(url.tls && database == 3);
        let (url, database) = redis_url("redis://[::1]:7000").unwrap();
        assert_eq!(
            (&*url.host, url.port, url.user, url.tls, database),
            ("::1", 7000, None, false, 0)
        );
        for bad in [
            "redis:/x",
            "http://x",
            "redis://x/a",
            "redis://x/1/2",
            "redis://x?db=1",
            "x",
            "redis://a%40b@x",
        ] {
            assert!(redis_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_without_being_repeated() {
        let refused = message(redis_url("redis://user:geheim@host/0"));
        assert_eq!(refused, "a password does not stand in the configuration");
        let refused = message(postgresql_url("postgresql://u:geheim@h/d?sslmode=disable"));
        assert_eq!(refused, "a password does not stand in the configuration");
    }

    #[test]
    fn a_postgresql_url_says_how_the_server_is_proven() {
        let url =
            postgresql_url("postgresql://strait@db.example/apps?sslmode=verify-full").unwrap();
        assert_eq!((&*url.host, url.port, &*url.path, url.tls), ("db.example", 5432, "apps", true));
        assert!(!postgresql_url("postgres://u@h:1/d?sslmode=disable").unwrap().tls);
        let unproven = message(postgresql_url("postgresql://u@h/d?sslmode=require"));
        assert_eq!(unproven, "sslmode=require does not prove who the server is");
        for bad in [
            "postgresql://u@h/d",
            "postgresql://h/d?sslmode=disable",
            "postgresql://u@h?sslmode=disable",
            "postgresql://u@h/d?sslmode=disable&host=x",
        ] {
            assert!(postgresql_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_is_a_name_that_needs_no_quotes() {
        assert_eq!(table("apps").unwrap(), "apps");
        assert_eq!(table("config.apps").unwrap(), "config.apps");
        for bad in ["", "Apps", "a.b.c", "1a", "a;drop", "a\"", ".a", &"a".repeat(64)] {
            assert!(table(bad).is_err(), "{bad}");
        }
    }
}
