//! Restoring a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::make::Hashing;
use super::{BackupError, CONTENTS_BYTES_MAX, CONTENTS_FILE, Contents, FORMAT, of_file};

/// Restores a backup into a directory that is empty or isn't there. Everything is verified first; either the directory
/// holds all of it, synced, or it is as it was.
///
/// # Errors
/// The file is no whole backup or of another format, the directory is not empty, or the file system's.
pub fn restore(from: &Path, data_dir: &Path) -> Result<Contents, BackupError> {
    let not_empty = || BackupError::NotEmpty {
        path: data_dir.to_owned(),
    };
    match fs::read_dir(data_dir).map(Iterator::count) {
        Ok(1..) => return Err(not_empty()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(of_file("read", data_dir)(error));
        }
        _ => {}
    }
    let beside = data_dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(beside).map_err(of_file("create", beside))?;
    let aside = tempfile::Builder::new()
        .prefix(".hotswap-restore-")
        .tempdir_in(beside)
        .map_err(of_file("create a directory in", beside))?;
    let contents = extract(from, &aside)?;
    sync_all(aside.path())?;
    // An empty directory is replaced by the whole one; a full one refuses.
    fs::rename(aside.path(), data_dir).map_err(of_file("create", data_dir))?;
    let _ = aside.keep();
    File::open(beside)
        .and_then(|folder| folder.sync_all())
        .map_err(of_file("sync", beside))?;
    Ok(contents)
}

/// Writes every file, and holds them against what the backup says it holds.
fn extract(from: &Path, into: &TempDir) -> Result<Contents, BackupError> {
    let not_whole = |why: String| BackupError::NotWhole {
        path: from.to_owned(),
        why,
    };
    let broken = |error: io::Error| not_whole(error.to_string());
    let file = File::open(from).map_err(of_file("read", from))?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut contents: Option<Contents> = None;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        if name == CONTENTS_FILE {
            let mut text = Vec::new();
            (&mut entry)
                .take(CONTENTS_BYTES_MAX)
                .read_to_end(&mut text)
                .map_err(broken)?;
            contents = Some(
                serde_json::from_slice(&text)
                    .map_err(|error| not_whole(format!("{CONTENTS_FILE}: {error}")))?,
            );
            continue;
        }
        let path = place(into.path(), &name).ok_or_else(|| not_whole(format!("it names {name:?}")))?;
        if !entry.header().entry_type().is_file() {
            return Err(not_whole(format!("{name:?} is no file")));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(of_file("create", folder))?;
        }
        let mode = entry.header().mode().unwrap_or(0o600);
        let mut hashing = Hashing {
            inner: &mut entry,
            hash: Sha256::new(),
        };
        let mut out = File::create_new(&path).map_err(of_file("create", &path))?;
        let size = io::copy(&mut hashing, &mut out).map_err(broken)?;
        set_mode(&out, mode).map_err(of_file("write", &path))?;
        let sha256 = hotswap_core::ids::Digest(hashing.hash.finalize().into()).hex();
        found.insert(name, (size, sha256));
    }
    let contents = contents.ok_or_else(|| {
        not_whole(format!(
            "it has no {CONTENTS_FILE}; it was cut off, or is something else"
        ))
    })?;
    if contents.format != FORMAT {
        return Err(BackupError::OtherFormat {
            path: from.to_owned(),
            version: contents.version,
            format: contents.format,
        });
    }
    for file in &contents.files {
        match found.remove(&file.path) {
            Some((size, sha256)) if size == file.size && sha256 == file.sha256 => {}
            Some(_) => return Err(not_whole(format!("{} is damaged", file.path))),
            None => return Err(not_whole(format!("{} is missing", file.path))),
        }
    }
    match found.into_keys().next() {
        Some(more) => Err(not_whole(format!("{more} is none of its files"))),
        None => Ok(contents),
    }
}

/// Where a file goes; `None` for names that would lead elsewhere.
fn place(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path.components().next().is_some()).then(|| folder.join(path))
}

fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))
}

fn sync_all(path: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(path).map_err(of_file("read", path))? {
        let entry = entry.map_err(of_file("read", path))?.path();
        if entry.is_dir() {
            sync_all(&entry)?;
        } else {
            File::open(&entry)
                .and_then(|file| file.sync_all())
                .map_err(of_file("sync", &entry))?;
        }
    }
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(of_file("sync", path))
}
