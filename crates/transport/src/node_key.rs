//! A node's key from one try to the next, and how a server knows it again.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKeyData as _,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::certificate::{self, InvalidCertificate};
use crate::request::{InvalidRequest, REQUEST_BYTES_MAX, Request};

/// SHA-256 of a public key (its SubjectPublicKeyInfo), as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// Of a request's key. Whether whoever asks holds it, the authority judges.
    ///
    /// # Errors
    /// It is no request.
    pub fn of_request(csr_der: &[u8]) -> Result<Self, InvalidRequest> {
        if csr_der.len() > REQUEST_BYTES_MAX {
            return Err(InvalidRequest::Size);
        }
        let request = CertificateSigningRequestParams::from_der(&csr_der.into())
            .map_err(|_| InvalidRequest::Malformed)?;
        Ok(Self::of(&request.public_key.subject_public_key_info()))
    }

    /// Of a certificate's key.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        Ok(Self::of(certificate::parse(der)?.public_key().raw))
    }

    /// As it was written down before.
    pub fn known(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn of(key_info: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, key_info);
        Self(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request for a key that is there already: a try that lost its answer is repeated by the same key.
///
/// # Errors
/// The text is no key in PEM.
pub fn request_with(key_pem: &str) -> Result<Request, rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(Request {
        csr_der: params.serialize_request(&key)?.der().to_vec(),
        key_pem: Zeroizing::new(key_pem.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::request;

    #[test]
    fn another_request_of_the_same_key_is_known_again() {
        let first = request().unwrap();
        let again = request_with(&first.key_pem).unwrap();
        let key = KeyId::of_request(&first.csr_der).unwrap();
        assert_eq!(KeyId::of_request(&again.csr_der).unwrap(), key);
        assert_ne!(KeyId::of_request(&request().unwrap().csr_der).unwrap(), key);
        assert_eq!(key.as_str().len(), 64);
        assert!(KeyId::of_request(b"nothing").is_err());
    }
}
