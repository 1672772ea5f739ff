//! The place of signatures in the Security Scan.

use hotswap_package::Package;

/// Says by whom a package is signed, or what is wrong with its signature. No keys can be configured yet, so no
/// signature is required, and the stage's message says so.
///
/// # Errors
/// What is wrong with the signature.
pub(super) fn verify(_package: &Package) -> Result<String, String> {
    Ok("no signature is required here".to_owned())
}
