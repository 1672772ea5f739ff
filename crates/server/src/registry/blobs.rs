//! Where packages lie, and reading them.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::digest_of;
use hotswap_trust::SIGNATURE_EXTENSION;
use tokio::fs::{self, File};
use tokio::io::AsyncSeekExt as _;
use tokio::sync::Semaphore;

/// Where packages lie in the data directory.
const ARTIFACTS_DIR: &str = "artifacts";
/// Where they lie until they are whole.
pub(crate) const INCOMING_DIR: &str = "incoming";
/// Packages received at once; more are refused. Each may be held in memory once, while it is admitted.
pub(super) const RECEIVED_AT_ONCE_MAX: usize = 4;

/// Packages by digest.
#[derive(Debug)]
pub struct Registry {
    pub(super) artifacts: PathBuf,
    pub(super) incoming: PathBuf,
    pub(super) bytes_max: u64,
    pub(super) receiving: Semaphore,
}

/// Why a package could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It isn't here.
    #[error("the package {0} is not in the registry; push it again")]
    Missing(Digest),
    /// What is here is not what its name says.
    #[error("the stored package {expected} is damaged: its bytes are {found}; push it again")]
    Damaged {
        /// The name.
        expected: Digest,
        /// The bytes.
        found: Digest,
    },
    /// The offset is beyond the end.
    #[error("the package has {size} bytes; there is nothing from byte {offset} on")]
    BeyondEnd {
        /// Its size.
        size: u64,
        /// The offset asked for.
        offset: u64,
    },
    /// The file system failed.
    #[error("failed to access the package store")]
    Io(#[from] io::Error),
}

impl Registry {
    /// Opens the registry of a data directory, and clears away what a former process had not finished to receive.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(data_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let artifacts = data_dir.join(ARTIFACTS_DIR);
        let incoming = data_dir.join(INCOMING_DIR);
        std::fs::create_dir_all(&artifacts)?;
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir(&incoming)?,
        }
        Ok(Self {
            artifacts,
            incoming,
            bytes_max,
            receiving: Semaphore::new(RECEIVED_AT_ONCE_MAX),
        })
    }

    /// Largest package, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Where a package lies. Two digits of fan-out keep folders small.
    pub(super) fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.artifacts.join(&hex[..2]).join(hex)
    }

    /// Whether a package is here.
    pub async fn has(&self, digest: &Digest) -> bool {
        fs::try_exists(self.path_of(digest)).await.unwrap_or(false)
    }

    /// A package's file from an offset on, with its whole size.
    ///
    /// # Errors
    /// It isn't here, or is shorter than the offset.
    pub async fn open_at(&self, digest: &Digest, offset: u64) -> Result<(File, u64), RegistryError> {
        let mut file = match File::open(self.path_of(digest)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RegistryError::Missing(*digest));
            }
            opened => opened?,
        };
        let size = file.metadata().await?.len();
        if offset > size {
            return Err(RegistryError::BeyondEnd { size, offset });
        }
        file.seek(SeekFrom::Start(offset)).await?;
        Ok((file, size))
    }

    /// Where a package's signature lies: beside it.
    pub(super) fn signature_path_of(&self, digest: &Digest) -> PathBuf {
        self.path_of(digest).with_extension(SIGNATURE_EXTENSION)
    }

    /// A package's signature, if it has one. Its bytes are whoever's they are: judge them.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn signature(&self, digest: &Digest) -> Result<Option<Bytes>, RegistryError> {
        match fs::read(self.signature_path_of(digest)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read?.into())),
        }
    }

    /// Removes a package and its signature; what isn't there is fine.
    pub(super) async fn remove(&self, digest: &Digest) -> io::Result<()> {
        // The signature first: a package without one is never taken for signed.
        for path in [self.signature_path_of(digest), self.path_of(digest)] {
            match fs::remove_file(path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A package's bytes, verified to be what the digest says.
    ///
    /// # Errors
    /// It isn't here, or is damaged.
    pub async fn read(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let (path, expected) = (self.path_of(digest), *digest);
        let work = move || {
            let bytes = match std::fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(RegistryError::Missing(expected));
                }
                read => Bytes::from(read?),
            };
            let found = digest_of(&bytes);
            if found == expected {
                Ok(bytes)
            } else {
                Err(RegistryError::Damaged { expected, found })
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}
