//! One certificate, read for what the checks ask.

use std::fmt;

use der::asn1::UintRef;
use der::oid::ObjectIdentifier;
use der::oid::db::{rfc4519, rfc5280, rfc5912};
use der::{Decode as _, Encode as _, Reader as _};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};

/// A certificate's public key, as far as its strength goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// With so many bits.
    Rsa(u32),
    P256,
    P384,
    Other(ObjectIdentifier),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA with {bits} bits"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::Other(oid) => write!(f, "of the kind {oid}"),
        }
    }
}

/// A certificate and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) x509: X509,
    pub(crate) der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads one certificate; what isn't exactly one in DER is refused.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, der::Error> {
        let x509 = X509::from_der(bytes)?;
        if x509.to_der()? != bytes {
            return Err(der::ErrorKind::Noncanonical {
                tag: der::Tag::Sequence,
            }
            .into());
        }
        Ok(Self {
            x509,
            der: CertificateDer::from(bytes.to_vec()),
        })
    }

    pub(crate) fn subject(&self) -> String {
        self.x509.tbs_certificate.subject.to_string()
    }

    pub(crate) fn issuer(&self) -> String {
        self.x509.tbs_certificate.issuer.to_string()
    }

    /// The subject's common name, where there is exactly one.
    pub(crate) fn common_name(&self) -> Option<String> {
        let names = self.x509.tbs_certificate.subject.0.iter();
        let mut names = names
            .flat_map(|rdn| rdn.0.iter())
            .filter(|attribute| attribute.oid == rfc4519::CN);
        let name = names.next()?;
        if names.next().is_some() {
            return None;
        }
        String::from_utf8(name.value.value().to_vec()).ok()
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(&self.der).into();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        let tbs = &self.x509.tbs_certificate;
        tbs.issuer == tbs.subject
    }

    /// Whether this one names `issuer` as its issuer, by name and, where both have one, by key identifier. Whether
    /// that is true only the signature tells.
    pub(crate) fn names_as_issuer(&self, issuer: &Self) -> bool {
        self.x509.tbs_certificate.issuer == issuer.x509.tbs_certificate.subject
            && match (self.authority_key_id(), issuer.subject_key_id()) {
                (Some(wanted), Some(is)) => wanted == is,
                _ => true,
            }
    }

    fn authority_key_id(&self) -> Option<Vec<u8>> {
        let (_, id) = self
            .x509
            .tbs_certificate
            .get::<AuthorityKeyIdentifier>()
            .ok()
            .flatten()?;
        Some(id.key_identifier?.as_bytes().to_vec())
    }

    pub(crate) fn subject_key_id(&self) -> Option<Vec<u8>> {
        let (_, id) = self
            .x509
            .tbs_certificate
            .get::<SubjectKeyIdentifier>()
            .ok()
            .flatten()?;
        Some(id.0.as_bytes().to_vec())
    }

    /// The purposes it is limited to; an extension that can't be read is none that helps.
    pub(crate) fn purposes(&self) -> Option<Vec<ObjectIdentifier>> {
        match self.x509.tbs_certificate.get::<ExtendedKeyUsage>() {
            Ok(None) => None,
            Ok(Some((_, usage))) => Some(usage.0),
            Err(_) => Some(Vec::new()),
        }
    }

    pub(crate) fn key_usage(&self) -> Option<KeyUsage> {
        Some(self.x509.tbs_certificate.get::<KeyUsage>().ok().flatten()?.1)
    }

    pub(crate) fn is_ca(&self) -> bool {
        let constraints = self.x509.tbs_certificate.get::<BasicConstraints>();
        constraints
            .ok()
            .flatten()
            .is_some_and(|(_, constraints)| constraints.ca)
    }

    pub(crate) fn key(&self) -> Key {
        let info = &self.x509.tbs_certificate.subject_public_key_info;
        let algorithm = &info.algorithm;
        if algorithm.oid == rfc5912::RSA_ENCRYPTION {
            let bits = info.subject_public_key.as_bytes().and_then(rsa_bits);
            return Key::Rsa(bits.unwrap_or(0));
        }
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
        match (algorithm.oid, curve) {
            (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_256_R_1)) => Key::P256,
            (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_384_R_1)) => Key::P384,
            (rfc5912::ID_EC_PUBLIC_KEY, Some(curve)) => Key::Other(curve),
            (other, _) => Key::Other(other),
        }
    }

    /// First and last second of its validity, since 1970.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = self.x509.tbs_certificate.validity;
        (
            validity.not_before.to_unix_duration().as_secs(),
            validity.not_after.to_unix_duration().as_secs(),
        )
    }
}

fn rsa_bits(key: &[u8]) -> Option<u32> {
    let mut reader = der::SliceReader::new(key).ok()?;
    let modulus_bits = reader
        .sequence(|reader| {
            let modulus = UintRef::decode(reader)?;
            UintRef::decode(reader)?;
            let bytes = modulus.as_bytes();
            let zeros = bytes.first().map_or(0, |first| first.leading_zeros());
            Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX).saturating_mul(8) - zeros)
        })
        .ok()?;
    Some(modulus_bits)
}

const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// Whether a certificate's signature is of a sound and supported kind; its usual name if not.
pub(crate) fn unsound_algorithm(oid: ObjectIdentifier) -> Option<String> {
    const SOUND: [ObjectIdentifier; 5] = [
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
        rfc5912::ECDSA_WITH_SHA_256,
        rfc5912::ECDSA_WITH_SHA_384,
    ];
    if SOUND.contains(&oid) {
        return None;
    }
    Some(match oid {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION => "MD5 with RSA".to_owned(),
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION => "SHA-1 with RSA".to_owned(),
        ECDSA_WITH_SHA_1 => "SHA-1 with ECDSA".to_owned(),
        rfc5912::ID_RSASSA_PSS => "RSA-PSS".to_owned(),
        other => other.to_string(),
    })
}

/// `codeSigning`, 1.3.6.1.5.5.7.3.3.
pub(crate) const CODE_SIGNING: ObjectIdentifier = rfc5280::ID_KP_CODE_SIGNING;
