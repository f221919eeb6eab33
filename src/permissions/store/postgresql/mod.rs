//! Documents in `PostgreSQL`, as rows of a table in the format of Dapr's configuration component.

mod connection;
mod follow;
mod payload;
mod rows;
mod statements;

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use crate::config::PostgresqlStore;
use crate::discovery::dns;
use crate::model::allowed::Version;

use super::dial::Dialer;
use super::teller::Teller;
use super::{Doing, Entry, Expected, MOST_KEYS, Store, StoreError, Told, versions};
use connection::{Bound, Parameter, Session};
use rows::Newest;
use statements::{Column, Statements};

/// Two `strait store init` at once would both find nothing and make it.
const INITIALIZING: &str = "SELECT pg_advisory_xact_lock(hashtext('strait store init'))";

/// A table of a `PostgreSQL` server.
pub(super) struct Postgresql {
    dialer: Dialer,
    store: PostgresqlStore,
}

/// The table, over a connection.
struct Table {
    session: Session,
    statements: Statements,
}

/// What [`initialize`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialized {
    /// Table and trigger are made.
    Made,
    /// The table was there; its trigger is as it should be now.
    WasThere,
}

/// Makes the table and its trigger, in one transaction. Changes nothing of a table that is there but the trigger of this name.
pub async fn initialize(
    store: &PostgresqlStore,
    names: &dns::Settings,
) -> Result<Initialized, StoreError> {
    let there = Postgresql::new(store, names);
    let session = Session::connect(&there.dialer, store).await?;
    session.execute("BEGIN", &format!("BEGIN; {INITIALIZING}")).await?;
    let columns = columns(&session, &store.table).await?;
    let value = columns.get(1).map_or("value", |column| &column.name);
    let statements = statements::initialize(&store.table, &store.channel, value);
    session.execute("making table and trigger", &format!("{statements}; COMMIT")).await?;
    Ok(if columns.is_empty() { Initialized::Made } else { Initialized::WasThere })
}

impl Postgresql {
    pub(super) fn new(store: &PostgresqlStore, names: &dns::Settings) -> Self {
        let dialer = Dialer { server: store.server.clone(), names: names.clone() };
        Self { dialer, store: store.clone() }
    }

    async fn connect(&self) -> Result<Table, StoreError> {
        let session = Session::connect(&self.dialer, &self.store).await?;
        let columns = columns(&session, &self.store.table).await?;
        let (table, is_there) = (&self.store.table, !columns.is_empty());
        let statements = Statements::new(table, columns).ok_or_else(|| {
            StoreError::Refused(if is_there {
                format!("the table {table} has no columns key, value and version, in this order")
            } else {
                format!("there is no table {table}; `strait store init` makes it")
            })
        })?;
        Ok(Table { session, statements })
    }

    /// The table's name as its trigger tells it, without the schema.
    fn table_name(&self) -> &str {
        self.store.table.rsplit('.').next().unwrap_or_default()
    }

    /// Replaces or removes what a key has, in one transaction. What was there, and the new version.
    async fn replace(
        &self,
        key: &str,
        value: Option<&str>,
        expected: &Expected,
    ) -> Result<(Option<Version>, String), StoreError> {
        let table = self.connect().await?;
        // Whatever fails from here on closes the connection, and the server takes back what was done.
        table.session.execute("LOCK TABLE", &table.statements.begin()).await?;
        let now = table.some(&[key.to_owned()]).await?.remove(key);
        let before = now.as_ref().map(|row| row.entry.version.clone());
        versions::check(expected, before.as_ref())?;
        let now = now.map(|row| row.version);
        let next = versions::next(now.as_deref()).to_string();
        table.put(key, value, &next, now.as_deref()).await?;
        table.session.execute("COMMIT", "COMMIT").await?;
        Ok((before, next))
    }
}

impl Table {
    async fn all(&self) -> Result<HashMap<String, Newest>, StoreError> {
        let rows = self.session.query("SELECT", &self.statements.all(), &[], Bound::ALL).await?;
        check_number(rows.len())?;
        rows::newest(&rows)
    }

    async fn some(&self, keys: &[String]) -> Result<HashMap<String, Newest>, StoreError> {
        let parameters = [(&keys as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT_ARRAY)];
        let rows = self
            .session
            .query("SELECT", &self.statements.some(), &parameters, Bound::values(keys.len()))
            .await?;
        rows::newest(&rows)
    }

    async fn sums(&self) -> Result<HashMap<String, i128>, StoreError> {
        let rows = self.session.query("SELECT", &self.statements.hashes(), &[], Bound::ALL).await?;
        check_number(rows.len())?;
        rows::sums(&rows)
    }

    async fn sum(&self) -> Result<i128, StoreError> {
        let rows =
            self.session.query("SELECT", &self.statements.sum(), &[], Bound::NO_VALUES).await?;
        let sum = rows.first().and_then(|row| rows::text(row, 0).ok());
        let sum = sum.and_then(|sum| sum.parse().ok());
        sum.ok_or_else(|| StoreError::Unavailable("nonsense for a sum".to_owned()))
    }

    async fn put(
        &self,
        key: &str,
        value: Option<&str>,
        next: &str,
        now: Option<&str>,
    ) -> Result<(), StoreError> {
        let (key, next) = ((&key as _, Type::TEXT), (&next as _, Type::TEXT));
        let (what, statement, parameters): (_, _, Vec<Parameter<'_>>) = match (&value, &now) {
            (None, _) => ("DELETE", self.statements.delete(), vec![key]),
            (Some(value), Some(now)) => {
                let parameters = vec![key, (value as _, Type::TEXT), next, (now as _, Type::TEXT)];
                ("UPDATE", self.statements.update(), parameters)
            }
            (Some(value), None) => {
                ("INSERT", self.statements.insert(), vec![key, (value as _, Type::TEXT), next])
            }
        };
        self.session.query(what, &statement, &parameters, Bound::NO_VALUES).await.map(drop)
    }
}

async fn columns(session: &Session, table: &str) -> Result<Vec<Column>, StoreError> {
    let parameters = [(&table as _, Type::TEXT)];
    let rows = session.query("SELECT", statements::COLUMNS, &parameters, Bound::NO_VALUES).await?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column { name: rows::text(row, 0)?, kind: rows::text(row, 1)? })
    };
    let columns: Result<_, tokio_postgres::Error> = rows.iter().map(column).collect();
    columns.map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn check_number(rows: usize) -> Result<(), StoreError> {
    if rows > MOST_KEYS {
        let message = format!("more than {MOST_KEYS} rows begin with {}", super::PREFIX);
        return Err(StoreError::Unavailable(message));
    }
    Ok(())
}

impl Store for Postgresql {
    fn describe(&self) -> String {
        let PostgresqlStore { server, database, table, .. } = &self.store;
        format!("postgresql at {server}, database {database}, table {table}")
    }

    fn follow<'a>(&'a self, told: &'a mpsc::Sender<Told>) -> Doing<'a, ()> {
        Box::pin(async move { self.follow_all(&mut Teller::new(told)).await })
    }

    fn read<'a>(&'a self, key: &'a str) -> Doing<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            let mut rows = self.connect().await?.some(&[key.to_owned()]).await?;
            Ok(rows.remove(key).map(|row| row.entry))
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        value: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<Version, StoreError>> {
        Box::pin(async move {
            let (_, version) = self.replace(key, Some(value), expected).await?;
            Ok(Version::from(&*version))
        })
    }

    fn remove<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Expected,
    ) -> Doing<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (before, _) = self.replace(key, None, expected).await?;
            Ok(before.is_some())
        })
    }
}
