//! Getting a package: from the disk if it is there and whole, else from the server, from where the last try ended.

use std::time::Duration;

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::PACKAGE_BYTES_MAX;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{CHUNK_MESSAGE_BYTES_MAX, FetchRequest, pb};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::credential::ServerLine;
use crate::disk::{PackageStore, StoreError};

/// Fetches at once: enough to overlap a slow one, few enough to leave the line to the session.
const FETCHES_MAX: usize = 2;
/// Longest silence of the server in a fetch.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(15);

/// Where a node's packages come from.
#[derive(Debug)]
pub(crate) struct Packages {
    store: PackageStore,
    line: ServerLine,
    fetches: Semaphore,
}

/// Why a package can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's word, or the way to it.
    #[error("the server did not send it: {}", status.message())]
    Server {
        /// What came instead.
        status: Box<tonic::Status>,
    },
    /// It sent nothing for long.
    #[error("the server sent nothing for {CHUNK_TIME_MAX:?} after {at} bytes")]
    Silent {
        /// How much was there.
        at: u64,
    },
    /// It sent more or less than it said.
    #[error("the server sent {sent} bytes and said that the package has {total}")]
    Size {
        /// How much came.
        sent: u64,
        /// How much was announced.
        total: u64,
    },
    /// Larger than any package.
    #[error(
        "the server says that the package has {total} bytes, more than the {PACKAGE_BYTES_MAX} that are accepted"
    )]
    TooLarge {
        /// What it says.
        total: u64,
    },
    /// The process is ending.
    #[error("the agent is stopping")]
    Stopping,
}

impl From<tonic::Status> for FetchError {
    fn from(status: tonic::Status) -> Self {
        Self::Server {
            status: Box::new(status),
        }
    }
}

impl Packages {
    pub(crate) fn new(store: PackageStore, line: ServerLine) -> Self {
        Self {
            store,
            line,
            fetches: Semaphore::new(FETCHES_MAX),
        }
    }

    pub(crate) fn store(&self) -> &PackageStore {
        &self.store
    }

    /// A package's verified bytes. One attempt: its caller tries again.
    pub(crate) async fn get(&self, digest: Digest) -> Result<Bytes, FetchError> {
        if let Some(bytes) = self.on_disk(move |store| store.read(&digest)).await? {
            return Ok(bytes);
        }
        let _place = self.fetches.acquire().await.map_err(|_| FetchError::Stopping)?;
        self.fetch(digest).await?;
        self.on_disk(move |store| store.keep(&digest)).await
    }

    /// A package's signature from the server, if it has one.
    pub(crate) async fn fetch_signature(&self, digest: Digest) -> Result<Option<Bytes>, FetchError> {
        let mut client =
            AgentServiceClient::new(self.line.channel()).max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX);
        let request = pb::FetchRequest::from(&FetchRequest {
            digest,
            offset: 0,
            signature: true,
        });
        let silent = |_| FetchError::Silent { at: 0 };
        let response = timeout(CHUNK_TIME_MAX, client.fetch_artifact(request))
            .await
            .map_err(silent)??;
        let mut chunks = response.into_inner();
        let chunk = timeout(CHUNK_TIME_MAX, chunks.message())
            .await
            .map_err(silent)??;
        // Bounded by a message's size; whether it is too large for a signature is for the gate to say.
        Ok(chunk.map(|chunk| chunk.data))
    }

    async fn fetch(&self, digest: Digest) -> Result<(), FetchError> {
        let offset = self.on_disk(move |store| Ok(store.fetched(&digest))).await?;
        let mut client =
            AgentServiceClient::new(self.line.channel()).max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX);
        let request = pb::FetchRequest::from(&FetchRequest {
            digest,
            offset,
            signature: false,
        });
        let silent = |at| move |_| FetchError::Silent { at };
        let response = timeout(CHUNK_TIME_MAX, client.fetch_artifact(request))
            .await
            .map_err(silent(offset))?;
        let mut chunks = match response {
            Ok(response) => response.into_inner(),
            Err(status) => {
                // What is here may be longer than the package: begin anew next time.
                if status.code() == tonic::Code::OutOfRange {
                    self.store.forget_part(&digest);
                }
                return Err(status.into());
            }
        };
        let (mut at, mut total) = (offset, None);
        while let Some(chunk) = timeout(CHUNK_TIME_MAX, chunks.message())
            .await
            .map_err(silent(at))??
        {
            let announced = *total.get_or_insert(chunk.total_bytes);
            at += chunk.data.len() as u64;
            if announced > PACKAGE_BYTES_MAX {
                return Err(FetchError::TooLarge { total: announced });
            }
            if at > announced {
                self.store.forget_part(&digest);
                return Err(FetchError::Size {
                    sent: at,
                    total: announced,
                });
            }
            self.on_disk(move |store| store.append(&digest, &chunk.data))
                .await?;
        }
        match total {
            Some(total) if at == total => Ok(()),
            Some(total) => Err(FetchError::Size { sent: at, total }),
            // Nothing was left to send: the whole of it came before.
            None if offset > 0 => Ok(()),
            None => Err(FetchError::Size { sent: 0, total: 0 }),
        }
    }

    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PackageStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let store = self.store.clone();
        let done = spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|_| FetchError::Stopping)??)
    }
}
