//! A node's key, and its request for a certificate.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKey, PublicKeyData as _,
};
use zeroize::Zeroizing;

/// Bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 4 << 10;
/// Bytes of an uncompressed P-256 point.
const P256_POINT_BYTES: usize = 65;

/// A new key and the request for a certificate of it. The request carries no names: whoever issues decides them.
pub struct Request {
    /// The private key, in PEM.
    pub key_pem: Zeroizing<String>,
    /// The PKCS #10 request, in DER.
    pub csr_der: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// Makes a key (ECDSA P-256) and its request.
///
/// # Errors
/// The system gave no randomness.
pub fn request() -> Result<Request, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok(Request {
        key_pem: Zeroizing::new(key.serialize_pem()),
        csr_der: request.der().to_vec(),
    })
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Too many bytes.
    #[error("a request has at most {REQUEST_BYTES_MAX} bytes")]
    Size,
    /// Not PKCS #10.
    #[error("it is no PKCS #10 request in DER")]
    Malformed,
    /// Whoever asks doesn't hold the key.
    #[error("its signature isn't of the key that it names")]
    Signature,
    /// Another kind of key.
    #[error("its key isn't ECDSA P-256")]
    Key,
}

/// The key of a request that proves its possession. Whatever else it asks for is not looked at.
pub(crate) fn key_of(csr_der: &[u8]) -> Result<PublicKey, InvalidRequest> {
    if csr_der.len() > REQUEST_BYTES_MAX {
        return Err(InvalidRequest::Size);
    }
    let request =
        CertificateSigningRequestParams::from_der(&csr_der.into()).map_err(|error| match error {
            rcgen::Error::InvalidCertificationRequestSignature => InvalidRequest::Signature,
            rcgen::Error::UnsupportedSignatureAlgorithm => InvalidRequest::Key,
            _ => InvalidRequest::Malformed,
        })?;
    let key = request.public_key;
    // The algorithm is that of the signature, which other curves have too: the point's size tells.
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != P256_POINT_BYTES {
        return Err(InvalidRequest::Key);
    }
    Ok(key)
}
