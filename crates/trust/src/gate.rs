//! Whether a package may pass: what a server or a node is told about signatures, applied.

use std::fmt;
use std::path::{Path, PathBuf};

use hotswap_core::ids::{Digest, ModuleName};

use crate::error::{Check, TrustError};
use crate::policy::{PolicyError, TrustPolicy};
use crate::verify::{Signer, UnixSeconds, verify};

/// What a server or a node is told about signatures. Without anything, nothing passes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Gate {
    trust_file: Option<PathBuf>,
    allow_unsigned: bool,
}

/// What passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A signature that was verified.
    Signed(Box<Signer>),
    /// No verified signature, which is allowed here.
    Unsigned,
}

impl Gate {
    /// Passes what is signed by whom this trust file trusts. The file is read anew for each verdict, so that a new
    /// revocation list or root needs no restart.
    pub fn signed(trust_file: impl Into<PathBuf>) -> Self {
        Self {
            trust_file: Some(trust_file.into()),
            allow_unsigned: false,
        }
    }

    /// Passes packages without a signature too; one that is there must still be good, where a trust file can tell.
    #[must_use]
    pub fn allowing_unsigned(mut self) -> Self {
        self.allow_unsigned = true;
        self
    }

    /// Whether packages without a signature pass.
    pub fn allows_unsigned(&self) -> bool {
        self.allow_unsigned
    }

    /// The trust file.
    pub fn trust_file(&self) -> Option<&Path> {
        self.trust_file.as_deref()
    }

    /// Reads the trust file, to find its faults early.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), PolicyError> {
        self.trust_file
            .as_deref()
            .map_or(Ok(()), |path| TrustPolicy::load(path).map(drop))
    }

    /// Judges a package. Reads files, so call it where blocking is fine.
    ///
    /// # Errors
    /// Why it doesn't pass.
    pub fn judge(
        &self,
        digest: &Digest,
        module: &ModuleName,
        signature: Option<&[u8]>,
        now: UnixSeconds,
    ) -> Result<Verdict, TrustError> {
        let policy = match &self.trust_file {
            None => None,
            Some(path) => Some(TrustPolicy::load(path).map_err(|error| faulty(&error))?),
        };
        match (signature, policy) {
            (Some(signature), Some(policy)) => verify(digest, module, signature, &policy, now)
                .map(|signer| Verdict::Signed(Box::new(signer))),
            (_, _) if self.allow_unsigned => Ok(Verdict::Unsigned),
            (_, None) => Err(TrustError::new(
                Check::NoRoots,
                "no roots are configured here, so no signer can be trusted",
                "start with `--trust FILE` (`hotswap trust init` makes one to begin with)",
            )),
            (None, Some(_)) => Err(TrustError::new(
                Check::Unsigned,
                "the package has no signature, and one is required here",
                "push it with its signature (`hotswap module push --signer DIR`, or NAME.hsm.p7s beside NAME.hsm)",
            )),
        }
    }
}

fn faulty(error: &PolicyError) -> TrustError {
    let because = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    TrustError::new(
        Check::Policy,
        format!("the trust file can't be used: {error}{because}"),
        "mend it on this machine; nothing passes until then",
    )
}

impl Verdict {
    /// Who signed, where a signature was verified.
    pub fn signer(&self) -> Option<&Signer> {
        match self {
            Self::Signed(signer) => Some(signer),
            Self::Unsigned => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(signer) => write!(f, "signed by \"{}\" (root \"{}\")", signer.subject, signer.root),
            Self::Unsigned => f.write_str("no verified signature, which is allowed here (--allow-unsigned)"),
        }
    }
}
