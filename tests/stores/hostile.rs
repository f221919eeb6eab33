//! Servers that are none: a store that answers slowly, never or with garbage fails, and blocks nobody.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strait::config::{self, PostgresqlStore, RedisStore, StoreServer};
use strait::permissions::store::{Expected, Store, StoreError};

use crate::common::measured;
use crate::follower::Follower;
use crate::servers::{server, store};

const KEY: &str = "strait/apps/shop/a";

/// Does this with every connection, each on a thread of its own.
fn fake(act: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let act = Arc::new(act);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let act = Arc::clone(&act);
            thread::spawn(move || act(stream));
        }
    });
    port
}

/// Sends the same without end, or until nobody takes it.
fn endless(
    bytes: impl AsRef<[u8]> + Send + Sync,
    pause: Duration,
) -> impl Fn(TcpStream) + Send + Sync {
    move |mut stream| {
        while stream.write_all(bytes.as_ref()).is_ok() {
            thread::sleep(pause);
        }
    }
}

fn both(port: u16) -> [Arc<dyn Store>; 2] {
    let redis = RedisStore { server: server(port), database: 0 };
    let user = Some("strait".to_owned());
    let name = || "apps".to_owned();
    let server = StoreServer { user, ..server(port) };
    let table = PostgresqlStore { server, database: name(), table: name(), channel: name() };
    [store(&config::Store::Redis(redis)), store(&config::Store::Postgresql(table))]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_does_the_store_only_fails() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let servers = [
        ("nothing listens", closed),
        ("closes at once", fake(drop)),
        (
            "never answers",
            fake(|stream| {
                thread::sleep(Duration::from_mins(2));
                drop(stream);
            }),
        ),
        ("answers a byte at a time", fake(endless(b"$", Duration::from_millis(100)))),
        (
            "speaks HTTP",
            fake(endless(b"HTTP/1.1 400 Bad Request\r\n\r\n", Duration::from_millis(50))),
        ),
        ("promises a gigabyte", fake(endless(b"$1073741824\r\n", Duration::from_millis(50)))),
        ("floods a text", fake(endless(vec![b'+'; 65536], Duration::ZERO))),
        ("floods nested lists", fake(endless(b"*1000000\r\n*1000000\r\n", Duration::ZERO))),
        (
            "floods what PostgreSQL may say",
            fake(endless(b"N\x7f\xff\xff\xffaaaaaaaaaaaaaaaaaaaa", Duration::ZERO)),
        ),
        ("floods zeros", fake(endless([0_u8; 4096], Duration::ZERO))),
    ];
    let stores = servers.iter().flat_map(|(what, port)| both(*port).map(|store| (*what, store)));
    let tries: Vec<_> = stores.map(|(what, store)| tokio::spawn(fails(what, store))).collect();
    for done in tries {
        done.await.unwrap();
    }
}

async fn fails(what: &'static str, store: Arc<dyn Store>) {
    let since = Instant::now();
    let written = store.write(KEY, "{}", &Expected::Anything).await;
    assert!(matches!(written, Err(StoreError::Unavailable(_))), "{what}: {written:?}");
    let took = since.elapsed();
    measured(&format!(
        "{} that {what}: {:?} after {took:.1?}",
        store.describe().split(' ').next().unwrap(),
        written
    ));
    assert!(took < Duration::from_secs(30), "{what}: {took:?}");
    let mut follower = Follower::new(&store);
    follower.until(what, |follower| !follower.failures.is_empty()).await;
    assert_eq!(follower.all, 0);
    assert!(!follower.failures[0].is_empty(), "{what}");
}
