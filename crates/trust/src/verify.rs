//! The verdict on a signature.

use hotswap_core::ids::{Digest, ModuleName};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use serde::Serialize;
use std::time::Duration;
use webpki::ring as algorithms;
use webpki::{
    EndEntityCert, Error as WebpkiError, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::certificate::{CODE_SIGNING, Certificate, Key, unsound_algorithm};
use crate::envelope::Envelope;
use crate::error::{Check, TrustError};
use crate::path::Path;
use crate::policy::{TrustPolicy, ValidityAt};

/// How far ahead a signer's clock may be, in seconds.
const CLOCK_SKEW_S: u64 = 300;
/// A certificate that expires sooner is warned of, in seconds.
const EXPIRY_WARNING_S: u64 = 30 * 86_400;
const SECONDS_PER_DAY: u64 = 86_400;

/// `codeSigning` as webpki wants it: the identifier's bytes.
const CODE_SIGNING_BYTES: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// What certificates may be signed with.
const CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

/// A point in time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// Who signed, once that is certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signer {
    /// The certificate's subject.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The root that vouches for it.
    pub root: String,
    /// When the signature was made, by the signer's word; seconds since 1970.
    pub signed_at: Option<u64>,
    /// When the first certificate of the chain expires; seconds since 1970.
    pub expires_at: u64,
    /// What is going to be wrong.
    pub warnings: Vec<String>,
}

/// Judges a signature of the package with this digest, for this module.
///
/// # Errors
/// The first check that fails, of which certificate, and what to do.
pub fn verify(
    digest: &Digest,
    module: &ModuleName,
    signature: &[u8],
    policy: &TrustPolicy,
    now: UnixSeconds,
) -> Result<Signer, TrustError> {
    let envelope = Envelope::read(signature)?;
    if envelope.digest != digest.0 {
        return Err(TrustError::new(
            Check::Content,
            "it was made over other bytes: the package was altered, or the signature is another package's",
            "take package and signature from where they were made, or sign this package",
        ));
    }
    let path = Path::find(&envelope, &policy.roots)?;
    let at = point_in_time(&envelope, policy, now)?;
    check_certificates(&envelope.signer, &path, policy, at)?;
    check_chain(&envelope.signer, &path, policy, at)?;
    check_signature(&envelope)?;
    check_rules(&envelope.signer, module, policy)?;
    Ok(signer(&envelope, &path, now))
}

fn point_in_time(
    envelope: &Envelope,
    policy: &TrustPolicy,
    now: UnixSeconds,
) -> Result<UnixSeconds, TrustError> {
    match (policy.validity, envelope.signed_at) {
        (ValidityAt::Now, _) => Ok(now),
        (ValidityAt::Signing, Some(signed)) if signed <= now.0.saturating_add(CLOCK_SKEW_S) => {
            Ok(UnixSeconds(signed))
        }
        (ValidityAt::Signing, Some(_)) => Err(TrustError::new(
            Check::SigningTime,
            "it says that it was made in the future",
            "set the clock of the signing machine, or of this one",
        )),
        (ValidityAt::Signing, None) => Err(TrustError::new(
            Check::SigningTime,
            "it doesn't say when it was made",
            "sign with the time of signing, as `hotswap module sign` and openssl do",
        )),
    }
}

/// What each certificate must be, checked here so that the one at fault can be named.
fn check_certificates(
    signer: &Certificate,
    path: &Path<'_>,
    policy: &TrustPolicy,
    at: UnixSeconds,
) -> Result<(), TrustError> {
    check_purpose(signer)?;
    let below_root = || std::iter::once(signer).chain(path.intermediates.iter().copied());
    for certificate in below_root() {
        let fail = |check, problem: String, remedy: &str| {
            Err(TrustError::new(check, problem, remedy).of(certificate.subject()))
        };
        if let Some(name) = unsound_algorithm(certificate.x509.signature_algorithm.oid) {
            let problem = format!("is signed with {name}");
            let remedy = "have it issued anew with SHA-256 and RSA (PKCS #1) or ECDSA";
            return fail(Check::CertificateAlgorithm, problem, remedy);
        }
        let signs_package = std::ptr::eq(certificate, signer);
        let weak = match certificate.key() {
            Key::Rsa(bits) => bits < policy.rsa_bits_min,
            Key::P256 => false,
            Key::P384 => signs_package,
            Key::Other(_) => true,
        };
        if weak {
            let problem = format!("has a key {}", certificate.key());
            let remedy = format!(
                "use RSA with at least {} bits or ECDSA P-256",
                policy.rsa_bits_min
            );
            return fail(Check::WeakKey, problem, &remedy);
        }
    }
    for certificate in below_root().chain(std::iter::once(path.root)) {
        check_validity(certificate, at)?;
    }
    for issuer in path
        .intermediates
        .iter()
        .copied()
        .chain(std::iter::once(path.root))
    {
        let may_issue = issuer.key_usage().is_none_or(|usage| usage.key_cert_sign());
        if !issuer.is_ca() || !may_issue {
            return Err(TrustError::new(
                Check::Usage,
                "issued another certificate, and is no CA's",
                "have the signer's certificate issued by a CA",
            )
            .of(issuer.subject()));
        }
    }
    Ok(())
}

fn check_purpose(signer: &Certificate) -> Result<(), TrustError> {
    let purposes = signer.purposes();
    let for_code = purposes.as_ref().is_some_and(|all| all.contains(&CODE_SIGNING));
    let signs = signer.key_usage().is_none_or(|usage| usage.digital_signature());
    if for_code && signs && !signer.is_ca() {
        return Ok(());
    }
    let problem = match (purposes, signs) {
        (_, false) => "may not make signatures (its key usage lacks digitalSignature)".to_owned(),
        (None, _) => "doesn't say that it is for code signing (it has no extended key usage)".to_owned(),
        (Some(_), _) if !for_code => "is for other purposes than code signing".to_owned(),
        (Some(_), _) => "is a CA's, which must not sign modules itself".to_owned(),
    };
    let remedy = "sign with a certificate whose extended key usage is codeSigning";
    Err(TrustError::new(Check::Usage, problem, remedy).of(signer.subject()))
}

fn check_validity(certificate: &Certificate, at: UnixSeconds) -> Result<(), TrustError> {
    let (from, until) = certificate.validity();
    let validity = certificate.x509.tbs_certificate.validity;
    if at.0 < from {
        let problem = format!("is not valid before {}", validity.not_before);
        let remedy = "wait until then, or set this machine's clock";
        return Err(TrustError::new(Check::NotYetValid, problem, remedy).of(certificate.subject()));
    }
    if at.0 > until {
        let problem = format!("expired at {}", validity.not_after);
        let remedy = "renew it and sign anew, or set this machine's clock";
        return Err(TrustError::new(Check::Expired, problem, remedy).of(certificate.subject()));
    }
    Ok(())
}

/// webpki's verdict: signatures, constraints, purposes, revocation.
fn check_chain(
    signer: &Certificate,
    path: &Path<'_>,
    policy: &TrustPolicy,
    at: UnixSeconds,
) -> Result<(), TrustError> {
    let of_signer = |error: WebpkiError| chain_error(&error, signer, path, policy, at);
    // webpki looks at an issuer's first list alone, which a newer one may have been put beside.
    let mut below_root = std::iter::once(signer).chain(path.intermediates.iter().copied());
    if below_root.any(|certificate| policy.lists.iter().any(|list| list.names(certificate))) {
        return Err(of_signer(WebpkiError::CertRevoked));
    }
    let entity = EndEntityCert::try_from(&signer.der).map_err(of_signer)?;
    let anchor = webpki::anchor_from_trusted_cert(&path.root.der).map_err(of_signer)?;
    let intermediates: Vec<CertificateDer<'_>> = path
        .intermediates
        .iter()
        .map(|certificate| CertificateDer::from(certificate.der.as_ref()))
        .collect();
    let lists: Vec<_> = policy.lists.iter().map(|list| &list.read).collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    entity
        .verify_for_usage(
            CHAIN_ALGORITHMS,
            &[anchor],
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(at.0)),
            // The signer's own purpose is checked above; an intermediate one may leave it open.
            KeyUsage::required_if_present(CODE_SIGNING_BYTES),
            revocation,
            None,
        )
        .map(drop)
        .map_err(of_signer)
}

fn chain_error(
    error: &WebpkiError,
    signer: &Certificate,
    path: &Path<'_>,
    policy: &TrustPolicy,
    at: UnixSeconds,
) -> TrustError {
    let below_root: Vec<&Certificate> = std::iter::once(signer)
        .chain(path.intermediates.iter().copied())
        .collect();
    let (check, problem, remedy) = match error {
        WebpkiError::CertRevoked => {
            let revoked = below_root
                .iter()
                .find(|certificate| policy.lists.iter().any(|list| list.names(certificate)));
            return TrustError::new(
                Check::Revoked,
                "is revoked by its issuer's list",
                "sign with another certificate",
            )
            .of(revoked.unwrap_or(&signer).subject());
        }
        WebpkiError::UnknownRevocationStatus => {
            let listed = |certificate: &&&Certificate| {
                policy
                    .lists
                    .iter()
                    .all(|list| list.x509.tbs_cert_list.issuer != certificate.x509.tbs_certificate.issuer)
            };
            let unknown = below_root.iter().find(listed).unwrap_or(&signer);
            return TrustError::new(
                Check::RevocationUnknown,
                format!(
                    "may be revoked or not: no list by its issuer \"{}\" is here",
                    unknown.issuer()
                ),
                "add the issuer's revocation list to the trust file",
            )
            .of(unknown.subject());
        }
        WebpkiError::CrlExpired { .. } => {
            let old = policy.lists.iter().find(|list| {
                let next = list.x509.tbs_cert_list.next_update;
                next.is_some_and(|next| next.to_unix_duration().as_secs() < at.0)
            });
            let whose = old.map_or_else(String::new, |list| {
                format!(" of \"{}\"", list.x509.tbs_cert_list.issuer)
            });
            (
                Check::RevocationListExpired,
                format!("the revocation list{whose} is too old: its next update is past"),
                "put the issuer's newest list into the trust file's folder",
            )
        }
        WebpkiError::InvalidCrlSignatureForPublicKey | WebpkiError::IssuerNotCrlSigner => (
            Check::RevocationUnknown,
            "a revocation list is not signed by the issuer that it names".to_owned(),
            "put the issuer's own list into the trust file's folder",
        ),
        WebpkiError::InvalidSignatureForPublicKey | WebpkiError::SignatureAlgorithmMismatch => {
            return TrustError::new(
                Check::CertificateSignature,
                "or one above it was altered, or was not made by the issuer that it names",
                "take the certificates from whoever issued them, and sign anew",
            )
            .of(signer.subject());
        }
        WebpkiError::RequiredEkuNotFoundContext(_) => (
            Check::Usage,
            "a certificate of the chain is for other purposes than code signing".to_owned(),
            "have the chain issued for code signing",
        ),
        other => (
            Check::Constraint,
            format!("the chain is not valid ({other})"),
            "have the signer's certificate issued anew",
        ),
    };
    TrustError::new(check, problem, remedy)
}

fn check_signature(envelope: &Envelope) -> Result<(), TrustError> {
    use der::oid::db::rfc5912;
    let signer = &envelope.signer;
    let is_ecdsa = envelope.algorithm == rfc5912::ECDSA_WITH_SHA_256;
    let algorithm = match (signer.key(), is_ecdsa) {
        (Key::Rsa(_), false) => Some(algorithms::RSA_PKCS1_2048_8192_SHA256),
        (Key::P256, true) => Some(algorithms::ECDSA_P256_SHA256),
        _ => None,
    };
    let verified = algorithm.is_some_and(|algorithm| {
        EndEntityCert::try_from(&signer.der).is_ok_and(|entity| {
            entity
                .verify_signature(algorithm, &envelope.signed, &envelope.signature)
                .is_ok()
        })
    });
    if verified {
        return Ok(());
    }
    Err(TrustError::new(
        Check::Signature,
        "did not make this signature: it was altered, or made with another key",
        "take the signature from where it was made, or sign the package anew",
    )
    .of(signer.subject()))
}

fn check_rules(signer: &Certificate, module: &ModuleName, policy: &TrustPolicy) -> Result<(), TrustError> {
    if policy.signers.is_empty() {
        return Ok(());
    }
    let rules: Vec<_> = policy.signers.iter().filter(|rule| rule.is_of(signer)).collect();
    if rules.iter().any(|rule| rule.allows(module)) {
        return Ok(());
    }
    let may: Vec<&str> = rules
        .iter()
        .flat_map(|rule| rule.modules.iter().map(String::as_str))
        .collect();
    let problem = if may.is_empty() {
        format!("is trusted, but no rule lets it sign {module}")
    } else {
        format!("may sign {}, not {module}", may.join(", "))
    };
    Err(TrustError::new(
        Check::SignerNotAllowed,
        problem,
        "sign with a certificate that may sign this module, or add a rule to `signers` in the trust file",
    )
    .of(signer.subject()))
}

fn signer(envelope: &Envelope, path: &Path<'_>, now: UnixSeconds) -> Signer {
    let chain = || {
        std::iter::once(&envelope.signer)
            .chain(path.intermediates.iter().copied())
            .chain(std::iter::once(path.root))
    };
    let warnings = chain()
        .filter_map(|certificate| {
            let (_, until) = certificate.validity();
            let left = until.saturating_sub(now.0);
            let subject = certificate.subject();
            match left {
                0 => Some(format!("the certificate \"{subject}\" has expired meanwhile")),
                1..EXPIRY_WARNING_S => {
                    let days = left / SECONDS_PER_DAY;
                    Some(format!("the certificate \"{subject}\" expires in {days} days"))
                }
                _ => None,
            }
        })
        .collect();
    Signer {
        subject: envelope.signer.subject(),
        issuer: envelope.signer.issuer(),
        fingerprint: envelope.signer.fingerprint(),
        root: path.root.subject(),
        signed_at: envelope.signed_at,
        expires_at: chain()
            .map(|certificate| certificate.validity().1)
            .min()
            .unwrap_or(0),
        warnings,
    }
}
