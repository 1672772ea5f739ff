//! Why a signature is refused.

use std::fmt;

/// Which check a signature failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// There is no signature, and one is required.
    Unsigned,
    /// No roots are configured, so that nothing can be trusted.
    NoRoots,
    /// The trust file can't be read or is faulty.
    Policy,
    /// More bytes than a signature may have.
    SignatureSize,
    /// It isn't DER, isn't a CMS signature, or bytes follow it.
    Encoding,
    /// It is CMS of a form that isn't accepted.
    Form,
    /// It carries more certificates than it may.
    ChainLength,
    /// A certificate is larger than it may be.
    CertificateSize,
    /// The signature uses another digest than SHA-256.
    DigestAlgorithm,
    /// It was made over other bytes.
    Content,
    /// The signer's own certificate isn't in it.
    SignerMissing,
    /// A certificate in it has no part in the chain.
    UnusedCertificate,
    /// The signer's certificate is signed by itself.
    SelfSigned,
    /// A certificate's issuer is neither in the signature nor a root.
    IssuerMissing,
    /// The chain ends at a root that isn't configured.
    UnknownRoot,
    /// A certificate is signed with a broken or unsupported algorithm.
    CertificateAlgorithm,
    /// A key is too weak, or of a kind that isn't accepted.
    WeakKey,
    /// A certificate has expired.
    Expired,
    /// A certificate isn't valid yet.
    NotYetValid,
    /// A certificate is not for what it is used for.
    Usage,
    /// A certificate was altered, or wasn't made by its issuer.
    CertificateSignature,
    /// A constraint of the chain is violated.
    Constraint,
    /// A certificate is revoked.
    Revoked,
    /// No revocation list speaks for a certificate's issuer.
    RevocationUnknown,
    /// A revocation list is too old.
    RevocationListExpired,
    /// The time of signing is needed, and is missing or in the future.
    SigningTime,
    /// The signature doesn't belong to the signer's key, or was altered.
    Signature,
    /// The signer may not sign this module.
    SignerNotAllowed,
}

impl Check {
    /// A stable code for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::NoRoots => "no_roots",
            Self::Policy => "trust_file",
            Self::SignatureSize => "signature_size",
            Self::Encoding => "signature_encoding",
            Self::Form => "signature_form",
            Self::ChainLength => "chain_length",
            Self::CertificateSize => "certificate_size",
            Self::DigestAlgorithm => "digest_algorithm",
            Self::Content => "content_altered",
            Self::SignerMissing => "signer_missing",
            Self::UnusedCertificate => "unused_certificate",
            Self::SelfSigned => "self_signed",
            Self::IssuerMissing => "issuer_missing",
            Self::UnknownRoot => "unknown_root",
            Self::CertificateAlgorithm => "certificate_algorithm",
            Self::WeakKey => "weak_key",
            Self::Expired => "certificate_expired",
            Self::NotYetValid => "certificate_not_yet_valid",
            Self::Usage => "certificate_usage",
            Self::CertificateSignature => "certificate_signature",
            Self::Constraint => "chain_constraint",
            Self::Revoked => "certificate_revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::RevocationListExpired => "revocation_list_expired",
            Self::SigningTime => "signing_time",
            Self::Signature => "signature_invalid",
            Self::SignerNotAllowed => "signer_not_allowed",
        }
    }

    /// Whether the bytes are no signature at all, so that there is nothing to trust or to distrust.
    pub const fn is_malformed(self) -> bool {
        matches!(
            self,
            Self::SignatureSize | Self::Encoding | Self::Form | Self::ChainLength | Self::CertificateSize
        )
    }
}

/// Why a signature is refused: which check, of which certificate, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustError {
    /// The check that failed.
    pub check: Check,
    /// The certificate that it is about: its subject.
    pub certificate: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl TrustError {
    pub(crate) fn new(check: Check, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check,
            certificate: None,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    pub(crate) fn of(mut self, subject: impl Into<String>) -> Self {
        self.certificate = Some(subject.into());
        self
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature refused [{}]: ", self.check.code())?;
        if let Some(subject) = &self.certificate {
            write!(f, "the certificate \"{subject}\" ")?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for TrustError {}
