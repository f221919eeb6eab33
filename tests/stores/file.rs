//! A folder of documents.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strait::config;
use strait::permissions::store::{Store, Unreadable};

use crate::common::measured;
use crate::follower::Follower;
use crate::servers::store;
use crate::{MANY, SOON, document, writers};

fn folder(directory: &Path) -> Arc<dyn Store> {
    store(&config::Store::File { directory: directory.to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_files_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("shop.front.end.json"), "one").unwrap();
    fs::write(file("README"), "x").unwrap();
    fs::write(file("alone.json"), "x").unwrap();
    fs::create_dir(file("shop.folder.json")).unwrap();
    let mut follower = Follower::ready(&folder(directory.path())).await;
    let keys: Vec<_> = follower.known.keys().cloned().collect();
    assert_eq!(
        keys,
        ["strait/apps/alone", "strait/apps/shop/folder", "strait/apps/shop/front.end"]
    );
    let unreadable = &follower.known["strait/apps/shop/folder"].value;
    assert_eq!(*unreadable, Err(Unreadable::System(std::io::ErrorKind::IsADirectory)));
    let since = Instant::now();
    fs::write(file("shop.front.end.json"), "two").unwrap();
    follower.until_has("strait/apps/shop/front.end", Some("two")).await;
    let took = since.elapsed();
    measured(&format!("a change of a file is told after {took:?}"));
    assert!(took < SOON, "{took:?}");
    fs::write(file("shop.bytes.json"), b"{\xff}").unwrap();
    follower
        .until("what is no text is told", |follower| {
            follower
                .known
                .get("strait/apps/shop/bytes")
                .is_some_and(|entry| entry.value == Err(Unreadable::NotUtf8(1)))
        })
        .await;
    fs::remove_file(file("shop.front.end.json")).unwrap();
    follower.until_has("strait/apps/shop/front.end", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_is_followed_and_a_folder_that_is_gone_takes_nothing_back() {
    let volume = tempfile::tempdir().unwrap();
    let path = |name: &str| volume.path().join(name);
    let fill = |folder: &str, text: &str| {
        fs::create_dir(path(folder)).unwrap();
        fs::write(path(folder).join("shop.a.json"), text).unwrap();
    };
    fill("..1", "one");
    symlink("..1", path("..data")).unwrap();
    symlink("..data/shop.a.json", path("shop.a.json")).unwrap();
    let mut follower = Follower::ready(&folder(volume.path())).await;
    assert_eq!(follower.text("strait/apps/shop/a"), Some("one"));
    for (round, text) in [("..2", "two"), ("..3", "three")] {
        fill(round, text);
        symlink(round, path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert!(follower.until_has("strait/apps/shop/a", Some(text)).await < SOON);
    }
    let moved = volume.path().with_extension("moved");
    fs::rename(volume.path(), &moved).unwrap();
    follower.until("it fails", |follower| !follower.failures.is_empty()).await;
    assert_eq!(follower.text("strait/apps/shop/a"), Some("three"));
    fs::rename(&moved, volume.path()).unwrap();
    follower.until("all is read anew", |follower| follower.all > 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    writers::lose_nothing(&folder(directory.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_documents_are_read_once() {
    let directory = tempfile::tempdir().unwrap();
    // One text under many names is made in a tenth of the time.
    let file = |name: &str| directory.path().join(name);
    fs::write(file("text"), document(7)).unwrap();
    for number in 0..MANY {
        fs::hard_link(file("text"), file(&format!("n.app-{number}.json"))).unwrap();
    }
    let store = folder(directory.path());
    let since = Instant::now();
    let mut follower = Follower::ready(&store).await;
    measured(&format!("{MANY} documents in files are read in {:?}", since.elapsed()));
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(follower.known.len(), MANY);
    let since = Instant::now();
    fs::write(file("new"), "new").unwrap();
    fs::rename(file("new"), file("n.app-7.json")).unwrap();
    follower.until_has("strait/apps/n/app-7", Some("new")).await;
    let took = since.elapsed();
    measured(&format!("a change of one of {MANY} files is told after {took:?}"));
}
