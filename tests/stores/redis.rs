//! Redis, with and without what it may not allow.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use strait::config::{self, RedisStore, StoreServer};
use strait::permissions::store::{Expected, StoreError, Unreadable};

use crate::common::authority::Authority;
use crate::common::measured;
use crate::follower::Follower;
use crate::servers::{Redis, server, store};
use crate::{MANY, SOON, document, writers};

const A: &str = "strait/apps/shop/a";
const B: &str = "strait/apps/shop/b";

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_by_events_which_are_switched_on() {
    let Some(redis) = Redis::start("changes_come_by_events", &["--notify-keyspace-events", "El"])
    else {
        return;
    };
    redis.cli(&["-n", "3", "SET", A, "one||1"]);
    let mut follower = Follower::ready(&redis.store()).await;
    assert_eq!(follower.text(A), Some("one"));
    let flags = redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
    let flags: BTreeSet<_> = flags.lines().nth(1).unwrap().chars().collect();
    assert_eq!(flags, "ElKg$xe".chars().collect());
    let since = Instant::now();
    redis.cli(&["-n", "3", "SET", A, "two||2"]);
    follower.until_has(A, Some("two")).await;
    let took = since.elapsed();
    measured(&format!("a change in Redis is told after {took:?}"));
    assert!(took < SOON, "{took:?}");
    redis.cli(&["-n", "3", "RENAME", A, B]);
    follower.until_has(B, Some("two")).await;
    follower.until_has(A, None).await;
    redis.cli(&["-n", "3", "PEXPIRE", B, "20"]);
    follower.until_has(B, None).await;
    redis.cli(&["-n", "3", "SET", A, "three"]);
    follower.until_has(A, Some("three")).await;
    // FLUSHDB tells of nothing.
    redis.cli(&["-n", "3", "FLUSHDB"]);
    assert!(follower.until_has(A, None).await < SOON);
    // Somebody switches events off: seen, and put right.
    redis.cli(&["CONFIG", "SET", "notify-keyspace-events", ""]);
    redis.cli(&["-n", "3", "SET", A, "four"]);
    assert!(follower.until_has(A, Some("four")).await < SOON);
    redis.cli(&["-n", "4", "SET", B, "elsewhere"]);
    redis.cli(&["-n", "3", "DEL", A]);
    follower.until_has(A, None).await;
    assert_eq!((follower.known.len(), follower.all, &*follower.failures), (0, 1, &[][..]));
}

/// A server with what others wrote past Strait. `None`: there is none, and the test has said so.
fn written_by_others(test: &str) -> Option<Redis> {
    let redis = Redis::start(test, &[])?;
    redis.cli(&["-n", "3", "SET", A, "{}"]);
    redis.cli(&["-n", "3", "SET", B, "{}||7||8"]);
    redis.cli(&[
        "-n",
        "3",
        "EVAL",
        "redis.call('SET', KEYS[1], '{' .. string.char(255))",
        "1",
        "strait/apps/shop/bytes",
    ]);
    redis.cli(&[
        "-n",
        "3",
        "EVAL",
        "redis.call('SET', KEYS[1], string.rep('a', 70000) .. '||3')",
        "1",
        "strait/apps/shop/long",
    ]);
    redis.cli(&["-n", "3", "LPUSH", "strait/apps/shop/list", "1"]);
    redis.cli(&["-n", "3", "SET", "strait/apps/shop/empty", ""]);
    for foreign in ["strait/apps/x", "strait/apps/a/b/c", "strait/apps/"] {
        redis.cli(&["-n", "3", "SET", foreign, "x"]);
    }
    redis.cli(&["-n", "3", "SET", "strait/other", "x"]);
    Some(redis)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_told_as_it_is() {
    let Some(redis) = written_by_others("what_others_write_is_told") else { return };
    let follower = Follower::ready(&redis.store()).await;
    let keys: Vec<_> =
        follower.known.keys().map(|key| key.strip_prefix("strait/apps/").unwrap()).collect();
    let all = [
        "",
        "a/b/c",
        "shop/a",
        "shop/b",
        "shop/bytes",
        "shop/empty",
        "shop/list",
        "shop/long",
        "x",
    ];
    assert_eq!(keys, all);
    let entry = |app: &str| follower.known[&format!("strait/apps/shop/{app}")].clone();
    assert_eq!(
        (entry("a").value.unwrap(), entry("a").version.as_str().len()),
        ("{}".to_owned(), 16)
    );
    assert_eq!((entry("b").value.unwrap(), entry("b").version.as_str()), ("{}".to_owned(), "7"));
    assert_eq!(entry("bytes").value, Err(Unreadable::NotUtf8(1)));
    assert_eq!(entry("long").value, Err(Unreadable::TooLong));
    assert_eq!(entry("list").value, Err(Unreadable::OtherType));
    assert_eq!(entry("empty").value.as_deref(), Ok(""));
}

/// A value without a version is replaced by who has read it, and by nobody else; what is too long, by who wants that.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_replaced_by_who_has_read_it() {
    let Some(redis) = written_by_others("what_others_write_is_replaced") else { return };
    let store = redis.store();
    let follower = Follower::ready(&store).await;
    let version = Expected::Version(follower.known[A].version.clone());
    redis.cli(&["-n", "3", "SET", A, "{ }"]);
    assert!(matches!(store.write(A, "new", &version).await, Err(StoreError::Conflict(Some(_)))));
    let written = store.write("strait/apps/shop/long", "short", &Expected::Anything).await.unwrap();
    assert_eq!(
        redis.cli(&["-n", "3", "GET", "strait/apps/shop/long"]),
        format!("short||{written}")
    );
    assert!(matches!(
        store.write("strait/apps/shop/list", "x", &Expected::Anything).await,
        Err(StoreError::Refused(_))
    ));
    assert!(matches!(
        store.write(A, "a||b", &Expected::Anything).await,
        Err(StoreError::Refused(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_lose_nothing() {
    let Some(redis) = Redis::start("two_writers_lose_nothing", &[]) else { return };
    writers::lose_nothing(&redis.store()).await;
}

/// A user who may do nothing but what is needed, over TLS, with a password that changes; once without CONFIG and once with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_few_rights_over_tls_is_enough() {
    let authority = Authority::new();
    let started = Redis::start_with("a_user_with_few_rights", |folder, port| {
        let (certificate, key) = authority.issue(&["localhost"]).write(folder, "redis");
        authority.write(folder);
        let port = port.to_string();
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            "ca.pem",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
        ]
        .map(str::to_owned)
        .to_vec()
    });
    let Some(redis) = started else { return };
    let password_file = redis.folder().join("password");
    fs::write(&password_file, "first\n").unwrap();
    redis.cli(&[
        "ACL",
        "SETUSER",
        "strait",
        "on",
        ">first",
        "resetkeys",
        "~strait/apps/*",
        "-@all",
        "+select",
        "+scan",
        "+getrange",
        "+exists",
        "+eval",
        "+set",
        "+del",
    ]);
    let ca_file = Some(redis.folder().join("ca.pem"));
    let at = StoreServer {
        host: "localhost".to_owned(),
        user: Some("strait".to_owned()),
        password_file: Some(password_file.clone()),
        ca_file: ca_file.clone(),
        ..server(redis.port)
    };
    let here = store(&config::Store::Redis(RedisStore { server: at.clone(), database: 3 }));
    let version = here.write(A, "one", &Expected::Nothing).await.unwrap();
    let mut follower = Follower::ready(&here).await;
    assert_eq!(follower.known[A].version, version);
    let since = Instant::now();
    redis.cli(&["-n", "3", "SET", A, "two"]);
    follower.until_has(A, Some("two")).await;
    let took = since.elapsed();
    measured(&format!("a change in Redis without events is told after {took:?}"));
    assert!(took < SOON, "{took:?}");
    assert_eq!(redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]), "notify-keyspace-events");

    // The password changes while nobody is connected to use the new one, and events are allowed by now.
    redis.cli(&[
        "ACL",
        "SETUSER",
        "strait",
        "resetpass",
        ">second",
        "+config|get",
        "+config|set",
        "+psubscribe",
        "+ping",
        "+dbsize",
        "&__keyspace@3__:strait/apps/*",
    ]);
    redis.cli(&["CLIENT", "KILL", "USER", "strait"]);
    let refused = |failure: &String| failure.to_lowercase().contains("auth");
    follower
        .until("the old one is refused", |follower| follower.failures.iter().any(refused))
        .await;
    assert!(!follower.failures.iter().any(|failure| failure.contains("first")));
    fs::write(&password_file, "second").unwrap();
    follower.until("all is read anew", |follower| follower.all > 1).await;
    redis.cli(&["-n", "3", "SET", A, "three"]);
    follower.until_has(A, Some("three")).await;
    assert!(redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]).contains('K'));

    let wrong_name = StoreServer { host: "127.0.0.1".to_owned(), ..at };
    let wrong_name = store(&config::Store::Redis(RedisStore { server: wrong_name, database: 3 }));
    let error = wrong_name.read(A).await.unwrap_err().to_string();
    assert!(error.starts_with("TLS: invalid peer certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_under_load_all_is_read_anew() {
    let test = "after_a_restart_under_load";
    let Some(mut redis) = Redis::start(test, &["--appendonly", "yes", "--appendfsync", "always"])
    else {
        return;
    };
    let store = redis.store();
    let mut follower = Follower::ready(&store).await;
    let writing = {
        let store = redis.store();
        tokio::spawn(async move {
            // Whether the last one before the crash was written is not known to the writer, only to the store.
            for number in 0.. {
                let key = format!("strait/apps/load/app-{}", number % 50);
                if store.write(&key, &number.to_string(), &Expected::Anything).await.is_err() {
                    return number;
                }
            }
            0
        })
    };
    follower.until("writes are told", |follower| follower.known.len() >= 20).await;
    redis.kill();
    assert!(writing.await.unwrap() >= 20);
    follower.until("it is told to be down", |follower| !follower.failures.is_empty()).await;
    let known = follower.known.len();
    assert!(known >= 20, "nothing is taken back");
    assert!(redis.launch(), "the port is free again");
    redis.cli(&["-n", "3", "SET", "strait/apps/load/last", "x||1"]);
    let since = Instant::now();
    follower.until_has("strait/apps/load/last", Some("x")).await;
    measured(&format!("Redis is heard {:?} after it answers again", since.elapsed()));
    let size: usize = redis.cli(&["-n", "3", "DBSIZE"]).parse().unwrap();
    assert_eq!(follower.known.len(), size);
    for (key, entry) in &follower.known {
        let there = redis.cli(&["-n", "3", "GET", key]);
        assert!(
            there.starts_with(&format!("{}||", entry.value.as_deref().unwrap())),
            "{key}: {there}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_refused() {
    let Some(redis) = Redis::start("a_cluster_is_refused", &["--cluster-enabled", "yes"]) else {
        return;
    };
    let at = RedisStore { server: server(redis.port), database: 0 };
    let cluster = store(&config::Store::Redis(at));
    let mut follower = Follower::new(&cluster);
    follower.until("it is refused", |follower| !follower.failures.is_empty()).await;
    assert!(
        follower.failures[0].starts_with("a Redis Cluster is not supported"),
        "{:?}",
        follower.failures
    );
    assert_eq!(follower.all, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_documents_are_read_once() {
    let Some(redis) = Redis::start("ten_thousand_documents", &[]) else { return };
    redis.fill(
        (0..MANY).map(|number| {
            (format!("strait/apps/n/app-{number}"), format!("{}||1", document(number)))
        }),
    );
    redis.cli(&["SWAPDB", "0", "3"]);
    let store = redis.store();
    let since = Instant::now();
    let mut follower = Follower::ready(&store).await;
    measured(&format!("{MANY} documents in Redis are read in {:?}", since.elapsed()));
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(follower.known.len(), MANY);
    let before = redis.calls("getrange");
    redis.cli(&["-n", "3", "SET", "strait/apps/n/app-7", "new||2"]);
    follower.until_has("strait/apps/n/app-7", Some("new")).await;
    assert_eq!(redis.calls("getrange") - before, 1, "one change reads one value");
    drop(follower);
    // Without CONFIG all is asked for again and again: what that costs the server.
    redis.cli(&["ACL", "SETUSER", "default", "-config"]);
    let mut follower = Follower::ready(&store).await;
    let (used, since) = (used_cpu(&redis), Instant::now());
    follower.until("some polls", |follower| follower.unchanged >= 4).await;
    let share = (used_cpu(&redis) - used) / since.elapsed().as_secs_f64();
    measured(&format!("polling {MANY} documents takes {:.1} % of a core of Redis", share * 100.0));
}

fn used_cpu(redis: &Redis) -> f64 {
    let told = redis.cli(&["INFO", "cpu"]);
    let of = |name: &str| -> f64 {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    of("used_cpu_user:") + of("used_cpu_sys:")
}
