//! Files that are whole or not there.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Who may read a secret: its owner.
const SECRET_MODE: u32 = 0o600;
/// Who may read a certificate: everybody, it is shown to whoever connects.
const PUBLIC_MODE: u32 = 0o644;

/// Replaces a secret's file whole, readable by its owner only: after a crash at any point it is the old one or the new
/// one, and once this returned it is the new one, also after a power cut.
///
/// # Errors
/// What the system says.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, SECRET_MODE)
}

/// As [`write_secret`], for what everybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, PUBLIC_MODE)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}
