//! Making signatures, as plain openssl would make them.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedAttributes, SignedData, SignerIdentifier, SignerInfo,
    SignerInfos,
};
use der::asn1::{Null, OctetString, SetOfVec, UtcTime};
use der::oid::ObjectIdentifier;
use der::oid::db::{rfc5911, rfc5912};
use der::{Any, Encode as _};
use hotswap_core::ids::Digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::time::Duration;
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::certificate::Certificate;
use crate::envelope::CERTIFICATES_MAX;
use crate::policy::read_certificates;
use crate::verify::UnixSeconds;

/// Why nothing was signed. Says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key can't be used.
    #[error(
        "the key can't be used: {0}; give a private key in PEM without a password, RSA with at least 2048 bits or \
         ECDSA P-256 (`openssl pkcs8 -topk8 -nodes` converts other forms)"
    )]
    Key(String),
    /// A certificate can't be used.
    #[error("the certificate can't be used: {0}")]
    Certificate(String),
    /// Key and certificate belong to different pairs.
    #[error("the key is not that of the certificate \"{0}\"; give the two that belong together")]
    Mismatch(String),
    /// The signature could not be made.
    #[error("the signature could not be made: {0}")]
    Failed(String),
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

/// A key with its certificate and the chain above it.
pub struct SigningIdentity {
    key: Key,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

impl std::fmt::Debug for SigningIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningIdentity({})", self.certificate.subject())
    }
}

impl SigningIdentity {
    /// Reads a private key in PEM, its certificate (PEM or DER; a chain may follow it), and more of the chain.
    ///
    /// # Errors
    /// What can't be used, or that key and certificate don't belong together.
    pub fn new(key: &[u8], certificate: &[u8], chain: Option<&[u8]>) -> Result<Self, SignError> {
        let key = read_key(key)?;
        let mut certificates = read_certificates(certificate).map_err(SignError::Certificate)?;
        if let Some(chain) = chain {
            certificates.extend(read_certificates(chain).map_err(SignError::Certificate)?);
        }
        if certificates.len() > CERTIFICATES_MAX {
            let count = certificates.len();
            return Err(SignError::Certificate(format!(
                "there are {count}, and {CERTIFICATES_MAX} at most may be sent along"
            )));
        }
        let certificate = certificates.remove(0);
        let of_certificate = &certificate
            .x509
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key;
        let of_key = match &key {
            Key::Rsa(pair) => pair.public_key().as_ref(),
            Key::P256(pair) => pair.public_key().as_ref(),
        };
        if of_certificate.as_bytes() != Some(of_key) {
            return Err(SignError::Mismatch(certificate.subject()));
        }
        Ok(Self {
            key,
            certificate,
            chain: certificates,
        })
    }

    /// The subject of the signer's certificate.
    pub fn subject(&self) -> String {
        self.certificate.subject()
    }

    /// Signs the package with this digest.
    ///
    /// # Errors
    /// The system gave no randomness, or the key refused.
    pub fn sign(&self, digest: &Digest, now: UnixSeconds) -> Result<Vec<u8>, SignError> {
        let attributes = signed_attributes(digest, now).map_err(failed)?;
        let covered = attributes.to_der().map_err(failed)?;
        let tbs = &self.certificate.x509.tbs_certificate;
        let info = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer.clone(),
                serial_number: tbs.serial_number.clone(),
            }),
            digest_alg: algorithm(rfc5912::ID_SHA_256, None),
            signed_attrs: Some(attributes),
            signature_algorithm: match self.key {
                Key::Rsa(_) => algorithm(rfc5912::RSA_ENCRYPTION, Some(Null.into())),
                Key::P256(_) => algorithm(rfc5912::ECDSA_WITH_SHA_256, None),
            },
            signature: OctetString::new(self.key.sign(&covered)?).map_err(failed)?,
            unsigned_attrs: None,
        };
        let certificates = std::iter::once(&self.certificate).chain(&self.chain);
        let certificates: Vec<CertificateChoices> = certificates
            .map(|certificate| CertificateChoices::Certificate(certificate.x509.clone()))
            .collect();
        let data = SignedData {
            version: CmsVersion::V1,
            digest_algorithms: one(algorithm(rfc5912::ID_SHA_256, None)).map_err(failed)?,
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: rfc5911::ID_DATA,
                econtent: None,
            },
            certificates: Some(CertificateSet::try_from(certificates).map_err(failed)?),
            crls: None,
            signer_infos: SignerInfos(one(info).map_err(failed)?),
        };
        let content = ContentInfo {
            content_type: rfc5911::ID_SIGNED_DATA,
            content: Any::encode_from(&data).map_err(failed)?,
        };
        content.to_der().map_err(failed)
    }
}

fn failed(error: der::Error) -> SignError {
    SignError::Failed(error.to_string())
}

fn read_key(pem: &[u8]) -> Result<Key, SignError> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| SignError::Key(error.to_string()))?;
    let wrong = |error: ring::error::KeyRejected| SignError::Key(error.to_string());
    match &key {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
            .map(Key::Rsa)
            .map_err(wrong),
        PrivateKeyDer::Pkcs8(der) => {
            let der = der.secret_pkcs8_der();
            let random = SystemRandom::new();
            match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random) {
                Ok(pair) => Ok(Key::P256(pair)),
                Err(_) => RsaKeyPair::from_pkcs8(der).map(Key::Rsa).map_err(wrong),
            }
        }
        _ => Err(SignError::Key("it is in SEC 1 form".to_owned())),
    }
}

impl Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let refused = |_| SignError::Failed("the key refused".to_owned());
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(refused)?;
                Ok(signature)
            }
            Self::P256(pair) => Ok(pair.sign(&random, message).map_err(refused)?.as_ref().to_vec()),
        }
    }
}

fn algorithm(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters }
}

fn one<T: der::DerOrd>(item: T) -> der::Result<SetOfVec<T>> {
    let mut set = SetOfVec::new();
    set.insert(item)?;
    Ok(set)
}

fn signed_attributes(digest: &Digest, now: UnixSeconds) -> der::Result<SignedAttributes> {
    let time = Duration::from_secs(now.0);
    // Beyond 2049 the other notation is due.
    let time = match UtcTime::from_unix_duration(time) {
        Ok(time) => Any::encode_from(&time)?,
        Err(_) => Any::encode_from(&der::asn1::GeneralizedTime::from_unix_duration(time)?)?,
    };
    let digest = OctetString::new(digest.0)?;
    let mut attributes = SetOfVec::new();
    for (oid, value) in [
        (rfc5911::ID_CONTENT_TYPE, Any::encode_from(&rfc5911::ID_DATA)?),
        (rfc5911::ID_SIGNING_TIME, time),
        (rfc5911::ID_MESSAGE_DIGEST, Any::encode_from(&digest)?),
    ] {
        attributes.insert(Attribute {
            oid,
            values: one(value)?,
        })?;
    }
    Ok(attributes)
}
