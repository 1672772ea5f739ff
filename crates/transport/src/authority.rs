//! The fleet's own certificate authority.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::certificate::{self, InvalidCertificate, Serial};
use crate::files;
use crate::node::{InvalidNodeIdentity, NodeIdentity};
use crate::request::{self, InvalidRequest};

/// The authority's certificate, in its folder.
pub const CERTIFICATE_FILE: &str = "authority.pem";
/// Its key.
const KEY_FILE: &str = "authority.key";
/// How long an authority holds.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates begin this long before they are made, for machines whose clocks differ: one that takes its local time
/// for UTC is up to 14 hours behind. Nothing is lost by it, as the key was not there before.
const BACKDATED: Duration = Duration::from_secs(86_400);
/// Random bytes of a serial number.
const SERIAL_BYTES: usize = 16;

/// The fleet's own certificate authority: an ECDSA P-256 key and its certificate, as files in a folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    not_after: SystemTime,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A certificate that was issued.
pub struct Issued {
    /// The certificate and the authority's behind it, in PEM.
    pub chain_pem: String,
    /// The certificate's key in PEM, where it was made along with it.
    pub key_pem: Option<Zeroizing<String>>,
    /// Its number.
    pub serial: Serial,
    /// Until when it holds; never longer than its authority.
    pub not_after: SystemTime,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What goes wrong with an authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Half an authority: a new one would be another, which nobody trusts.
    #[error(
        "the authority's key {} is missing while its certificate is there; restore it from a backup, or remove the \
         folder to begin a new authority, which every node and client has to be told of",
        path.display()
    )]
    KeyMissing {
        /// The key's file.
        path: PathBuf,
    },
    /// A file that holds something else.
    #[error("{} is not the {what} of an authority that this version can use", path.display())]
    Malformed {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Files of two authorities.
    #[error("the key and the certificate in {} are not of one authority; restore both from one backup", folder.display())]
    Mismatch {
        /// The folder.
        folder: PathBuf,
    },
    /// It holds no longer.
    #[error("the authority's certificate has ended; it can't issue any more")]
    Ended,
    /// A server without a name.
    #[error("a server's certificate needs a host name or an address")]
    NoNames,
    /// A name that no certificate can carry.
    #[error("{name:?} is neither a host name nor an address")]
    Name {
        /// Which.
        name: String,
    },
    /// Who a node says that it is.
    #[error(transparent)]
    Identity(#[from] InvalidNodeIdentity),
    /// A request for a certificate.
    #[error("the request for a certificate is refused: {0}")]
    Request(#[from] InvalidRequest),
    /// What was made can't be read back.
    #[error("the certificate can't be used: {0}")]
    Certificate(#[from] InvalidCertificate),
    /// No randomness, or a value that can't be encoded.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// Opens the authority in a folder, or makes one there, valid for ten years. The key is readable by its owner only.
    ///
    /// One process at a time may call this for a folder: whoever holds the data directory's lock.
    ///
    /// # Errors
    /// Files that can't be read or written, that aren't an authority's, or half of it.
    pub fn open_or_create(folder: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let (key_path, certificate_path) = (folder.join(KEY_FILE), folder.join(CERTIFICATE_FILE));
        let key_pem = read(&key_path)?.map(Zeroizing::new);
        let pem = read(&certificate_path)?;
        match (key_pem, pem) {
            (Some(key_pem), Some(pem)) => Self::of(folder, &key_pem, pem),
            (None, Some(_)) => Err(AuthorityError::KeyMissing { path: key_path }),
            (Some(key_pem), None) => {
                // The key is written first: a crash came between the two.
                let key = key_of(&key_pem, &key_path)?;
                let pem = self_signed(&key, now)?;
                files::write_public(&certificate_path, &pem).map_err(failed("write", &certificate_path))?;
                Self::of(folder, &key_pem, pem)
            }
            (None, None) => {
                std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                let key_pem = Zeroizing::new(key.serialize_pem());
                let pem = self_signed(&key, now)?;
                files::write_secret(&key_path, &key_pem).map_err(failed("write", &key_path))?;
                files::write_public(&certificate_path, &pem).map_err(failed("write", &certificate_path))?;
                Self::of(folder, &key_pem, pem)
            }
        }
    }

    fn of(folder: &Path, key_pem: &str, pem: String) -> Result<Self, AuthorityError> {
        let malformed = || AuthorityError::Malformed {
            what: "certificate",
            path: folder.join(CERTIFICATE_FILE),
        };
        let key = key_of(key_pem, &folder.join(KEY_FILE))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
        let not_after = {
            let certificate = certificate::parse(&der).map_err(|_| malformed())?;
            if !certificate.is_ca() {
                return Err(malformed());
            }
            if certificate.public_key().raw != key.subject_public_key_info() {
                return Err(AuthorityError::Mismatch {
                    folder: folder.to_owned(),
                });
            }
            certificate::end_of(&certificate)?
        };
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| malformed())?;
        Ok(Self {
            issuer,
            certificate: der,
            pem,
            not_after,
        })
    }

    /// The authority's certificate in PEM: what clients and nodes trust.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Until when the authority holds.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Issues a certificate for a server with these host names and addresses, with a new key.
    ///
    /// # Errors
    /// No name, one that is neither host name nor address, no randomness, or an authority that has ended.
    pub fn issue_server(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let first = names.first().ok_or(AuthorityError::NoNames)?;
        let mut alternatives = Vec::with_capacity(names.len());
        for name in names {
            let invalid = || AuthorityError::Name { name: name.clone() };
            alternatives.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if rustls_pki_types::DnsName::try_from(name.as_str()).is_err() => {
                    return Err(invalid());
                }
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| invalid())?),
            });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = self.params(first, lifetime, now)?;
        params.subject_alt_names = alternatives;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut issued = self.sign(&params, &key)?;
        issued.key_pem = Some(Zeroizing::new(key.serialize_pem()));
        Ok(issued)
    }

    /// Issues a certificate for a node, for the use as a client only. The key and the proof of its possession are the
    /// request's; every name is ours.
    ///
    /// # Errors
    /// A request that isn't one or isn't signed by its key, a name that can't be, or an authority that has ended.
    pub fn issue_node(
        &self,
        csr_der: &[u8],
        who: &NodeIdentity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let key = request::key_of(csr_der)?;
        let uri = who.uri()?;
        let mut params = self.params(&uri, lifetime, now)?;
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &key)
    }

    fn params(
        &self,
        name: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateParams, AuthorityError> {
        if now >= self.not_after {
            return Err(AuthorityError::Ended);
        }
        let end = now
            .checked_add(lifetime)
            .map_or(self.not_after, |end| end.min(self.not_after));
        let mut params = params(name, now, end)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Issued, AuthorityError> {
        let made = params.signed_by(key, &self.issuer)?;
        let certificate = certificate::parse(made.der())?;
        Ok(Issued {
            chain_pem: format!("{}{}", made.pem(), self.pem),
            key_pem: None,
            serial: certificate::serial(&certificate)?,
            not_after: certificate::end_of(&certificate)?,
        })
    }
}

fn params(name: &str, now: SystemTime, end: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 gives a common name 64 characters; who it is stands in the alternative names.
    let common: String = name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common);
    let mut serial = [0; SERIAL_BYTES];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - BACKDATED).into();
    params.not_after = end.into();
    Ok(params)
}

fn self_signed(key: &KeyPair, now: SystemTime) -> Result<String, AuthorityError> {
    let mut params = params("", now, now + AUTHORITY_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Authorities are told apart by their names, too: clients that trust several look them up by it.
    let id: String = params
        .key_identifier(key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Hotswap fleet authority {id}"));
    Ok(params.self_signed(key)?.pem())
}

fn key_of(pem: &str, path: &Path) -> Result<KeyPair, AuthorityError> {
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map_err(|_| {
        AuthorityError::Malformed {
            what: "key",
            path: path.to_owned(),
        }
    })
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuthorityError + use<'a> {
    move |source| AuthorityError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
