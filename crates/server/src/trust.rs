//! The gate for signatures, with this machine's clock and off the threads that serve.

use bytes::Bytes;
use hotswap_core::ids::{Digest, ModuleName};
use hotswap_trust::{Gate, TrustError, UnixSeconds, Verdict};

use crate::clock;

/// Judges a package's signature now.
///
/// # Errors
/// Why it doesn't pass.
pub(crate) async fn judge(
    gate: &Gate,
    digest: Digest,
    module: ModuleName,
    signature: Option<Bytes>,
) -> Result<Verdict, TrustError> {
    let (gate, now) = (gate.clone(), UnixSeconds(clock::wall_now().0 / 1_000));
    let work = move || gate.judge(&digest, &module, signature.as_deref(), now);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
