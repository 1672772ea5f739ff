//! Who signed a package, and whether that signer is trusted with it.
//!
//! A signature is a detached CMS `SignedData` (RFC 5652) over the whole package file, as `openssl cms -sign -binary
//! -outform DER` makes it. [`verify`] judges one from its bytes, the package's digest and a [`TrustPolicy`]; it knows
//! no clock and keeps nothing. It accepts one encoding of a signature only: DER, no trailing byte, no field that
//! nothing covers. Every refusal is a [`TrustError`]: which check, of which certificate, and what to do.
//!
//! Chain, constraints, revocation and every cryptographic check are `rustls-webpki`'s and `ring`'s. What is done here
//! is to read the envelope strictly, to find the one path, and to say in people's words what is wrong with it.

mod authority;
mod certificate;
mod envelope;
mod error;
mod gate;
mod layout;
mod path;
mod policy;
mod sign;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;

pub use authority::{Authority, AuthorityError, Credentials};
pub use envelope::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, SIGNATURE_BYTES_MAX};
pub use error::{Check, TrustError};
pub use gate::{Gate, Verdict};
pub use policy::{PolicyError, SignerRule, TrustPolicy, ValidityAt};
pub use sign::{SignError, SigningIdentity};
pub use verify::{Signer, UnixSeconds, verify};

/// Customary extension of a signature beside its package: `NAME.hsm.p7s`.
pub const SIGNATURE_EXTENSION: &str = "p7s";
