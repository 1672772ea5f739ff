//! Opening the database: whose it is, which schema it has, and the way from there to this version's.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

/// Marks a file as hotswap's: "hswp" in ASCII.
const APPLICATION_ID: i64 = 0x6873_7770;
/// How long a statement waits for another process's lock. Ours is the only one: a backup tool may be the other.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Each brings the schema from its place in the list to the next. Never edited once released.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/0001_log.sql"),
    include_str!("migrations/0002_access.sql"),
    include_str!("migrations/0003_enrolment.sql"),
];

/// The schema that this version writes.
pub(super) const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// Opens for writing and brings the schema up to date.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    check_owner(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens for reading what a writer has opened before.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn check_owner(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let not_ours = || StoreError::NotOurs(path.to_owned());
    let tables: i64 = connection
        .query_row("select count(*) from sqlite_schema", [], |row| row.get(0))
        .map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => not_ours(),
            _ => error.into(),
        })?;
    let owner: i64 = connection.query_row("pragma application_id", [], |row| row.get(0))?;
    if tables == 0 || owner == APPLICATION_ID {
        Ok(())
    } else {
        Err(not_ours())
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    let pending = usize::try_from(found)
        .ok()
        .and_then(|from| MIGRATIONS.get(from..));
    let Some(pending) = pending else {
        let path = path.parent().unwrap_or(path).to_owned();
        return Err(StoreError::FutureSchema {
            path,
            found,
            known: SCHEMA,
        });
    };
    for (step, sql) in (found + 1..).zip(pending) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}
