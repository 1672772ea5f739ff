//! Why the store failed.

use std::io;
use std::path::PathBuf;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory can't be written.
    #[error("the data directory {} is not writable; give another one or mend its permissions", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another server has it open.
    #[error("the data directory {} is in use by another server; stop that one or give another directory", .0.display())]
    InUse(PathBuf),
    /// The file is another program's.
    #[error("{} is not a store of hotswap; give another data directory", .0.display())]
    NotOurs(PathBuf),
    /// A newer version wrote it.
    #[error(
        "the data directory {} was written by a newer hotswap (schema {found}; this one knows up to {known}); \
         start that version, or give another data directory",
        path.display()
    )]
    FutureSchema {
        /// The data directory.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// An event that this version can't read.
    #[error(
        "event {seq} of the log ({kind}) can't be read by this version; it was written by a newer hotswap or is damaged: \
         start the version that wrote it, or restore the data directory from a backup"
    )]
    UnknownEvent {
        /// Its number.
        seq: u64,
        /// Its type.
        kind: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A number is missing.
    #[error("the log has a gap: after event {expected_after} comes {found}; restore it from a backup")]
    Gap {
        /// The last number before the gap.
        expected_after: u64,
        /// The number found.
        found: u64,
    },
    /// Another writer leads now.
    #[error("another server has taken the lead (epoch {mine} is over)")]
    Fenced {
        /// The epoch that was written under.
        mine: u64,
    },
    /// The disk is full. Nothing was changed.
    #[error("the disk is full; free some space in the data directory")]
    Full,
    /// A record that can't be read or written as JSON.
    #[error("failed to encode or decode {what}")]
    Encoding {
        /// Which record.
        what: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] rusqlite::Error),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Database(error),
        }
    }
}

impl StoreError {
    /// Whether the store goes on once there is room again.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}
