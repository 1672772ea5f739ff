//! The ledger on disk: one file, replaced whole, with a checksum over everything that it says.
//!
//! `ledger` is the durable one and `ledger.before` the one before it. The file is a line that names its format, the
//! SHA-256 of the rest, and the rest: JSON, for people to read. A file that doesn't match its checksum is kept aside
//! and the one before is used; that one names only content that this node had accepted, and the server's next spec
//! brings the node forward. Without either the node starts empty, which serves nothing and is safe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hotswap_core::ids::{Incarnation, NodeId};
use hotswap_core::reconcile::Ledger;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{hint, replace, sync_folder_of};

const FORMAT_NAME: &str = "hotswap-ledger";
const FORMAT_VERSION: u32 = 1;
/// Largest ledger file, in bytes: more than a node at every limit writes.
const LEDGER_BYTES_MAX: u64 = 16 << 20;
/// Most files that were kept aside; then the oldest name is used again.
const KEPT_ASIDE_MAX: u32 = 16;

/// A node's ledger file.
#[derive(Debug, Clone)]
pub(crate) struct LedgerFile {
    path: PathBuf,
}

/// What a ledger file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whose it is.
    pub node: NodeId,
    /// The run of the process that wrote it.
    pub incarnation: Incarnation,
    /// The machine's ledger.
    pub ledger: Ledger,
}

/// What was found at a start.
#[derive(Debug)]
pub(crate) struct Found {
    /// The newest record that is whole, if there is any.
    pub record: Option<Record>,
    /// Files that were not whole, in words for people.
    pub damage: Vec<String>,
}

/// Why a ledger can't be used or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It can't be read or written.
    #[error("the ledger {} can't be {what}: {source}{}", path.display(), hint(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `read`, `written`.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A later version wrote it.
    #[error(
        "the ledger {} is of format {found}, this agent reads format {FORMAT_VERSION}; use the version that wrote it",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// Another node's.
    #[error("the ledger {} is of node {theirs}, and this is node {ours}; use another data folder", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        theirs: NodeId,
        /// Who asks.
        ours: NodeId,
    },
}

/// What one file says.
enum Reading {
    Absent,
    Whole(Box<Record>),
    /// Not whole, for this reason.
    Damaged(String),
}

impl LedgerFile {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            path: folder.join("ledger"),
        }
    }

    /// Finds the newest whole record; files that are not whole are kept aside.
    pub(crate) fn read(&self, node: &NodeId) -> Result<Found, LedgerError> {
        let mut damage = Vec::new();
        for path in [self.path.clone(), self.before()] {
            match read_one(&path)? {
                Reading::Absent => {}
                Reading::Damaged(why) => {
                    let aside = keep_aside(&path).map_err(|source| LedgerError::Io {
                        path: path.clone(),
                        what: "kept aside",
                        source,
                    })?;
                    damage.push(format!(
                        "{} is damaged ({why}) and was kept as {}",
                        path.display(),
                        aside.display()
                    ));
                }
                Reading::Whole(record) if record.node != *node => {
                    return Err(LedgerError::OtherNode {
                        path,
                        theirs: record.node,
                        ours: node.clone(),
                    });
                }
                Reading::Whole(record) => {
                    return Ok(Found {
                        record: Some(*record),
                        damage,
                    });
                }
            }
        }
        Ok(Found { record: None, damage })
    }

    /// Makes a record durable. When it fails, the former one still is.
    pub(crate) fn write(&self, record: &Record) -> Result<(), LedgerError> {
        let failed = |source| LedgerError::Io {
            path: self.path.clone(),
            what: "written",
            source,
        };
        let body = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        let head = format!("{FORMAT_NAME} {FORMAT_VERSION} {}\n", hex(&Sha256::digest(&body)));
        self.keep_before();
        replace(&self.path, &[head.as_bytes(), &body]).map_err(failed)
    }

    fn before(&self) -> PathBuf {
        self.path.with_extension("before")
    }

    /// The current file stays reachable by the other name; no byte is copied. A second line of defence: where the
    /// file system has no hard links, there is none.
    fn keep_before(&self) {
        let link = self.path.with_extension("link");
        let _ = fs::remove_file(&link);
        if fs::hard_link(&self.path, &link).is_ok() {
            let _ = fs::rename(&link, self.before());
        }
    }
}

fn read_one(path: &Path) -> Result<Reading, LedgerError> {
    let failed = |source| LedgerError::Io {
        path: path.to_owned(),
        what: "read",
        source,
    };
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Absent),
        Err(error) => return Err(failed(error)),
        Ok(meta) if meta.len() > LEDGER_BYTES_MAX => {
            return Ok(Reading::Damaged(format!("it has {} bytes", meta.len())));
        }
        Ok(_) => fs::read(path).map_err(failed)?,
    };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(Reading::Damaged("its first line is not whole".to_owned()));
    };
    let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let mut words = head.split(' ');
    let (name, version, sum) = (words.next(), words.next(), words.next());
    let version_read = version.and_then(|version| version.parse::<u32>().ok());
    match (name, version_read, sum) {
        (Some(FORMAT_NAME), Some(FORMAT_VERSION), Some(sum)) if sum == hex(&Sha256::digest(body)) => {}
        (Some(FORMAT_NAME), Some(other), Some(_)) if other != FORMAT_VERSION => {
            return Err(LedgerError::OtherVersion {
                path: path.to_owned(),
                found: other.to_string(),
            });
        }
        (Some(FORMAT_NAME), Some(_), Some(_)) => {
            return Ok(Reading::Damaged(
                "its content does not match its checksum".to_owned(),
            ));
        }
        _ => return Ok(Reading::Damaged("it does not begin as a ledger does".to_owned())),
    }
    Ok(match serde_json::from_slice(body) {
        Ok(record) => Reading::Whole(record),
        Err(error) => Reading::Damaged(format!("its content can't be read: {error}")),
    })
}

fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |number| path.with_extension(format!("damaged-{number}"));
    let free = (1..=KEPT_ASIDE_MAX).map(name).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| name(1));
    fs::rename(path, &aside)?;
    sync_folder_of(path)?;
    Ok(aside)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        "n-1".parse().unwrap()
    }

    fn record(version: u64) -> Record {
        Record {
            node: node(),
            incarnation: Incarnation(7),
            ledger: Ledger {
                version,
                ..Ledger::default()
            },
        }
    }

    fn version_found(file: &LedgerFile) -> (Option<u64>, usize) {
        let found = file.read(&node()).unwrap();
        (
            found.record.map(|record| record.ledger.version),
            found.damage.len(),
        )
    }

    #[test]
    fn the_last_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        assert_eq!(version_found(&file), (None, 0));
        for version in 1..=3 {
            file.write(&record(version)).unwrap();
            assert_eq!(version_found(&file), (Some(version), 0));
        }
    }

    /// Every single cut and every damaged byte is noticed, and the ledger before is used.
    #[test]
    fn a_damaged_file_is_noticed_kept_and_replaced_by_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        file.write(&record(1)).unwrap();
        file.write(&record(2)).unwrap();
        let whole = fs::read(&file.path).unwrap();
        // The format's own number is another error: see below.
        let number = FORMAT_NAME.len() + 1;
        for at in (0..whole.len()).filter(|at| *at != number) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x11;
            let cut = whole[..at].to_vec();
            for bytes in [damaged, cut] {
                fs::write(&file.path, bytes).unwrap();
                assert_eq!(version_found(&file), (Some(1), 1), "at {at}");
                assert!(!file.path.exists());
            }
        }
        assert!(dir.path().join("ledger.damaged-1").exists());
        file.write(&record(3)).unwrap();
        assert_eq!(version_found(&file), (Some(3), 0));
    }

    #[test]
    fn with_both_files_damaged_a_node_starts_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        fs::write(&file.path, "garbage").unwrap();
        fs::write(file.before(), [0xff; 9]).unwrap();
        assert_eq!(version_found(&file), (None, 2));
    }

    #[test]
    fn another_version_and_another_node_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        file.write(&record(1)).unwrap();
        let other = file.read(&"n-2".parse().unwrap()).unwrap_err().to_string();
        assert!(other.contains("is of node n-1, and this is node n-2"), "{other}");
        let newer = fs::read_to_string(&file.path)
            .unwrap()
            .replacen("ledger 1", "ledger 2", 1);
        fs::write(&file.path, newer).unwrap();
        let other = file.read(&node()).unwrap_err().to_string();
        assert!(
            other.contains("is of format 2, this agent reads format 1"),
            "{other}"
        );
        assert!(file.path.exists());
    }
}
