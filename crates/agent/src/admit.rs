//! Whether this node may run a package: judged from the bytes, by the roots that are configured here, before anything
//! is compiled or loaded.
//!
//! What depends on time is judged as of when this node first accepted the package: a certificate or a revocation list
//! that expires later doesn't take down what a node serves, across its restarts too. A revocation does, at the next
//! load; and what is new is judged as of now.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hotswap_core::ids::{Digest, ModuleName};
use hotswap_trust::{Gate, TrustError, UnixSeconds, Verdict};

use crate::fetch::{FetchError, Packages};

/// Why a package may not run here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Its signature.
    #[error(transparent)]
    Signature(#[from] TrustError),
    /// The signature can't be had.
    #[error("its signature can't be had: {0}")]
    Fetch(#[from] FetchError),
}

/// Judges a package whose bytes have this digest.
pub(crate) async fn admit(
    packages: &Packages,
    gate: &Gate,
    digest: Digest,
    module: &ModuleName,
) -> Result<Verdict, Refused> {
    let kept = packages
        .on_disk(move |store| Ok((store.signature(&digest)?, store.accepted(&digest))))
        .await?;
    let now = now();
    let (kept, accepted) = kept;
    let at = accepted.unwrap_or(now).min(now);
    let before = if kept.is_some() || (accepted.is_some() && gate.allows_unsigned()) {
        Some(judge(gate, digest, module, kept, at).await)
    } else {
        None
    };
    if let Some(Ok(verdict)) = before {
        return Ok(verdict);
    }
    // The server may have a better one, of a renewed certificate.
    let fetched = match (packages.fetch_signature(digest).await, before) {
        (Ok(Some(fetched)), _) => Some(fetched),
        // What is wrong with the one that is here says more than that there is no other.
        (_, Some(Err(refused))) => return Err(refused.into()),
        (Ok(None), _) => None,
        (Err(error), _) => return Err(error.into()),
    };
    let verdict = judge(gate, digest, module, fetched.clone(), now).await?;
    packages
        .on_disk(move |store| store.accept(&digest, fetched.as_deref(), now))
        .await?;
    Ok(verdict)
}

async fn judge(
    gate: &Gate,
    digest: Digest,
    module: &ModuleName,
    signature: Option<Bytes>,
    at: UnixSeconds,
) -> Result<Verdict, TrustError> {
    let (gate, module) = (gate.clone(), module.clone());
    let work = move || gate.judge(&digest, &module, signature.as_deref(), at);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn now() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since_epoch.as_secs())
}
