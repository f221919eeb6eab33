//! Two writers at once, at any store.

use std::sync::Arc;

use strait::permissions::store::{Expected, Store, StoreError};

/// Changes that each of the two makes.
const CHANGES: usize = 15;

/// Two writers that begin with nothing there: one makes the document, and none of the changes of both is lost. A change appends a
/// letter, if what was read is still there.
pub(crate) async fn lose_nothing(store: &Arc<dyn Store>) {
    let key = "strait/apps/two/writers";
    let create = |text: &'static str| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.write(key, text, &Expected::Nothing).await })
    };
    let made = [create("a"), create("b")];
    let mut won = 0;
    for made in made {
        match made.await.unwrap() {
            Ok(_) => won += 1,
            Err(StoreError::Conflict(Some(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1, "exactly one makes it");
    let append = |letter: char| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut conflicts = 0;
            for _ in 0..CHANGES {
                conflicts += append_one(&store, key, letter).await;
            }
            conflicts
        })
    };
    let appending = [append('x'), append('y')];
    let mut conflicts = 0;
    for appending in appending {
        conflicts += appending.await.unwrap();
    }
    let text = store.read(key).await.unwrap().unwrap().value.unwrap();
    let count = |letter| text.chars().filter(|&one| one == letter).count();
    assert_eq!((count('x'), count('y')), (CHANGES, CHANGES), "{text} after {conflicts} conflicts");
    let version = store.read(key).await.unwrap().unwrap().version;
    let old = Expected::Version("1".into());
    assert_eq!(store.remove(key, &old).await, Err(StoreError::Conflict(Some(version.clone()))));
    assert_eq!(store.remove(key, &Expected::Version(version.clone())).await, Ok(true));
    assert_eq!(store.remove(key, &Expected::Anything).await, Ok(false));
    let gone = store.write(key, "z", &Expected::Version(version)).await;
    assert_eq!(gone, Err(StoreError::Conflict(None)));
}

/// Tries until nobody was faster. The conflicts on the way.
async fn append_one(store: &Arc<dyn Store>, key: &str, letter: char) -> usize {
    let mut conflicts = 0;
    loop {
        let now = store.read(key).await.unwrap().unwrap();
        let text = format!("{}{letter}", now.value.unwrap());
        match store.write(key, &text, &Expected::Version(now.version)).await {
            Ok(_) => return conflicts,
            Err(StoreError::Conflict(_)) => conflicts += 1,
            Err(error) => panic!("{error}"),
        }
    }
}
