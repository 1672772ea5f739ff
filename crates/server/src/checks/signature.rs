//! Signatures in the Security Scan: judged anew, from the stored bytes.

use hotswap_package::Package;

use super::Bench;
use crate::registry::RegistryError;
use crate::trust;

/// Says by whom a package is signed, and what is going to be wrong with that.
///
/// # Errors
/// Why the signature is refused.
pub(super) async fn verify(bench: &Bench, package: &Package) -> Result<String, String> {
    let signature = bench.registry.signature(&package.digest).await.map_err(|error| {
        if let RegistryError::Io(cause) = &error {
            tracing::error!(
                error = cause as &dyn std::error::Error,
                "failed to read a signature"
            );
        }
        "the server failed to read the package's signature; see its log, then deploy again".to_owned()
    })?;
    let verdict = trust::judge(
        &bench.gate,
        package.digest,
        package.manifest.name.clone(),
        signature,
    )
    .await;
    let verdict = verdict.map_err(|error| error.to_string())?;
    let warnings = verdict
        .signer()
        .map(|signer| signer.warnings.as_slice())
        .unwrap_or_default();
    Ok(std::iter::once(verdict.to_string())
        .chain(warnings.iter().map(|warning| format!("warning: {warning}")))
        .collect::<Vec<_>>()
        .join("; "))
}
