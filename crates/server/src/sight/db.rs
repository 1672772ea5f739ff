//! The file of what the server shows: apart from the log's, so that writing here never holds up a commit there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};

/// The file, in the data directory.
const FILE: &str = "sight.db";
/// Where a file that can't be used is put out of the way.
const SPOILED_FILE: &str = "sight.db.spoiled";
/// How long a statement waits for another process's lock, a backup tool's say.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Each brings the schema from its place in the list to the next. Never edited once released.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_sight.sql")];

/// The file. Clones share it.
#[derive(Clone)]
pub struct SightDb {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum SightError {
    /// The database failed.
    #[error("the database of measurements failed")]
    Database(#[from] rusqlite::Error),
    /// The work was given up.
    #[error("the server is shutting down")]
    Closed,
}

impl SightDb {
    /// Opens the file of a data directory, and makes it where there is none. One that can't be used is put aside and
    /// made anew: charts are worth less than a server that starts.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn open(data_dir: &Path) -> Result<Self, SightError> {
        let path = data_dir.join(FILE);
        let writer = match open(&path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "measurements can't be read; beginning anew");
                for end in ["", "-wal", "-shm"] {
                    let spoiled = data_dir.join(format!("{SPOILED_FILE}{end}"));
                    // What isn't there can't be moved; what can't be moved fails below, with the reason.
                    let _ = std::fs::rename(data_dir.join(format!("{FILE}{end}")), spoiled);
                }
                open(&path)?
            }
        };
        let reader = Connection::open(&path)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Writes in one transaction, on a thread that may wait.
    ///
    /// # Errors
    /// Those of the database; nothing was changed then.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SightError> {
        let writer = Arc::clone(&self.writer);
        let work = move || {
            let mut connection = writer.lock();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| SightError::Closed)?
    }

    /// Reads, on a thread that may wait.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SightError> {
        let reader = Arc::clone(&self.reader);
        let work = move || Ok(work(&reader.lock())?);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| SightError::Closed)?
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Pages of samples that grew old are given back, a few at a time. Only an empty file can be told so.
    connection.pragma_update(None, "auto_vacuum", "incremental")?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // After a power cut the last samples may be missing and a message may be sent twice; the file stays whole.
    connection.pragma_update(None, "synchronous", "normal")?;
    let found: i64 = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    let pending = usize::try_from(found)
        .ok()
        .and_then(|from| MIGRATIONS.get(from..))
        .ok_or(rusqlite::Error::InvalidQuery)?;
    for (step, sql) in (found + 1..).zip(pending) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spoiled_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(FILE),
            b"not a database, but longer than its head would be",
        )
        .unwrap();
        let db = SightDb::open(dir.path()).unwrap();
        let rows: i64 = db
            .read(|connection| connection.query_row("select count(*) from entity", [], |row| row.get(0)))
            .await
            .unwrap();
        assert_eq!(rows, 0);
        assert!(dir.path().join(SPOILED_FILE).exists());
    }
}
