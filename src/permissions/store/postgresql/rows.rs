//! Rows as they come, and which of a key's rows counts.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::permissions::store::{Entry, StoreError, Unreadable, versions};

/// The row of a key that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) entry: Entry,
    /// The version as it stands in the table.
    pub(super) version: String,
    /// The sum of the hashes of all rows of the key.
    pub(super) sum: i128,
}

/// Text as the server has it: a database without an encoding may hold any bytes.
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}

/// Of each key the row with the highest version, and a whole number is higher than any other text.
pub(super) fn newest(rows: &[Row]) -> Result<HashMap<String, Newest>, StoreError> {
    let mut found: HashMap<String, Newest> = HashMap::new();
    for row in rows {
        let (key, row) = read(row).map_err(|error| nonsense(&error))?;
        let sum = row.sum + found.get(&key).map_or(0, |other| other.sum);
        let kept = found.remove(&key).filter(|other| rank(&other.version) > rank(&row.version));
        found.insert(key, Newest { sum, ..kept.unwrap_or(row) });
    }
    Ok(found)
}

/// Of each key the sum of its rows' hashes.
pub(super) fn sums(rows: &[Row]) -> Result<HashMap<String, i128>, StoreError> {
    let mut sums = HashMap::new();
    for row in rows {
        let read = text(row, 0).and_then(|key| Ok((key, row.try_get::<_, i64>(1)?)));
        let (key, hash) = read.map_err(|error| nonsense(&error))?;
        *sums.entry(key).or_default() += i128::from(hash);
    }
    Ok(sums)
}

/// A column of text; what is none is replaced.
pub(super) fn text(row: &Row, column: usize) -> Result<String, tokio_postgres::Error> {
    let bytes: Bytes = row.try_get(column)?;
    Ok(String::from_utf8_lossy(&bytes.0).into_owned())
}

fn read(row: &Row) -> Result<(String, Newest), tokio_postgres::Error> {
    let key = text(row, 0)?;
    let (bytes, is_long): (Option<Bytes>, bool) = (row.try_get(1)?, row.try_get(2)?);
    let version = text(row, 3)?;
    let sum = i128::from(row.try_get::<_, i64>(4)?);
    let value = match bytes {
        Some(bytes) => versions::text(&bytes.0),
        None if is_long => Err(Unreadable::TooLong),
        None => Err(Unreadable::OtherType),
    };
    // One that cannot be told to others as it is: what the row hashes to is as good.
    let told = versions::written(version.as_bytes());
    let told = told.unwrap_or_else(|| versions::of_content(&sum.to_be_bytes()));
    Ok((key, Newest { entry: Entry { value, version: told }, version, sum }))
}

fn rank(version: &str) -> (Option<i128>, &str) {
    (version.parse().ok(), version)
}

fn nonsense(error: &tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(format!("nonsense for an answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_whole_number_is_the_newest() {
        let mut versions = ["9", "10", "v11", "", "-1", "1.5"];
        versions.sort_by(|one, other| rank(one).cmp(&rank(other)));
        assert_eq!(versions, ["", "1.5", "v11", "-1", "9", "10"]);
    }
}
