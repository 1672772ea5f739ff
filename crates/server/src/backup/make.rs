//! Making a backup.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};

use super::{BackupError, CONTENTS_FILE, Contents, FORMAT, FileEntry, of_file};
use crate::registry::INCOMING_DIR;
use crate::store::{DATABASE_FILE, LOCK_FILE};

/// How long the copy waits for the server, which never holds the database for so long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a data directory holds besides that no restored server needs: compiled code is made anew by whoever runs it.
const LEFT_OUT: [&str; 3] = [LOCK_FILE, INCOMING_DIR, "compiled"];

/// Backs a server's data up, whether it runs or not, into `to`, or, where that is a directory, into a file in it that is
/// named after the time and the newest event. Returns the file and what is in it; either the file is whole and synced,
/// or it isn't there.
///
/// # Errors
/// What could not be read or written. What was at `to` before stays then.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(PathBuf, Contents), BackupError> {
    if !data_dir.join(DATABASE_FILE).is_file() {
        return Err(BackupError::NoData {
            path: data_dir.to_owned(),
        });
    }
    let into_folder = to.is_dir();
    let folder = if into_folder { to } else { folder_of(to) };
    let aside = TempDir::new_in(folder).map_err(of_file("create a file in", folder))?;
    let database = aside.path().join(DATABASE_FILE);
    let copied = copy_database(&data_dir.join(DATABASE_FILE), &database)?;
    // Keys are in it: it is its owner's alone, also where the archive is unpacked by hand.
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600))
        .map_err(of_file("create a file in", folder))?;

    let mut archive = tar::Builder::new(BufWriter::new(
        NamedTempFile::new_in(folder).map_err(of_file("create a file in", folder))?,
    ));
    let now = jiff::Timestamp::now();
    let mut contents = Contents {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created: now.to_string(),
        files: Vec::new(),
        ..copied
    };
    add(&mut archive, &database, DATABASE_FILE, &mut contents.files)?;
    for entry in read_dir(data_dir)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The database's own files were copied as one.
        if !name.starts_with(DATABASE_FILE) && !LEFT_OUT.contains(&&*name) {
            add_all(&mut archive, &entry.path(), &name, &mut contents.files)?;
        }
    }
    let text = serde_json::to_vec_pretty(&contents).expect("the contents are plain data");
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    let written = archive
        .append_data(&mut header, CONTENTS_FILE, &*text)
        .and_then(|()| archive.into_inner())
        .and_then(|buffered| buffered.into_inner().map_err(io::IntoInnerError::into_error))
        .and_then(|file| file.as_file().sync_all().map(|()| file));
    let file = written.map_err(of_file("write a backup into", folder))?;
    let path = if into_folder {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        folder.join(format!("hotswap-{stamp}-{}.tar", contents.events))
    } else {
        to.to_owned()
    };
    file.persist(&path)
        .map_err(|error| of_file("write", &path)(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(of_file("sync", folder))?;
    Ok((path, contents))
}

/// Checks the database of a data directory, whether a server runs on it or not, and tells what is in it. `None`: there is
/// none.
///
/// # Errors
/// It can't be read, is damaged, or its log has gaps.
pub fn verify(data_dir: &Path) -> Result<Option<Contents>, BackupError> {
    let path = data_dir.join(DATABASE_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let database = open(&path)?;
    check(&database)?;
    Ok(Some(count(&database)?))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// A copy of the database as it stands at one moment, checked; and what is in it.
fn copy_database(from: &Path, to: &Path) -> Result<Contents, BackupError> {
    let source = open(from)?;
    source.execute("vacuum into ?1", [to.to_string_lossy()])?;
    drop(source);
    let copy = Connection::open(to)?;
    check(&copy)?;
    Ok(count(&copy)?)
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    Ok(database)
}

/// Its pages are sound, and the log has no gap.
fn check(database: &Connection) -> Result<(), BackupError> {
    let sound: String = database.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(BackupError::Damaged(sound));
    }
    let whole: bool = database.query_row(
        // The oldest may be forgotten by now, but nothing between.
        "select count(*) = 0 or (max(seq) - min(seq) + 1 = count(*) and max(seq) = (select next_seq - 1 from log_head))
         from event",
        [],
        |row| row.get(0),
    )?;
    if !whole {
        return Err(BackupError::Damaged(
            "the log has gaps, or ends before its head".to_owned(),
        ));
    }
    Ok(())
}

/// What is in it.
fn count(database: &Connection) -> Result<Contents, rusqlite::Error> {
    let number = |sql: &str| -> Result<u64, rusqlite::Error> {
        let number: i64 = database.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(number).unwrap_or_default())
    };
    Ok(Contents {
        format: FORMAT,
        version: String::new(),
        created: String::new(),
        epoch: number("select epoch from log_head")?,
        events: number("select next_seq - 1 from log_head")?,
        deployments: number("select count(*) from deployment")?,
        files: Vec::new(),
    })
}

fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, BackupError> {
    let mut entries = fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<fs::DirEntry>>>)
        .map_err(of_file("read", path))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

type Archive = tar::Builder<BufWriter<NamedTempFile>>;

fn add_all(
    archive: &mut Archive,
    path: &Path,
    name: &str,
    files: &mut Vec<FileEntry>,
) -> Result<(), BackupError> {
    let kind = fs::symlink_metadata(path)
        .map_err(of_file("read", path))?
        .file_type();
    if kind.is_dir() {
        for entry in read_dir(path)? {
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            add_all(archive, &entry.path(), &name, files)?;
        }
    } else if kind.is_file() {
        match add(archive, path, name, files) {
            // A package that nothing named any more and that was removed meanwhile.
            Err(BackupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            added => added?,
        }
    }
    Ok(())
}

fn add(
    archive: &mut Archive,
    path: &Path,
    name: &str,
    files: &mut Vec<FileEntry>,
) -> Result<(), BackupError> {
    let failed = || of_file("read", path);
    let file = File::open(path).map_err(failed())?;
    let metadata = file.metadata().map_err(failed())?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_size(metadata.len());
    let mut hashing = Hashing {
        inner: file.take(metadata.len()),
        hash: Sha256::new(),
    };
    archive
        .append_data(&mut header, name, &mut hashing)
        .map_err(of_file("back up", path))?;
    files.push(FileEntry {
        path: name.to_owned(),
        size: metadata.len(),
        sha256: hotswap_core::ids::Digest(hashing.hash.finalize().into()).hex(),
    });
    Ok(())
}

/// Hashes what is read through it.
pub(super) struct Hashing<R> {
    pub(super) inner: R,
    pub(super) hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}
