//! A small certificate authority for development: a root, and signers under it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::verify::UnixSeconds;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a root and a signer are valid.
const ROOT_VALIDITY: Duration = Duration::from_secs(86_400 * 365 * 5);
const SIGNER_VALIDITY: Duration = Duration::from_secs(86_400 * 365);

/// A root with its key, in memory.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Credentials,
    now: SystemTime,
}

/// A certificate and its key, both in PEM. The key is secret.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to make a certificate: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

impl Authority {
    /// Makes a root of this name, valid for five years.
    ///
    /// # Errors
    /// The system gave no randomness, or the name can't be written into a certificate.
    pub fn new(name: &str, now: UnixSeconds) -> Result<Self, AuthorityError> {
        let now = UNIX_EPOCH + Duration::from_secs(now.0);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, now, ROOT_VALIDITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let root = Credentials {
            certificate,
            key: key.serialize_pem(),
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            root,
            now,
        })
    }

    /// The root's certificate and key.
    pub fn root(&self) -> &Credentials {
        &self.root
    }

    /// Issues a certificate for code signing, valid for a year, with a new ECDSA P-256 key.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn issue_signer(&self, name: &str) -> Result<Credentials, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, self.now, SIGNER_VALIDITY);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // A day back, for machines whose clocks differ.
    params.not_before = (now - DAY).into();
    params.not_after = (now + validity).into();
    params
}
