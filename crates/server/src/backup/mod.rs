//! Backups: all that a server keeps, as one file, made while it runs.
//!
//! A backup is a tar file: the database as it stood at one moment, the packages, keys and whatever else lies in the
//! data directory, and last [`Contents`] with every file's digest, so that one that was cut off is no backup. The
//! database is copied in a read transaction of its own; packages never change and are there before their releases are
//! in the log, so what is copied after it holds all that it names.

mod make;
mod restore;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use make::{backup, verify};
pub use restore::restore;

/// The name of the file that says what is in a backup. It comes last.
const CONTENTS_FILE: &str = "backup.json";
/// What this version writes, and reads.
const FORMAT: u32 = 1;
/// Largest file about the contents, in bytes: some 100 for each package.
const CONTENTS_BYTES_MAX: u64 = 256 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// How it is laid out.
    pub format: u32,
    /// The version that wrote it.
    pub version: String,
    /// When, RFC 3339.
    pub created: String,
    /// The leadership under which the newest event was appended.
    pub epoch: u64,
    /// The newest event.
    pub events: u64,
    /// Deployments, of all times.
    pub deployments: u64,
    /// Every file.
    pub files: Vec<FileEntry>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where in the data directory.
    pub path: String,
    /// How many bytes.
    pub size: u64,
    /// SHA-256 of them, 64 hexadecimal digits.
    pub sha256: String,
}

impl Contents {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no server's data.
    #[error("{} holds no server's data (no {}); give the data directory", path.display(), crate::store::DATABASE_FILE)]
    NoData {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The database could not be copied.
    #[error("failed to copy the database")]
    Database(#[from] rusqlite::Error),
    /// The copy is damaged, and so is its source.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A file could not be read or written.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a backup, or not whole.
    #[error("{} is no whole backup: {why}", path.display())]
    NotWhole {
        /// Which file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A newer version wrote it.
    #[error("{} was written by hotswap {version} in format {format}; this version reads {FORMAT}", path.display())]
    OtherFormat {
        /// Which file.
        path: PathBuf,
        /// By which version.
        version: String,
        /// How it is laid out.
        format: u32,
    },
    /// There is something already.
    #[error("{} is not empty; give a directory that isn't there, or move what is there away", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
}

/// For `map_err`: what was tried with which file.
fn of_file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.into();
    move |source| BackupError::File { what, path, source }
}
