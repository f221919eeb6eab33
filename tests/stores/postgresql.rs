//! `PostgreSQL`: the table of `strait store init`, and one that somebody made to Dapr's description.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use strait::config::{self, PostgresqlStore, StoreServer};
use strait::discovery::dns;
use strait::permissions::store::{Expected, Initialized, StoreError, Unreadable, initialize};

use crate::common::authority::Authority;
use crate::common::measured;
use crate::common::process::strait;
use crate::follower::Follower;
use crate::servers::{Postgresql, store};
use crate::{MANY, SOON, document, writers};

const A: &str = "strait/apps/shop/a";
const B: &str = "strait/apps/shop/b";

/// Table and trigger as Dapr's documentation has them, with names of the user's own.
const BY_HAND: &str = "\
CREATE TABLE configtable (KEY VARCHAR NOT NULL, VALUE VARCHAR NOT NULL, VERSION VARCHAR NOT NULL, METADATA JSON);
CREATE FUNCTION notify_event() RETURNS TRIGGER AS $$
DECLARE data json; notification json;
BEGIN
    IF (TG_OP = 'DELETE') THEN data = row_to_json(OLD); ELSE data = row_to_json(NEW); END IF;
    notification = json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data);
    PERFORM pg_notify('config', notification::text);
    RETURN NULL;
END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER config AFTER INSERT OR UPDATE OR DELETE ON configtable FOR EACH ROW EXECUTE PROCEDURE notify_event();
GRANT ALL ON configtable TO strait";

/// Its database, as a configuration names it.
pub(crate) fn url(postgresql: &Postgresql) -> String {
    format!("postgresql://strait@127.0.0.1:{}/apps?sslmode=disable", postgresql.port)
}

/// `strait store init`, as a user runs it. What it says.
pub(crate) fn init(postgresql: &Postgresql) -> String {
    let folder = tempfile::tempdir().unwrap();
    let url = url(postgresql);
    let text = format!(
        "cluster: west\nnames: [\"{{app}}.{{namespace}}.example\"]\nallowedApps: {{ store: {{ postgresql: {{ url: \"{url}\" }} }} }}\n"
    );
    fs::write(folder.path().join("strait.yaml"), text).unwrap();
    let done = strait(&["store", "init", "--config", "strait.yaml"], folder.path());
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

const MADE: &str = "done: made the table strait_apps and its trigger\n";
const WAS_THERE: &str = "done: the table strait_apps was there; its trigger is made anew\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_is_followed() {
    let Some(postgresql) = Postgresql::start("a_table_that_was_made") else { return };
    let store = postgresql.store();
    let mut follower = Follower::new(&store);
    follower.until("the table is missing", |follower| !follower.failures.is_empty()).await;
    assert_eq!(follower.failures, ["there is no table strait_apps; `strait store init` makes it"]);
    assert_eq!(init(&postgresql), MADE);
    assert_eq!(init(&postgresql), WAS_THERE);
    follower.until("it is followed", |follower| follower.all == 1).await;
    let first = store.write(A, "one", &Expected::Nothing).await.unwrap();
    follower.until_has(A, Some("one")).await;
    assert_eq!(follower.known[A].version, first);
    let since = Instant::now();
    postgresql
        .sql(&format!("UPDATE strait_apps SET value = 'two', version = '3' WHERE key = '{A}'"));
    follower.until_has(A, Some("two")).await;
    let took = since.elapsed();
    measured(&format!("a change in PostgreSQL is told after {took:?}"));
    assert!(took < SOON, "{took:?}");
    // A notification has less than 8,000 bytes, or the write would fail: with a long value, and with all else long too.
    let long = "a".repeat(20_000);
    store.write(A, &long, &Expected::Version("3".into())).await.unwrap();
    follower.until_has(A, Some(&long)).await;
    postgresql.sql(&format!("UPDATE strait_apps SET metadata = json_build_object('x', repeat('y', 9000)), value = 'three' WHERE key = '{A}'"));
    assert!(follower.until_has(A, Some("three")).await < SOON);
    assert_eq!(store.remove(A, &Expected::Anything).await, Ok(true));
    follower.until_has(A, None).await;
    // TRUNCATE tells of nothing.
    store.write(B, "one", &Expected::Nothing).await.unwrap();
    follower.until_has(B, Some("one")).await;
    postgresql.sql("TRUNCATE strait_apps");
    assert!(follower.until_has(B, None).await < SOON);
    // The connection is cut, as a pooler does: all is read anew.
    postgresql
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'strait'");
    follower.until("all is read anew", |follower| follower.all == 2).await;
    assert_eq!(follower.failures.len(), 2, "{:?}", follower.failures);
    // Without the trigger nobody tells anything, as behind a pooler that drops LISTEN.
    postgresql.sql("DROP TRIGGER strait_notify ON strait_apps");
    store.write(B, "two", &Expected::Nothing).await.unwrap();
    let took = follower.until_has(B, Some("two")).await;
    measured(&format!("a change in PostgreSQL without LISTEN is told after {took:?}"));
    assert!(took < SOON, "{took:?}");
    assert_eq!(init(&postgresql), WAS_THERE);
    let triggers = postgresql.sql("SELECT count(*) FROM pg_trigger WHERE tgname = 'strait_notify'");
    assert_eq!(triggers, "1", "it is made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_by_hand_is_followed() {
    let Some(postgresql) = Postgresql::start("a_table_made_by_hand") else { return };
    postgresql.sql(BY_HAND);
    let insert = |key: &str, value: &str, version: &str| {
        postgresql.sql(&format!(
            "INSERT INTO configtable VALUES ('{key}', '{value}', '{version}', NULL)"
        ));
    };
    insert(A, "nine", "9");
    let name = |name: &str| name.to_owned();
    let at = PostgresqlStore {
        table: name("configtable"),
        channel: name("config"),
        ..postgresql.settings()
    };
    let store = store(&config::Store::Postgresql(at));
    let mut follower = Follower::ready(&store).await;
    assert_eq!(follower.text(A), Some("nine"));
    // Another row of the same key: the highest whole number wins, not the last text.
    insert(A, "ten", "10");
    follower.until_has(A, Some("ten")).await;
    insert(A, "eight", "8");
    insert(A, "word", "v11");
    insert(B, "", "1");
    follower.until_has(B, Some("")).await;
    assert_eq!((follower.text(A), follower.known[A].version.as_str()), (Some("ten"), "10"));
    // The row that counts is gone, and the one before it counts again; with the last one the key is gone.
    postgresql.sql(&format!("DELETE FROM configtable WHERE key = '{A}' AND version = '10'"));
    follower.until_has(A, Some("nine")).await;
    postgresql.sql(&format!("DELETE FROM configtable WHERE key = '{A}'"));
    follower.until_has(A, None).await;
    // Others' keys, and values that are none; a long one cannot be written but without the trigger.
    insert("strait/apps/x", "x", "1");
    insert("other", "x", "1");
    postgresql.sql(&format!(
        "SET session_replication_role = replica; UPDATE configtable SET value = repeat('a', 70000), version = 'a b' WHERE key = '{B}'"
    ));
    insert("strait/apps/a/b/c", "x", "");
    follower
        .until("what others write is told", |follower| {
            follower.known.len() == 3 && follower.known[B].value == Err(Unreadable::TooLong)
        })
        .await;
    assert_eq!(follower.known[B].version.as_str().len(), 16);
    // Two writers where no row and no unique index is there to stop them; and Dapr finds metadata that it can read.
    writers::lose_nothing(&store).await;
    let written = store.write(A, "ours", &Expected::Nothing).await.unwrap();
    let row = postgresql
        .sql(&format!("SELECT value, version, metadata FROM configtable WHERE key = '{A}'"));
    assert_eq!(row, format!("ours|{written}|{{}}"));
    // A reader may read, and is told that it may not write.
    postgresql.sql("REVOKE ALL ON configtable FROM strait; GRANT SELECT ON configtable TO strait");
    let refused = store.write(A, "x", &Expected::Anything).await;
    assert!(
        matches!(&refused, Err(StoreError::Refused(why)) if why.contains("permission denied")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_over_tls() {
    let authority = Authority::new();
    let hba = "hostssl all all 127.0.0.1/32 scram-sha-256";
    let started = Postgresql::start_with("a_password_that_changes", hba, |folder| {
        let (certificate, key) = authority.issue(&["localhost"]).write(folder, "server");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'")
    });
    let Some(postgresql) = started else { return };
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    postgresql.sql("ALTER ROLE strait PASSWORD 'first'");
    fs::write(&password_file, "first\n").unwrap();
    let settings = postgresql.settings();
    let server = StoreServer {
        host: "localhost".to_owned(),
        password_file: Some(password_file.clone()),
        ca_file: Some(authority.write(folder.path())),
        ..settings.server.clone()
    };
    let at = |server| PostgresqlStore { server, ..settings.clone() };
    assert_eq!(
        initialize(&at(server.clone()), &dns::Settings::default()).await,
        Ok(Initialized::Made)
    );
    let here = store(&config::Store::Postgresql(at(server.clone())));
    let mut follower = Follower::ready(&here).await;
    postgresql.sql("ALTER ROLE strait PASSWORD 'second'");
    postgresql
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'strait'");
    let refused = |failure: &String| failure.contains("password authentication failed");
    follower
        .until("the old one is refused", |follower| follower.failures.iter().any(refused))
        .await;
    fs::write(&password_file, "second").unwrap();
    follower.until("all is read anew", |follower| follower.all > 1).await;
    here.write(A, "one", &Expected::Nothing).await.unwrap();
    follower.until_has(A, Some("one")).await;

    let other = StoreServer { host: "127.0.0.1".to_owned(), ..server.clone() };
    let error = store(&config::Store::Postgresql(at(other))).read(A).await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let plain = StoreServer { ca_file: None, ..server };
    let error = store(&config::Store::Postgresql(at(plain))).read(A).await.unwrap_err().to_string();
    assert!(error.contains("no pg_hba.conf entry"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_documents_are_read_once() {
    let Some(postgresql) = Postgresql::start("ten_thousand_documents") else { return };
    init(&postgresql);
    let document = document(7).replace("app-7", "app-' || n || '");
    postgresql.sql(&format!("INSERT INTO strait_apps SELECT 'strait/apps/n/app-' || n, '{document}', '1' FROM generate_series(1, {MANY}) n"));
    let store = postgresql.store();
    let since = Instant::now();
    let mut follower = Follower::ready(&store).await;
    measured(&format!("{MANY} documents in PostgreSQL are read in {:?}", since.elapsed()));
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(follower.known.len(), MANY);
    let since = Instant::now();
    postgresql.sql("UPDATE strait_apps SET value = 'new' WHERE key = 'strait/apps/n/app-7'");
    follower.until_has("strait/apps/n/app-7", Some("new")).await;
    let took = since.elapsed();
    measured(&format!("a change of one of {MANY} rows is told after {took:?}"));
    let asked = postgresql.sql("EXPLAIN (ANALYZE, TIMING OFF) SELECT sum(hashtextextended(concat_ws(chr(31), key, version, value) COLLATE \"C\", 0)) FROM strait_apps WHERE key LIKE 'strait/apps/%'");
    measured(&format!(
        "twice a second PostgreSQL is asked for one number: {}",
        asked.lines().last().unwrap()
    ));
}
