//! Packages by digest: what is whole under its digest's name, and what is still being fetched beside it.
//!
//! A package gets its name only after its bytes were verified and synced, and it is verified again whenever it is
//! read: nothing unverified or partial is ever handed out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::{PACKAGE_BYTES_MAX, PACKAGE_EXTENSION, digest_of};
use hotswap_trust::{SIGNATURE_BYTES_MAX, SIGNATURE_EXTENSION, UnixSeconds};

use super::{hint, sync_folder_of};

const PART_EXTENSION: &str = "part";
/// When a package was first accepted here, in seconds since 1970 and in digits.
const ACCEPTED_EXTENSION: &str = "accepted";
/// What is being written, until it takes its file's place.
const NEW_EXTENSION: &str = "new";
/// What belongs to a package, besides itself.
const BESIDE: [&str; 4] = [
    PART_EXTENSION,
    SIGNATURE_EXTENSION,
    ACCEPTED_EXTENSION,
    NEW_EXTENSION,
];

/// The packages on a node's disk.
#[derive(Debug, Clone)]
pub(crate) struct PackageStore {
    dir: PathBuf,
}

/// Why a package can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system's word.
    #[error("{} can't be {what}: {source}{}", path.display(), hint(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// What was fetched is something else.
    #[error("the server sent other bytes than asked for: their digest is {is}, not {expected}")]
    OtherBytes {
        /// What was asked for.
        expected: Digest,
        /// What came.
        is: Digest,
    },
}

impl PackageStore {
    /// Uses a data folder's `packages`, made where there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let dir = folder.join("packages");
        fs::create_dir_all(&dir).map_err(io_error(&dir, "made"))?;
        Ok(Self { dir })
    }

    /// A package's verified bytes, if they are here. Damaged ones are removed, so that they are fetched again.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(digest);
        let bytes = match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io_error(&path, "read"))?,
        };
        let is = digest_of(&bytes);
        if is == *digest {
            return Ok(Some(bytes));
        }
        tracing::warn!(package = %digest, file = %path.display(), found = %is, "a kept package is damaged and is fetched again");
        fs::remove_file(&path).map_err(io_error(&path, "removed"))?;
        Ok(None)
    }

    /// How much of a package was fetched before.
    pub(crate) fn fetched(&self, digest: &Digest) -> u64 {
        fs::metadata(self.part(digest)).map_or(0, |meta| meta.len())
    }

    /// Appends to what was fetched. A failed write leaves nothing behind, so that a full disk gets its room back.
    pub(crate) fn append(&self, digest: &Digest, data: &[u8]) -> Result<(), StoreError> {
        let path = self.part(digest);
        let written = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(data));
        written.map_err(|source| {
            self.forget_part(digest);
            io_error(&path, "written")(source)
        })
    }

    /// Verifies what was fetched and keeps it under its name. Other bytes are thrown away.
    pub(crate) fn keep(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let (part, path) = (self.part(digest), self.path(digest));
        let bytes = read_bounded(&part).map_err(io_error(&part, "read"))?;
        let is = digest_of(&bytes);
        if is != *digest {
            self.forget_part(digest);
            return Err(StoreError::OtherBytes {
                expected: *digest,
                is,
            });
        }
        File::open(&part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| sync_folder_of(&path))
            .map_err(io_error(&path, "kept"))?;
        Ok(bytes)
    }

    /// Throws away what was fetched of a package.
    pub(crate) fn forget_part(&self, digest: &Digest) {
        let _ = fs::remove_file(self.part(digest));
    }

    /// A package's signature, if one is kept; what is too large for one is none.
    pub(crate) fn signature(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        use io::Read as _;
        let path = self.beside(digest, SIGNATURE_EXTENSION);
        let mut bytes = Vec::new();
        let read = File::open(&path)
            .and_then(|file| file.take(SIGNATURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, "read")(error)),
            Ok(_) => Ok(Some(bytes.into())),
        }
    }

    /// When a package was first accepted here, if it was.
    pub(crate) fn accepted(&self, digest: &Digest) -> Option<UnixSeconds> {
        let text = fs::read_to_string(self.beside(digest, ACCEPTED_EXTENSION)).ok()?;
        text.trim().parse().ok().map(UnixSeconds)
    }

    /// Notes that a package was accepted at this time, with this signature or without one.
    pub(crate) fn accept(
        &self,
        digest: &Digest,
        signature: Option<&[u8]>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        if let Some(signature) = signature {
            self.replace(digest, SIGNATURE_EXTENSION, signature)?;
        }
        self.replace(digest, ACCEPTED_EXTENSION, at.0.to_string().as_bytes())
    }

    /// A package is prepared once at a time, so its files have one writer.
    fn replace(&self, digest: &Digest, extension: &str, content: &[u8]) -> Result<(), StoreError> {
        let (path, temporary) = (self.beside(digest, extension), self.beside(digest, NEW_EXTENSION));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_folder_of(&path)
        };
        write().map_err(io_error(&path, "written"))
    }

    fn beside(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", digest.hex()))
    }

    /// Removes every package, whole or not, that is not among these, and what lies beside it; says how many.
    pub(crate) fn collect(&self, keep: &BTreeSet<Digest>) -> Result<u32, StoreError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir).map_err(io_error(&self.dir, "read"))? {
            let path = entry.map_err(io_error(&self.dir, "read"))?.path();
            let ours = path
                .extension()
                .and_then(|ext| ext.to_str())
                .is_some_and(|ext| ext == PACKAGE_EXTENSION || BESIDE.contains(&ext));
            let digest = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok());
            if let (true, Some(digest)) = (ours, digest)
                && !keep.contains(&digest)
            {
                let is_beside = path.extension().is_some_and(|ext| ext != PACKAGE_EXTENSION);
                fs::remove_file(&path).map_err(io_error(&path, "removed"))?;
                removed += u32::from(!is_beside);
            }
        }
        Ok(removed)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.{PACKAGE_EXTENSION}", digest.hex()))
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.beside(digest, PART_EXTENSION)
    }
}

fn read_bounded(path: &Path) -> io::Result<Bytes> {
    use io::Read as _;
    let mut bytes = Vec::new();
    File::open(path)?
        .take(PACKAGE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, PackageStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = PackageStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_package_is_whole_or_not_there() {
        let (_dir, store) = store();
        let digest = digest_of(b"one two");
        store.append(&digest, b"one ").unwrap();
        assert_eq!((store.fetched(&digest), store.read(&digest).unwrap()), (4, None));
        store.append(&digest, b"two").unwrap();
        assert_eq!(store.keep(&digest).unwrap(), "one two");
        assert_eq!(store.fetched(&digest), 0);
        assert_eq!(store.read(&digest).unwrap().unwrap(), "one two");
    }

    #[test]
    fn other_bytes_and_damaged_ones_are_thrown_away() {
        let (_dir, store) = store();
        let digest = digest_of(b"right");
        store.append(&digest, b"wrong").unwrap();
        assert!(matches!(store.keep(&digest), Err(StoreError::OtherBytes { .. })));
        assert_eq!(store.fetched(&digest), 0);
        fs::write(store.path(&digest), b"rigth").unwrap();
        assert_eq!(store.read(&digest).unwrap(), None);
        assert!(!store.path(&digest).exists());
    }

    #[test]
    fn what_nothing_names_is_collected() {
        let (_dir, store) = store();
        let (kept, gone, part) = (digest_of(b"kept"), digest_of(b"gone"), digest_of(b"part"));
        for (digest, bytes) in [(kept, b"kept"), (gone, b"gone")] {
            store.append(&digest, bytes).unwrap();
            store.keep(&digest).unwrap();
        }
        store.append(&part, b"pa").unwrap();
        fs::write(store.dir.join("note.txt"), "not ours").unwrap();
        for digest in [&kept, &gone] {
            store.accept(digest, Some(b"signature"), UnixSeconds(7)).unwrap();
        }
        assert_eq!(store.collect(&BTreeSet::from([kept])).unwrap(), 1);
        assert_eq!(store.signature(&kept).unwrap().unwrap(), "signature");
        assert_eq!(store.accepted(&kept), Some(UnixSeconds(7)));
        assert_eq!(
            (store.signature(&gone).unwrap(), store.accepted(&gone)),
            (None, None)
        );
        assert!(store.read(&kept).unwrap().is_some() && store.read(&gone).unwrap().is_none());
        assert!(store.dir.join("note.txt").exists());
    }
}
