//! What a node keeps on disk: the ledger, packages, and the lock that keeps others out.

mod folder;
mod ledger;
mod packages;

pub(crate) use folder::Folder;
pub use folder::FolderError;
pub use ledger::LedgerError;
pub(crate) use ledger::{Found, LedgerFile, Record};
pub(crate) use packages::PackageStore;
pub use packages::StoreError;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces a file whole: after a crash at any point it is the old one or the new one, and once this returned it is
/// the new one, also after a power cut.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes a rename durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().expect("files here are in a data folder");
    File::open(folder)?.sync_all()
}

/// What an I/O error means to an operator.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the disk is full: what runs goes on, free some space"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; the agent's user must be able to write there"
        }
        _ => "",
    }
}
