//! A certificate and its key, which can be exchanged while connections go on.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate::{self, Fingerprint, InvalidCertificate, Serial};
use crate::config::provider;

/// A certificate and its key, for a server's or a client's side. What replaces them counts from the next handshake on;
/// connections that are open go on.
#[derive(Debug)]
pub struct Identity(ArcSwap<Held>);

#[derive(Debug)]
struct Held {
    key: Arc<CertifiedKey>,
    serial: Serial,
    not_after: SystemTime,
}

/// Why a certificate and a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM.
    #[error("the certificate's file is malformed")]
    Chain(#[source] pem::Error),
    /// Nothing in it.
    #[error("the certificate's file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The key's file.
    #[error("the key's file holds no private key in PEM, unencrypted (PKCS #8, PKCS #1 or SEC 1)")]
    Key(#[source] pem::Error),
    /// Both are well, and of different pairs.
    #[error("the key isn't the certificate's")]
    Mismatch,
    /// A kind of key that isn't supported.
    #[error("the key can't be used")]
    Unusable(#[source] rustls::Error),
    /// The certificate.
    #[error("the certificate can't be used: {0}")]
    Certificate(#[from] InvalidCertificate),
}

impl Identity {
    /// Reads a certificate with those that lead to its authority, its own first, and its private key.
    ///
    /// # Errors
    /// What can't be read, or a key that isn't the certificate's.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IdentityError> {
        Ok(Self(ArcSwap::from_pointee(Held::read(chain, key)?)))
    }

    /// Takes another certificate and key, from the next handshake on.
    ///
    /// # Errors
    /// As [`Identity::from_pem`]; then the old ones stay.
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), IdentityError> {
        self.0.store(Arc::new(Held::read(chain, key)?));
        Ok(())
    }

    /// Until when the certificate holds.
    pub fn not_after(&self) -> SystemTime {
        self.0.load().not_after
    }

    /// The certificate's number.
    pub fn serial(&self) -> Serial {
        self.0.load().serial.clone()
    }

    /// The certificate's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0.load().key.cert[0])
    }
}

impl Held {
    fn read(chain: &str, key: &str) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> =
            certificate::certificates(chain).map_err(IdentityError::Chain)?;
        let end = chain.first().ok_or(IdentityError::NoCertificate)?;
        let parsed = certificate::parse(end)?;
        let (serial, not_after) = (certificate::serial(&parsed)?, certificate::end_of(&parsed)?);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(IdentityError::Key)?;
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityError::Mismatch,
            error => IdentityError::Unusable(error),
        })?;
        Ok(Self {
            key: Arc::new(key),
            serial,
            not_after,
        })
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
