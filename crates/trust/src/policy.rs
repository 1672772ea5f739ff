//! What is trusted: the trust file and what it names.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use der::Decode as _;
use hotswap_core::ids::ModuleName;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use serde::Deserialize;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::crl::CertificateList;

use crate::certificate::{Certificate, Key};

/// Most roots, revocation lists and rules about signers.
const ROOTS_MAX: usize = 64;
const LISTS_MAX: usize = 64;
const RULES_MAX: usize = 256;
/// Largest trust file, root file and revocation list, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Fewest bits of an RSA key that a policy may ask for; weaker ones are never accepted.
const RSA_BITS_MIN: u32 = 2048;

/// Who may sign modules.
#[derive(Debug)]
pub struct TrustPolicy {
    pub(crate) roots: Vec<Certificate>,
    pub(crate) lists: Vec<RevocationList>,
    pub(crate) validity: ValidityAt,
    pub(crate) rsa_bits_min: u32,
    pub(crate) signers: Vec<SignerRule>,
}

pub(crate) struct RevocationList {
    pub(crate) read: CertRevocationList<'static>,
    pub(crate) x509: CertificateList,
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({})", self.x509.tbs_cert_list.issuer)
    }
}

/// When certificates must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValidityAt {
    /// When the signature is judged.
    #[default]
    Now,
    /// When it was made. The time is the signer's own word: whoever has the key of an expired certificate can still
    /// sign "in the past".
    Signing,
}

/// Which modules a signer may sign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignerRule {
    /// The common name of the signer's certificate.
    #[serde(default)]
    pub name: Option<String>,
    /// SHA-256 of the signer's certificate, 64 hexadecimal digits.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Names of modules; `*` stands for any characters.
    pub modules: Vec<String>,
}

impl SignerRule {
    pub(crate) fn is_of(&self, signer: &Certificate) -> bool {
        let name = self.name.as_ref();
        let print = self.fingerprint.as_ref();
        name.is_none_or(|name| signer.common_name().as_ref() == Some(name))
            && print.is_none_or(|print| print.eq_ignore_ascii_case(&signer.fingerprint()))
    }

    pub(crate) fn allows(&self, module: &ModuleName) -> bool {
        self.modules
            .iter()
            .any(|pattern| matches(pattern, module.as_str()))
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(before) else {
        return false;
    };
    // Names are short: trying every rest is cheap.
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TrustFile {
    roots: Vec<PathBuf>,
    #[serde(default)]
    revocation_lists: Vec<PathBuf>,
    #[serde(default)]
    validity: ValidityAt,
    #[serde(default)]
    rsa_bits_min: Option<u32>,
    #[serde(default)]
    signers: Vec<SignerRule>,
}

/// Why there is no policy. Says which file, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file can't be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The trust file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl TrustPolicy {
    /// A policy of these roots, in PEM or DER, and nothing else: any signer under them may sign any module.
    ///
    /// # Errors
    /// A root that is none.
    pub fn of_roots(roots: &[u8]) -> Result<Self, String> {
        Ok(Self {
            roots: read_roots(roots)?,
            lists: Vec::new(),
            validity: ValidityAt::Now,
            rsa_bits_min: RSA_BITS_MIN,
            signers: Vec::new(),
        })
    }

    /// Adds revocation lists, in PEM or DER. With any list, every issuer on a path needs one.
    ///
    /// # Errors
    /// A list that is none.
    pub fn with_lists(mut self, lists: &[u8]) -> Result<Self, String> {
        self.lists.extend(read_lists(lists)?);
        Ok(self)
    }

    /// Limits which modules which signers may sign. Signers without a rule may sign none, once there is a rule.
    #[must_use]
    pub fn with_signers(mut self, signers: Vec<SignerRule>) -> Self {
        self.signers = signers;
        self
    }

    /// Says when certificates must be valid.
    #[must_use]
    pub fn valid_at(mut self, validity: ValidityAt) -> Self {
        self.validity = validity;
        self
    }

    /// Reads a trust file and the files that it names, which are looked for beside it.
    ///
    /// # Errors
    /// A file that can't be read, or isn't what it should be.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let faulty = |path: &Path, problem: String| PolicyError::Faulty {
            path: path.to_owned(),
            problem,
        };
        let text = read(path)?;
        let text = String::from_utf8(text).map_err(|_| faulty(path, "it is not text".to_owned()))?;
        let file: TrustFile =
            toml::from_str(&text).map_err(|error| faulty(path, error.message().to_owned()))?;
        check(&file).map_err(|problem| faulty(path, problem))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut policy = Self {
            roots: Vec::new(),
            lists: Vec::new(),
            validity: file.validity,
            rsa_bits_min: file.rsa_bits_min.unwrap_or(RSA_BITS_MIN),
            signers: file.signers,
        };
        for root in &file.roots {
            let path = folder.join(root);
            policy
                .roots
                .extend(read_roots(&read(&path)?).map_err(|problem| faulty(&path, problem))?);
        }
        for list in &file.revocation_lists {
            let path = folder.join(list);
            policy
                .lists
                .extend(read_lists(&read(&path)?).map_err(|problem| faulty(&path, problem))?);
        }
        if policy.roots.len() > ROOTS_MAX || policy.lists.len() > LISTS_MAX {
            let problem = format!("it names more than {ROOTS_MAX} roots or {LISTS_MAX} revocation lists");
            return Err(faulty(path, problem));
        }
        Ok(policy)
    }

    /// The roots' subjects.
    pub fn roots(&self) -> Vec<String> {
        self.roots.iter().map(Certificate::subject).collect()
    }
}

fn check(file: &TrustFile) -> Result<(), String> {
    if file.roots.is_empty() {
        return Err("`roots` is empty; name at least one file with a root certificate".to_owned());
    }
    if file.roots.len() > ROOTS_MAX || file.revocation_lists.len() > LISTS_MAX {
        return Err(format!(
            "it names more than {ROOTS_MAX} roots or {LISTS_MAX} revocation lists"
        ));
    }
    if file.signers.len() > RULES_MAX {
        return Err(format!(
            "it has {} rules about signers, {RULES_MAX} at most",
            file.signers.len()
        ));
    }
    if file
        .rsa_bits_min
        .is_some_and(|bits| !(RSA_BITS_MIN..=8192).contains(&bits))
    {
        return Err(format!("`rsa-bits-min` must be between {RSA_BITS_MIN} and 8192"));
    }
    for rule in &file.signers {
        if rule.name.is_none() && rule.fingerprint.is_none() {
            return Err("a rule of `signers` needs `name` or `fingerprint`".to_owned());
        }
        let hexadecimal = |print: &String| print.len() == 64 && print.bytes().all(|b| b.is_ascii_hexdigit());
        if rule.fingerprint.as_ref().is_some_and(|print| !hexadecimal(print)) {
            return Err("a `fingerprint` of `signers` must be 64 hexadecimal digits".to_owned());
        }
        if rule.modules.is_empty() {
            return Err("a rule of `signers` needs `modules`, such as [\"payment-*\"]".to_owned());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!(
            "it has more than {FILE_BYTES_MAX} bytes"
        ))));
    }
    Ok(bytes)
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(10).any(|window| window == b"-----BEGIN")
}

/// The certificates of a file, in PEM or one in DER.
pub(crate) fn read_certificates(bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    let wrong = |error: der::Error| format!("it holds something else than a certificate ({error})");
    if !is_pem(bytes) {
        return Ok(vec![Certificate::read(bytes).map_err(wrong)?]);
    }
    let mut all = Vec::new();
    for one in CertificateDer::pem_slice_iter(bytes) {
        let der = one.map_err(|error| format!("its PEM can't be read ({error})"))?;
        all.push(Certificate::read(&der).map_err(wrong)?);
    }
    if all.is_empty() {
        return Err("it holds no certificate; one begins with -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(all)
}

fn read_roots(bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    let roots = read_certificates(bytes)?;
    for root in &roots {
        let subject = root.subject();
        if !root.is_ca() {
            return Err(format!("\"{subject}\" is no CA certificate; a root must be one"));
        }
        if matches!(root.key(), Key::Other(_)) || matches!(root.key(), Key::Rsa(bits) if bits < RSA_BITS_MIN)
        {
            return Err(format!(
                "\"{subject}\" has a key {}; a root must have RSA with at least {RSA_BITS_MIN} bits, or ECDSA P-256 or P-384",
                root.key()
            ));
        }
        webpki::anchor_from_trusted_cert(&root.der)
            .map_err(|error| format!("\"{subject}\" can't be a root ({error})"))?;
    }
    Ok(roots)
}

fn read_lists(bytes: &[u8]) -> Result<Vec<RevocationList>, String> {
    let read = |der: &[u8]| -> Result<RevocationList, String> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| format!("it holds something else than a revocation list ({error})"))?;
        let x509 = CertificateList::from_der(der)
            .map_err(|error| format!("it holds something else than a revocation list ({error})"))?;
        Ok(RevocationList {
            read: list.into(),
            x509,
        })
    };
    if !is_pem(bytes) {
        return Ok(vec![read(bytes)?]);
    }
    let mut all = Vec::new();
    for one in CertificateRevocationListDer::pem_slice_iter(bytes) {
        let der = one.map_err(|error| format!("its PEM can't be read ({error})"))?;
        all.push(read(&der)?);
    }
    if all.is_empty() {
        return Err("it holds no revocation list; one begins with -----BEGIN X509 CRL-----".to_owned());
    }
    Ok(all)
}

impl RevocationList {
    /// Whether the list, if it is to be believed, names a certificate.
    pub(crate) fn names(&self, certificate: &Certificate) -> bool {
        let (list, tbs) = (&self.x509.tbs_cert_list, &certificate.x509.tbs_certificate);
        let revoked: BTreeSet<_> = list
            .revoked_certificates
            .iter()
            .flatten()
            .map(|revoked| revoked.serial_number.as_bytes())
            .collect();
        list.issuer == tbs.issuer && revoked.contains(tbs.serial_number.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("payment-processor", "payment-processor", true),
            ("payment-processor", "payment-processor-2", false),
            ("payment-*", "payment-processor", true),
            ("payment-*", "order-payment-x", false),
            ("*-service", "authentication-service", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
