//! The data folder: of this version, writable, and used by one agent.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{hint, replace};

/// What a data folder of this version says in its `FORMAT` file.
const FORMAT: &str = "hotswap agent 1\n";

/// A data folder that this agent has for itself, until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked while it is open.
    _lock: File,
}

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It can't be made, read or written.
    #[error("the data folder {} can't be used: {source}{}", path.display(), hint(source))]
    Unusable {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error(
        "the data folder {} is in use by another agent{}; every agent needs one of its own",
        path.display(), if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process id, if it could be read.
        holder: String,
    },
    /// Something else made it.
    #[error(
        "the data folder {} is of another version or program (its FORMAT says {found:?}, this agent's is {:?}); \
         use the version that made it, or another folder",
        path.display(), FORMAT.trim_end()
    )]
    OtherVersion {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

impl Folder {
    /// Makes the folder where there is none, and takes it.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |path: PathBuf| move |source| FolderError::Unusable { path, source };
        fs::create_dir_all(path).map_err(unusable(path.to_owned()))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(unusable(lock_path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default();
                return Err(FolderError::InUse {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FolderError::Unusable {
                    path: lock_path,
                    source,
                });
            }
        }
        let format_path = path.join("FORMAT");
        match fs::read(&format_path) {
            Ok(found) if found == FORMAT.as_bytes() => {}
            Ok(found) => {
                let found = String::from_utf8_lossy(&found)
                    .trim_end()
                    .chars()
                    .take(80)
                    .collect();
                return Err(FolderError::OtherVersion {
                    path: path.to_owned(),
                    found,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&format_path, &[FORMAT.as_bytes()]).map_err(unusable(format_path))?;
            }
            Err(source) => {
                return Err(FolderError::Unusable {
                    path: format_path,
                    source,
                });
            }
        }
        // For people only; a full disk is no reason not to start.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_again_after_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/node");
        let folder = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err().to_string();
        assert!(refused.contains("in use by another agent (process "), "{refused}");
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn another_versions_folder_and_a_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), "hotswap agent 2\n").unwrap();
        let refused = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(r#"its FORMAT says "hotswap agent 2", this agent's is "hotswap agent 1""#),
            "{refused}"
        );
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = Folder::open(&file).unwrap_err();
        assert!(matches!(refused, FolderError::Unusable { .. }), "{refused}");
    }
}
