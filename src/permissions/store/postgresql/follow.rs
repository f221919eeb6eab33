//! Follows the rows of a table: by LISTEN, and behind it by asking for one number, because a pooler drops LISTEN without a word.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::permissions::store::teller::Teller;
use crate::permissions::store::{BEAT, PREFIX, StoreError};

use super::payload::{self, Notice};
use super::{Postgresql, Table};

/// Notifications that come so shortly after one another are answered by one question.
const TOGETHER: Duration = Duration::from_millis(2);
/// Most keys of a question.
const MOST_TOGETHER: usize = 500;

/// What is known of the table: of each key the sum of its rows' hashes.
type Sums = HashMap<String, i128>;

/// Why a look is taken.
enum Reason {
    /// These keys may have changed.
    Keys(Vec<String>),
    /// Anything may have.
    Any,
}

impl Postgresql {
    /// Follows until nobody listens.
    pub(super) async fn follow_all(&self, teller: &mut Teller<'_>) {
        while !teller.is_done() {
            let Err(error) = self.session(teller).await;
            teller.failed(error.to_string()).await;
        }
    }

    /// One connection's life. Notifications come before the rows are read, so that no change is between the two.
    async fn session(&self, teller: &mut Teller<'_>) -> Result<Infallible, StoreError> {
        let mut table = self.connect().await?;
        table.session.execute("LISTEN", &format!("LISTEN \"{}\"", self.store.channel)).await?;
        let rows = table.all().await?;
        let mut known: Sums = rows.iter().map(|(key, row)| (key.clone(), row.sum)).collect();
        teller.all(rows.into_iter().map(|(key, row)| (key, row.entry)).collect()).await;
        let mut beat = Instant::now() + BEAT;
        while !teller.is_done() {
            table.session.rest();
            let keys = match self.next(&mut table, beat).await? {
                Reason::Keys(keys) => keys,
                Reason::Any => {
                    let keys = changed(&table, &known).await?;
                    beat = Instant::now() + BEAT;
                    if keys.is_empty() {
                        teller.unchanged().await;
                    }
                    keys
                }
            };
            for some in keys.chunks(MOST_TOGETHER) {
                renew(&table, some, &mut known, teller).await?;
            }
        }
        Err(StoreError::Unavailable("nobody listens".to_owned()))
    }

    /// Waits for a reason to look.
    async fn next(&self, table: &mut Table, beat: Instant) -> Result<Reason, StoreError> {
        let mut keys = Vec::new();
        let mut until = beat;
        while keys.len() < MOST_TOGETHER {
            let payload = match timeout_at(until, table.session.notices.recv()).await {
                Ok(Some(payload)) => payload,
                Ok(None) => {
                    return Err(StoreError::Unavailable("the connection has ended".to_owned()));
                }
                Err(_) => break,
            };
            match payload::read(&payload, self.table_name(), table.statements.key_column()) {
                Notice::Key(key) if key.starts_with(PREFIX) => keys.push(key),
                Notice::Key(_) | Notice::Other => continue,
                Notice::Something => return Ok(Reason::Any),
            }
            until = beat.min(Instant::now() + TOGETHER);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(if keys.is_empty() { Reason::Any } else { Reason::Keys(keys) })
    }
}

/// Which keys have other rows than are known.
async fn changed(table: &Table, known: &Sums) -> Result<Vec<String>, StoreError> {
    if table.sum().await? == known.values().sum::<i128>() {
        return Ok(Vec::new());
    }
    let now = table.sums().await?;
    let gone = known.keys().filter(|key| !now.contains_key(*key));
    let other = now.iter().filter(|(key, sum)| known.get(*key) != Some(sum)).map(|(key, _)| key);
    Ok(gone.chain(other).cloned().collect())
}

/// Reads some keys and tells what they have.
async fn renew(
    table: &Table,
    keys: &[String],
    known: &mut Sums,
    teller: &mut Teller<'_>,
) -> Result<(), StoreError> {
    let mut rows = table.some(keys).await?;
    for key in keys {
        let row = rows.remove(key);
        match &row {
            Some(row) => drop(known.insert(key.clone(), row.sum)),
            None => drop(known.remove(key)),
        }
        teller.one(key.clone(), row.map(|row| row.entry)).await;
    }
    Ok(())
}
