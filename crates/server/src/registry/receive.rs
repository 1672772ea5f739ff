//! Taking a package in.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hotswap_core::ids::Digest;
use hotswap_package::{Package, PackageError, PackageLimits};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::Registry;

/// How long a sender may send nothing: it holds one of a few places.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes that were received in whole and are not kept yet. Dropping it forgets them.
#[derive(Debug)]
pub struct Received<'a> {
    temporary: NamedTempFile,
    /// Digest of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    _permit: SemaphorePermit<'a>,
}

/// Why bytes were not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// More bytes than a package may have.
    #[error("the package has more than {max} bytes, the most that is accepted")]
    TooLarge {
        /// Most bytes accepted.
        max: u64,
    },
    /// As many are being received as may be.
    #[error("{max} packages are being received already; try again in a moment")]
    Busy {
        /// How many may be received at once.
        max: usize,
    },
    /// The sender stopped or broke off.
    #[error("the body broke off after {received} bytes; send it again")]
    BrokenOff {
        /// Bytes that arrived.
        received: u64,
    },
    /// The sender is still there, and sends nothing.
    #[error("nothing came for {} s after {received} bytes; send it again", SILENCE_MAX.as_secs())]
    Silent {
        /// Bytes that arrived.
        received: u64,
    },
    /// Nothing was sent.
    #[error("the body is empty; send the package file as `hotswap module pack` wrote it")]
    Empty,
    /// No room.
    #[error("the server's disk is full; nothing can be pushed until there is room")]
    Full,
    /// The file system failed.
    #[error("failed to write the package")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl Registry {
    /// Receives a stream of bytes aside, never more than a package may have.
    ///
    /// # Errors
    /// Too many bytes, too many senders, a stream that breaks off, or the file system's.
    pub async fn receive<E>(
        &self,
        mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Received<'_>, ReceiveError> {
        let max = super::blobs::RECEIVED_AT_ONCE_MAX;
        let permit = self
            .receiving
            .try_acquire()
            .map_err(|_| ReceiveError::Busy { max })?;
        let temporary = NamedTempFile::new_in(&self.incoming)?;
        let mut file = File::from_std(temporary.reopen()?);
        let (mut size, mut hash) = (0, Sha256::new());
        loop {
            let chunk = timeout(SILENCE_MAX, bytes.next()).await;
            let Some(chunk) = chunk.map_err(|_| ReceiveError::Silent { received: size })? else {
                break;
            };
            let chunk = chunk.map_err(|_| ReceiveError::BrokenOff { received: size })?;
            size += chunk.len() as u64;
            if size > self.bytes_max {
                return Err(ReceiveError::TooLarge { max: self.bytes_max });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        if size == 0 {
            return Err(ReceiveError::Empty);
        }
        // A write is only begun when `write_all` returns, and its failure is told by the flush, not by the sync.
        file.flush().await?;
        file.sync_all().await?;
        Ok(Received {
            temporary,
            digest: Digest(hash.finalize().into()),
            size,
            _permit: permit,
        })
    }

    /// Keeps received bytes under their digest, durably. Bytes that are here already stay as they are.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn keep(&self, received: Received<'_>) -> io::Result<()> {
        let path = self.path_of(&received.digest);
        let temporary = received.temporary;
        let work = move || {
            let folder = path.parent().expect("a package's path has a folder");
            std::fs::create_dir_all(folder)?;
            temporary.persist(&path).map_err(|error| error.error)?;
            std::fs::File::open(folder)?.sync_all()?;
            let above = folder.parent().expect("the folder lies in the registry's");
            std::fs::File::open(above)?.sync_all()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}

impl Registry {
    /// Keeps a package's signature beside it, durably, in place of a former one.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn keep_signature(&self, digest: &Digest, signature: Bytes) -> io::Result<()> {
        let (path, incoming) = (self.signature_path_of(digest), self.incoming.clone());
        let work = move || {
            use std::io::Write as _;
            let folder = path.parent().expect("a package's path has a folder");
            let mut temporary = NamedTempFile::new_in(incoming)?;
            temporary.write_all(&signature)?;
            temporary.as_file().sync_all()?;
            std::fs::create_dir_all(folder)?;
            temporary.persist(&path).map_err(|error| error.error)?;
            std::fs::File::open(folder)?.sync_all()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}

impl Received<'_> {
    /// Reads the bytes as a package.
    ///
    /// # Errors
    /// What they are instead.
    pub async fn package(&self) -> Result<Package, PackageError> {
        let path = self.temporary.path().to_owned();
        let limits = PackageLimits {
            package_bytes_max: self.size,
        };
        let work = move || Package::read(std::fs::read(path)?, &limits);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}
