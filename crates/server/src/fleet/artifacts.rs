//! Packages, streamed to nodes.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use hotswap_core::desired::desired;
use hotswap_core::ids::{Digest, NodeId};
use hotswap_wire::{CHUNK_BYTES, FetchRequest, pb};
use tokio_util::io::ReaderStream;
use tonic::Status;

use crate::driver::World;
use crate::registry::{Registry, RegistryError};

/// A package's bytes in pieces.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<pb::ArtifactChunk, Status>> + Send>>;

/// The bytes of a release's package from an offset on. What the log doesn't know as a release isn't given out.
pub(super) async fn fetch(
    world: &World,
    registry: &Registry,
    request: FetchRequest,
) -> Result<Chunks, Status> {
    let FetchRequest {
        digest,
        offset,
        signature,
    } = request;
    if !is_release(world, &digest) {
        return Err(Status::not_found(format!("no release has the digest {digest}")));
    }
    if signature {
        return fetch_signature(registry, digest).await;
    }
    let (file, total) = registry
        .open_at(&digest, offset)
        .await
        .map_err(|error| status(&error))?;
    let mut total = Some(total);
    let chunks = ReaderStream::with_capacity(file, CHUNK_BYTES).map(move |read| {
        let data = read.map_err(|error| status(&error.into()))?;
        Ok(pb::ArtifactChunk {
            total_bytes: total.take().unwrap_or(0),
            data,
        })
    });
    Ok(Box::pin(chunks))
}

/// A package's signature, whole: it is smaller than a chunk. Without one the stream ends at once.
async fn fetch_signature(registry: &Registry, digest: Digest) -> Result<Chunks, Status> {
    let found = registry
        .signature(&digest)
        .await
        .map_err(|error| status(&error))?;
    let chunk = found.map(|signature| {
        Ok(pb::ArtifactChunk {
            total_bytes: signature.len() as u64,
            data: signature,
        })
    });
    Ok(Box::pin(futures::stream::iter(chunk)))
}

/// Whether a node's spec names a package: to run it, to have it at hand, or to preview it.
pub(super) fn is_named(world: &World, node: &NodeId, digest: &Digest) -> bool {
    let spec = desired(&world.state(), node);
    spec.is_some_and(|spec| {
        spec.modules.values().any(|module| {
            let run = module.releases.iter().map(|release| &release.digest);
            run.chain(&module.prefetch)
                .chain(&module.preview)
                .any(|named| named == digest)
        })
    })
}

fn is_release(world: &World, digest: &Digest) -> bool {
    let state = world.state();
    state
        .modules
        .values()
        .flat_map(|module| module.releases.values())
        .any(|release| release.digest == *digest)
}

fn status(error: &RegistryError) -> Status {
    match error {
        RegistryError::Missing(_) => Status::not_found(error.to_string()),
        RegistryError::BeyondEnd { .. } => Status::out_of_range(error.to_string()),
        RegistryError::Damaged { .. } => Status::data_loss(error.to_string()),
        RegistryError::Io(cause) => {
            tracing::error!(
                error = cause as &dyn std::error::Error,
                "failed to read a package"
            );
            Status::internal("failed to read the package; see the server's log")
        }
    }
}
