//! Compiled components on disk.
//!
//! Loading compiled code is trusting it, so a file counts only if this host wrote it: the folder is its owner's
//! alone, the name binds the release and the compiler with its settings, and a checksum over all of it finds what
//! was torn or rotted. Anything else is deleted and compiled anew.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hotswap_core::ids::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// What a cached file begins with; the number changes with the layout.
const MAGIC: [u8; 8] = *b"hotswap1";
const CHECKSUM_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES;
/// Largest file that is read back: well above what the largest component compiles to.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A folder of compiled components for one engine.
pub(super) struct Cache {
    dir: PathBuf,
    engine_hash: u64,
}

impl Cache {
    /// Opens the folder, and makes it if there is none.
    pub(super) fn open(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        owner_only(dir)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            dir: dir.to_owned(),
            engine_hash: hasher.finish(),
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir
            .join(format!("{}-{:016x}.cwasm", digest.hex(), self.engine_hash))
    }

    fn checksum(&self, digest: Digest, code: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut sha = Sha256::new();
        sha.update(MAGIC);
        sha.update(digest.0);
        sha.update(self.engine_hash.to_le_bytes());
        sha.update(code);
        sha.finalize().into()
    }

    /// The compiled component, if there is a sound one.
    pub(super) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let path = self.path(digest);
        let file = match read_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled component cannot be read; compiling anew");
                return None;
            }
        };
        let component = self
            .check(digest, &file)
            .and_then(|code| deserialize(engine, code));
        if component.is_none() {
            tracing::warn!(path = %path.display(), "a compiled component is damaged; deleted, compiling anew");
            let _ = fs::remove_file(&path);
        }
        component
    }

    fn check<'a>(&self, digest: Digest, file: &'a [u8]) -> Option<&'a [u8]> {
        let (header, code) = file.split_at_checked(HEADER_BYTES)?;
        let (magic, checksum) = header.split_at(MAGIC.len());
        (magic == MAGIC && checksum == self.checksum(digest, code)).then_some(code)
    }

    /// Keeps a compiled component. A failure costs a compilation at the next start, no more.
    pub(super) fn store(&self, digest: Digest, component: &Component) {
        let path = self.path(digest);
        let stored = component
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|code| self.write(&path, digest, &code));
        if let Err(error) = stored {
            tracing::warn!(path = %path.display(), %error, "a compiled component could not be kept");
        }
    }

    fn write(&self, path: &Path, digest: Digest, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = path.with_extension(format!("{}-{number}.part", std::process::id()));
        let written = create_new(&part).and_then(|mut file| {
            file.write_all(&MAGIC)?;
            file.write_all(&self.checksum(digest, code))?;
            file.write_all(code)
        });
        // Not synced: a file that a power cut tears fails its checksum and is made again.
        let moved = written.and_then(|()| fs::rename(&part, path));
        if moved.is_err() {
            let _ = fs::remove_file(&part);
        }
        moved
    }
}

#[expect(unsafe_code, reason = "wasmtime loads compiled code by an unsafe call")]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: the bytes came from `Component::serialize` of this host: they lay in a folder that only its owner can
    // write to, under a name that binds the release and the engine's compatibility hash, and their checksum over
    // both and the code was just found right. What was checked is what is loaded: both are the same memory.
    unsafe { Component::deserialize(engine, code) }.ok()
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("not a file of this host's"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn create_new(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Takes the folder from everybody but its owner, who must be us.
#[cfg(unix)]
fn owner_only(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a folder"));
    }
    if let Ok(process) = fs::metadata("/proc/self")
        && process.uid() != metadata.uid()
    {
        return Err(io::Error::other("it belongs to another user"));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn owner_only(_dir: &Path) -> io::Result<()> {
    Ok(())
}
