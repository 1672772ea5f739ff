//! The CMS envelope, read strictly: there is one encoding of a signature, and no part of it that nothing covers.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{SignedAttributes, SignedData, SignerIdentifier, SignerInfo};
use der::asn1::OctetString;
use der::oid::ObjectIdentifier;
use der::oid::db::{rfc5911, rfc5912};
use der::{Decode as _, DecodeOwned, Encode as _};
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::certificate::Certificate;
use crate::error::{Check, TrustError};
use crate::layout::Layout;

/// Largest signature, in bytes: a chain of six certificates of RSA-4096 has some 12 kB.
pub const SIGNATURE_BYTES_MAX: usize = 64 << 10;
/// Most certificates in a signature, the signer's among them.
pub const CERTIFICATES_MAX: usize = 6;
/// Largest certificate, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// Most signed attributes; openssl writes four.
const ATTRIBUTES_MAX: usize = 16;

const ID_DATA: ObjectIdentifier = rfc5911::ID_DATA;

/// What a signature says, before anything of it is believed.
pub(crate) struct Envelope {
    /// The signer's certificate.
    pub(crate) signer: Certificate,
    /// The others.
    pub(crate) others: Vec<Certificate>,
    /// The digest of the content, as its signer says.
    pub(crate) digest: Vec<u8>,
    /// When it was made, as its signer says; seconds since 1970.
    pub(crate) signed_at: Option<u64>,
    /// What the signature covers: the attributes, as a SET.
    pub(crate) signed: Vec<u8>,
    /// The signature's algorithm.
    pub(crate) algorithm: ObjectIdentifier,
    /// The signature itself.
    pub(crate) signature: Vec<u8>,
}

const SIGN_ANEW: &str = "sign the package anew with `hotswap module sign`, or with `openssl cms -sign -binary \
                         -md sha256 -outform DER`";

fn form(problem: impl Into<String>) -> TrustError {
    TrustError::new(Check::Form, problem, SIGN_ANEW)
}

fn encoding(problem: impl Into<String>) -> TrustError {
    TrustError::new(Check::Encoding, problem, SIGN_ANEW)
}

impl Envelope {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(TrustError::new(
                Check::SignatureSize,
                format!(
                    "it has {} bytes, and {SIGNATURE_BYTES_MAX} at most are read",
                    bytes.len()
                ),
                "leave certificates out that the chain doesn't need",
            ));
        }
        if bytes.starts_with(b"-----BEGIN") || bytes.starts_with(b"MIME-Version") {
            return Err(encoding("it is text (PEM or S/MIME), not DER"));
        }
        let outer = ContentInfo::from_der(bytes).map_err(|error| encoding(no_signature(error)))?;
        if outer.content_type != rfc5911::ID_SIGNED_DATA {
            return Err(form(format!(
                "it is CMS of the type {}, not signed data",
                outer.content_type
            )));
        }
        let inner = outer
            .content
            .to_der()
            .map_err(|error| encoding(no_signature(error)))?;
        let data = SignedData::from_der(&inner).map_err(|error| encoding(no_signature(error)))?;
        let layout = Layout::of(&inner).ok_or_else(|| encoding("it is no CMS signature in DER"))?;
        let whole = outer.to_der().is_ok_and(|again| again == bytes);
        if !whole || !data.to_der().is_ok_and(|again| layout.agrees(&again, &inner)) {
            return Err(encoding(
                "its bytes are not the one DER encoding of what they say",
            ));
        }
        Self::of(&data, &layout, &inner)
    }

    fn of(data: &SignedData, layout: &Layout, bytes: &[u8]) -> Result<Self, TrustError> {
        if data.encap_content_info.econtent_type != ID_DATA || data.encap_content_info.econtent.is_some() {
            return Err(form(
                "it must be detached: a signature of plain data, without the data",
            ));
        }
        if data.crls.is_some() {
            return Err(form(
                "it carries revocation lists, which are the verifier's to have",
            ));
        }
        let [algorithm] = data.digest_algorithms.as_slice() else {
            return Err(form("it must name one digest algorithm"));
        };
        check_digest_algorithm(algorithm)?;
        let [info] = data.signer_infos.0.as_slice() else {
            return Err(form(format!(
                "it has {} signers; one must sign",
                data.signer_infos.0.len()
            )));
        };
        let certificates = certificates(layout, bytes)?;
        check_digest_algorithm(&info.digest_alg)?;
        let version = match info.sid {
            SignerIdentifier::IssuerAndSerialNumber(_) => CmsVersion::V1,
            SignerIdentifier::SubjectKeyIdentifier(_) => CmsVersion::V3,
        };
        if info.version != version || data.version != version {
            return Err(form("its version is not that of its content"));
        }
        if info.unsigned_attrs.is_some() {
            return Err(form("it has unsigned attributes, which nothing covers"));
        }
        check_signature_algorithm(&info.signature_algorithm)?;
        let (signer, others) = take_signer(certificates, info)?;
        let attributes = info
            .signed_attrs
            .as_ref()
            .ok_or_else(|| form("it has no signed attributes (openssl's -noattr)"))?;
        check_attributes(layout, bytes)?;
        let (digest, signed_at) = read_attributes(attributes)?;
        Ok(Self {
            signer,
            others,
            digest,
            signed_at,
            signed: layout.signed(bytes),
            algorithm: info.signature_algorithm.oid,
            signature: info.signature.as_bytes().to_vec(),
        })
    }
}

fn no_signature(error: der::Error) -> String {
    match error.kind() {
        der::ErrorKind::TrailingData { .. } => "bytes follow its end".to_owned(),
        der::ErrorKind::Incomplete { .. } => "it is cut off, or no CMS signature".to_owned(),
        _ => format!("it is no CMS signature in DER ({error})"),
    }
}

fn check_digest_algorithm(algorithm: &AlgorithmIdentifierOwned) -> Result<(), TrustError> {
    if algorithm.oid != rfc5912::ID_SHA_256 {
        let name = match algorithm.oid {
            rfc5912::ID_MD_5 => "MD5".to_owned(),
            rfc5912::ID_SHA_1 => "SHA-1".to_owned(),
            rfc5912::ID_SHA_384 => "SHA-384".to_owned(),
            rfc5912::ID_SHA_512 => "SHA-512".to_owned(),
            other => other.to_string(),
        };
        return Err(TrustError::new(
            Check::DigestAlgorithm,
            format!("its digest is {name}, not SHA-256"),
            SIGN_ANEW,
        ));
    }
    absent_or_null(algorithm)
}

/// An algorithm's parameters are covered by nothing, so only the two forms that mean "none" are taken.
fn absent_or_null(algorithm: &AlgorithmIdentifierOwned) -> Result<(), TrustError> {
    match &algorithm.parameters {
        None => Ok(()),
        Some(any) if any.is_null() => Ok(()),
        Some(_) => Err(form(format!(
            "the algorithm {} has parameters; it has none",
            algorithm.oid
        ))),
    }
}

fn check_signature_algorithm(algorithm: &AlgorithmIdentifierOwned) -> Result<(), TrustError> {
    const KNOWN: [ObjectIdentifier; 3] = [
        rfc5912::RSA_ENCRYPTION,
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        rfc5912::ECDSA_WITH_SHA_256,
    ];
    if !KNOWN.contains(&algorithm.oid) {
        return Err(TrustError::new(
            Check::WeakKey,
            format!("it is signed by the algorithm {}", algorithm.oid),
            "sign with RSA (PKCS #1, at least 2048 bits) or ECDSA P-256",
        ));
    }
    absent_or_null(algorithm)
}

fn certificates(layout: &Layout, bytes: &[u8]) -> Result<Vec<Certificate>, TrustError> {
    let all = layout
        .certificates(bytes)
        .ok_or_else(|| encoding("its certificates can't be told apart"))?;
    if all.len() > CERTIFICATES_MAX {
        return Err(TrustError::new(
            Check::ChainLength,
            format!(
                "it carries {} certificates, and {CERTIFICATES_MAX} at most are read",
                all.len()
            ),
            "send the signer's certificate and the intermediate ones between it and the root, nothing else",
        ));
    }
    let read = |bytes: &&[u8]| {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(TrustError::new(
                Check::CertificateSize,
                format!(
                    "a certificate has {} bytes, and {CERTIFICATE_BYTES_MAX} at most are read",
                    bytes.len()
                ),
                "use a smaller certificate",
            ));
        }
        Certificate::read(bytes).map_err(|error| {
            form(format!(
                "it carries what is no X.509 certificate in DER ({error})"
            ))
        })
    };
    all.iter().map(read).collect()
}

/// Each attribute is in its one encoding.
fn check_attributes(layout: &Layout, bytes: &[u8]) -> Result<(), TrustError> {
    let same = |bytes: &&[u8]| {
        Attribute::from_der(bytes)
            .and_then(|attribute| attribute.to_der())
            .is_ok_and(|again| again == *bytes)
    };
    match layout.attributes(bytes) {
        Some(all) if all.iter().all(same) => Ok(()),
        _ => Err(encoding(
            "its signed attributes are not in their one DER encoding",
        )),
    }
}

fn take_signer(
    mut certificates: Vec<Certificate>,
    info: &SignerInfo,
) -> Result<(Certificate, Vec<Certificate>), TrustError> {
    let is_signer = |certificate: &Certificate| match &info.sid {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            let tbs = &certificate.x509.tbs_certificate;
            tbs.issuer == id.issuer && tbs.serial_number == id.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(id) => certificate
            .subject_key_id()
            .is_some_and(|key| key == id.0.as_bytes()),
    };
    match certificates.iter().position(is_signer) {
        Some(place) => {
            let signer = certificates.remove(place);
            Ok((signer, certificates))
        }
        None => Err(TrustError::new(
            Check::SignerMissing,
            "the signer's certificate is not in it",
            "sign anew with the certificate in the signature (openssl: without -nocerts)",
        )),
    }
}

/// The digest and the time in the signed attributes. Other attributes say nothing here; the signature covers them.
fn read_attributes(attributes: &SignedAttributes) -> Result<(Vec<u8>, Option<u64>), TrustError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(form(format!(
            "it has {} signed attributes; {ATTRIBUTES_MAX} at most",
            attributes.len()
        )));
    }
    let content_type: Option<ObjectIdentifier> = attribute(attributes, rfc5911::ID_CONTENT_TYPE)?;
    if content_type != Some(ID_DATA) {
        return Err(form("its signed content type is not plain data"));
    }
    let digest: Option<OctetString> = attribute(attributes, rfc5911::ID_MESSAGE_DIGEST)?;
    let digest = digest.ok_or_else(|| form("it doesn't say the digest of what it signs"))?;
    let time: Option<Time> = attribute(attributes, rfc5911::ID_SIGNING_TIME)?;
    Ok((
        digest.as_bytes().to_vec(),
        time.map(|time| time.to_unix_duration().as_secs()),
    ))
}

/// The one value of an attribute that may be there once.
fn attribute<T: DecodeOwned>(
    attributes: &SignedAttributes,
    oid: ObjectIdentifier,
) -> Result<Option<T>, TrustError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    let Some(first) = found.next() else {
        return Ok(None);
    };
    let ([value], None) = (first.values.as_slice(), found.next()) else {
        return Err(form(format!(
            "its signed attribute {oid} is there more than once"
        )));
    };
    let value = value.to_der().and_then(|bytes| T::from_der(&bytes));
    value
        .map(Some)
        .map_err(|error| form(format!("its signed attribute {oid} can't be read ({error})")))
}
