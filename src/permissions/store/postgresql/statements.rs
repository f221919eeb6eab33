//! What is said to `PostgreSQL`. Nothing is prepared by name: a pooler may give the next statement to another connection.

use crate::permissions::store::{MOST_BYTES, MOST_KEYS, PREFIX};

/// Columns of a table in their order, name and type: KEY, VALUE, VERSION, METADATA, whatever they are called.
pub(super) const COLUMNS: &str = "\
SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

/// Longest wait of a writer for another; [`PATIENCE`](crate::permissions::store::dial::PATIENCE) is longer. A writer that
/// disappears is forgotten in the end, and its lock with it.
const BEGIN: &str =
    "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
}

/// The statements for one table.
#[derive(Debug, Clone)]
pub(super) struct Statements {
    /// As it stands in statements.
    table: String,
    key: Column,
    value: Column,
    version: Column,
    metadata: Option<Column>,
}

impl Statements {
    /// `None` where the table is not as it should be.
    pub(super) fn new(table: &str, columns: Vec<Column>) -> Option<Self> {
        let mut columns = columns.into_iter();
        let (key, value, version) = (columns.next()?, columns.next()?, columns.next()?);
        Some(Self { table: quoted_table(table), key, value, version, metadata: columns.next() })
    }

    /// The name of the key's column, as it stands in notifications.
    pub(super) fn key_column(&self) -> &str {
        &self.key.name
    }

    /// One number for all rows: another one means that something has changed. The server reads the table for it, but one row
    /// crosses the network.
    pub(super) fn sum(&self) -> String {
        format!("SELECT coalesce(sum({}), 0)::text {}", self.hash(), self.below())
    }

    /// Each row's part of that number.
    pub(super) fn hashes(&self) -> String {
        let limit = MOST_KEYS + 1;
        format!(
            "SELECT {}::text, {} {} LIMIT {limit}",
            self.key.quoted(),
            self.hash(),
            self.below()
        )
    }

    /// All rows: key, value unless it is too long, whether it is, version, and the row's part of the number.
    pub(super) fn all(&self) -> String {
        format!("{} {} LIMIT {}", self.select(), self.below(), MOST_KEYS + 1)
    }

    /// The same of some keys ($1).
    pub(super) fn some(&self) -> String {
        format!("{} FROM {} WHERE {}::text = ANY($1)", self.select(), self.table, self.key.quoted())
    }

    /// Begins a write. The lock keeps every other writer out until it ends, foreign ones too and where there is no row to lock
    /// yet; readers go on.
    pub(super) fn begin(&self) -> String {
        format!("{BEGIN}; LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.table)
    }

    /// Replaces the row of key $1 and version $4.
    pub(super) fn update(&self) -> String {
        let Self { table, key, value, version, .. } = self;
        let (k, v, n) = (key.quoted(), value.quoted(), version.quoted());
        let set = format!("{v} = $2::{}, {n} = $3::{}", value.kind, version.kind);
        format!("UPDATE {table} SET {set} WHERE {k}::text = $1 AND coalesce({n}::text, '') = $4")
    }

    /// Adds a row. Its metadata is an empty object: Dapr's component fails on null.
    pub(super) fn insert(&self) -> String {
        let Self { table, key, value, version, metadata } = self;
        let (more, empty) = match metadata {
            Some(metadata) => (format!(", {}", metadata.quoted()), ", '{}'"),
            None => (String::new(), ""),
        };
        let columns = format!("{}, {}, {}{more}", key.quoted(), value.quoted(), version.quoted());
        let values = format!("$1::{}, $2::{}, $3::{}{empty}", key.kind, value.kind, version.kind);
        format!("INSERT INTO {table} ({columns}) VALUES ({values})")
    }

    /// Removes all rows of key $1.
    pub(super) fn delete(&self) -> String {
        format!("DELETE FROM {} WHERE {}::text = $1", self.table, self.key.quoted())
    }

    fn select(&self) -> String {
        let (key, value, version) = (self.key.quoted(), self.value.quoted(), self.version.quoted());
        let is_long = format!("coalesce(octet_length({value}::text) > {MOST_BYTES}, false)");
        format!(
            "SELECT {key}::text, CASE WHEN NOT {is_long} THEN {value}::text END, {is_long}, \
             coalesce({version}::text, ''), {}",
            self.hash()
        )
    }

    fn hash(&self) -> String {
        let columns = [&self.key, &self.value, &self.version];
        let [key, value, version] = columns.map(|column| format!("{}::text", column.quoted()));
        format!("hashtextextended(concat_ws(chr(31), {key}, {version}, {value}) COLLATE \"C\", 0)")
    }

    fn below(&self) -> String {
        format!("FROM {} WHERE {}::text LIKE '{PREFIX}%'", self.table, self.key.quoted())
    }
}

impl Column {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }
}

/// Makes table and trigger, or renews the trigger of a table that is there. The payload of a notification must have less than
/// 8,000 bytes, else the user's write fails: the value is left out where it would not fit, and where the rest does not fit
/// either, nothing is told and polling finds it.
pub(super) fn initialize(table: &str, channel: &str, value_column: &str) -> String {
    let function = quoted_table(&format!("{table}_notify"));
    let table = quoted_table(table);
    let value = value_column.replace('\'', "''");
    format!(
        r"
CREATE TABLE IF NOT EXISTS {table} (
    key VARCHAR PRIMARY KEY,
    value VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    metadata JSON NOT NULL DEFAULT '{{}}'
);
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $strait$
DECLARE
    data jsonb;
    notice text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        data = to_jsonb(OLD);
    ELSE
        data = to_jsonb(NEW);
    END IF;
    notice = json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data)::text;
    IF octet_length(notice) >= 8000 THEN
        notice = json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data - '{value}')::text;
    END IF;
    IF octet_length(notice) < 8000 THEN
        PERFORM pg_notify('{channel}', notice);
    END IF;
    RETURN NULL;
END
$strait$;
DROP TRIGGER IF EXISTS strait_notify ON {table};
CREATE TRIGGER strait_notify AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE PROCEDURE {function}();
"
    )
}

/// The configuration admits only names that need no quotes; with them a reserved word is a name too.
fn quoted_table(table: &str) -> String {
    let parts: Vec<_> = table.split('.').map(|part| format!("\"{part}\"")).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_taken_by_their_order() {
        let column = |name: &str| Column { name: name.to_owned(), kind: "text".to_owned() };
        assert!(Statements::new("t", vec![column("a"), column("b")]).is_none());
        let all = ["k", "Va\"lue", "version"].map(column).to_vec();
        let statements = Statements::new("config.user", all).unwrap();
        assert_eq!(
            statements.insert(),
            r#"INSERT INTO "config"."user" ("k", "Va""lue", "version") VALUES ($1::text, $2::text, $3::text)"#
        );
        assert_eq!(statements.delete(), r#"DELETE FROM "config"."user" WHERE "k"::text = $1"#);
    }
}
