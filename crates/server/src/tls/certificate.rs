//! The API's certificate while a server runs: read anew when its files change, renewed where it is our own.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hotswap_core::causes::with_causes;
use hotswap_core::time::WallTime;
use hotswap_transport::{Authority, AuthorityError, CERTIFICATE_FILE, Fingerprint, Identity, IdentityError};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::names::names;
use crate::views::time;

const DAY: Duration = Duration::from_secs(86_400);
/// Bytes of a certificate's or a key's file.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// How long a certificate of the fleet's authority holds, and how long before its end it is renewed.
const OWN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// A certificate that ends so soon is warned of, and how often.
const WARNED_BEFORE: Duration = Duration::from_secs(14 * 86_400);
const WARNING_PAUSE: Duration = DAY;

/// The certificate that the API shows now.
#[derive(Debug)]
pub struct ApiCertificate {
    identity: Arc<Identity>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
        seen: Mutex<Seen>,
    },
    Own {
        authority: Arc<Authority>,
        file: PathBuf,
        names: Vec<String>,
    },
}

/// What the files held, by digest.
#[derive(Debug)]
struct Seen {
    taken: [u8; 32],
    /// What can't be used, and whether that was told: a writer may be between the certificate and its key.
    broken: Option<([u8; 32], bool)>,
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("failed to read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that is something else.
    #[error("{} has more than {FILE_BYTES_MAX} bytes: it is no certificate or key", path.display())]
    Size {
        /// Which.
        path: PathBuf,
    },
    /// What the files hold.
    #[error("the certificate in {} and the key in {} can't be used", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// It holds no longer.
    #[error("the certificate in {} ended at {end}", path.display())]
    Ended {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        end: String,
    },
    /// The fleet's authority.
    #[error("failed to make a certificate by the fleet's own authority")]
    Authority(#[from] AuthorityError),
    /// What was made by ourselves.
    #[error("the certificate of the fleet's own authority can't be used")]
    Own(#[source] IdentityError),
}

impl ApiCertificate {
    /// Reads it from files. One that has ended is taken, with a warning: nobody could mend a server that doesn't start.
    ///
    /// # Errors
    /// Files that can't be read, or that are no pair.
    pub(crate) fn from_files(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let pair = Pair::read(certificate, key)?;
        let identity = Identity::from_pem(&pair.chain, &pair.key);
        let identity = identity.map_err(|source| unusable(certificate, key, source))?;
        let seen = Seen {
            taken: pair.digest(),
            broken: None,
        };
        Ok(Self {
            identity: Arc::new(identity),
            source: Source::Files {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                seen: Mutex::new(seen),
            },
        })
    }

    /// Has one made by the fleet's authority, whose files are in `folder`, for a server that listens there.
    ///
    /// # Errors
    /// A name that can't be, or an authority that has ended.
    pub(crate) fn own(
        authority: Arc<Authority>,
        folder: &Path,
        listens: IpAddr,
        more: &[String],
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let names = names(listens, more);
        let issued = authority.issue_server(&names, OWN_LIFETIME, now)?;
        let key = issued.key_pem.unwrap_or_default();
        let identity = Identity::from_pem(&issued.chain_pem, &key).map_err(CertificateError::Own)?;
        Ok(Self {
            identity: Arc::new(identity),
            source: Source::Own {
                authority,
                file: folder.join(CERTIFICATE_FILE),
                names,
            },
        })
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Until when it holds.
    pub fn not_after(&self) -> SystemTime {
        self.identity.not_after()
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Seconds until its end, less than none after it.
    pub(crate) fn seconds_left(&self, now: SystemTime) -> f64 {
        match self.not_after().duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        }
    }

    /// Where the fleet's authority issued it: the authority's certificate, and its fingerprint. Clients need it.
    pub fn authority(&self) -> Option<(&Path, Fingerprint)> {
        match &self.source {
            Source::Own { authority, file, .. } => Some((file, Fingerprint::of(authority.certificate()))),
            Source::Files { .. } => None,
        }
    }

    /// Reads the files anew, where it is from files. Says whether another certificate is shown now.
    ///
    /// # Errors
    /// What can't be used; the old one stays.
    pub(crate) fn reload(&self, now: SystemTime) -> Result<bool, CertificateError> {
        let Source::Files {
            certificate,
            key,
            seen,
        } = &self.source
        else {
            return Ok(false);
        };
        let pair = Pair::read(certificate, key)?;
        let digest = pair.digest();
        let mut seen = seen.lock();
        if seen.taken == digest {
            return Ok(false);
        }
        self.take(&pair, now)?;
        *seen = Seen {
            taken: digest,
            broken: None,
        };
        drop(seen);
        self.tell();
        Ok(true)
    }

    fn take(&self, pair: &Pair<'_>, now: SystemTime) -> Result<(), CertificateError> {
        let of_pair = |source| unusable(pair.certificate_file, pair.key_file, source);
        let next = Identity::from_pem(&pair.chain, &pair.key).map_err(of_pair)?;
        if next.not_after() <= now {
            return Err(CertificateError::Ended {
                path: pair.certificate_file.to_owned(),
                end: told(next.not_after()),
            });
        }
        self.identity.replace(&pair.chain, &pair.key).map_err(of_pair)
    }

    /// Looks whether there is another one, or needs to be.
    fn look(&self, now: SystemTime) {
        match &self.source {
            Source::Own { authority, names, .. } => {
                // Near its authority's end there is nothing later to be had.
                let due =
                    self.not_after() <= now + RENEWED_BEFORE && self.not_after() < authority.not_after();
                if due && let Err(error) = self.renew(authority, names, now) {
                    let error = with_causes(&error);
                    tracing::warn!(error, "the API's certificate was not renewed; it is tried again");
                }
            }
            Source::Files {
                certificate,
                key,
                seen,
            } => {
                let Err(error) = self.reload(now) else { return };
                let digest = Pair::read(certificate, key).map_or([0; 32], |pair| pair.digest());
                let mut seen = seen.lock();
                match &mut seen.broken {
                    Some((broken, told)) if *broken == digest => {
                        if !std::mem::replace(told, true) {
                            refused(&error);
                        }
                    }
                    broken => *broken = Some((digest, false)),
                }
            }
        }
    }

    fn renew(
        &self,
        authority: &Authority,
        names: &[String],
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        let issued = authority.issue_server(names, OWN_LIFETIME, now)?;
        let key = issued.key_pem.unwrap_or_default();
        self.identity
            .replace(&issued.chain_pem, &key)
            .map_err(CertificateError::Own)?;
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let (fingerprint, end) = (self.fingerprint(), told(self.not_after()));
        tracing::info!(%fingerprint, end, "the API shows another certificate from now on");
    }

    /// Keeps it up to date until the server ends.
    pub(crate) async fn keep(self: Arc<Self>, pause: Duration, shutdown: CancellationToken) {
        let mut warned: Option<Instant> = None;
        loop {
            if self.seconds_left(SystemTime::now()) < WARNED_BEFORE.as_secs_f64()
                && warned.is_none_or(|warned| warned.elapsed() >= WARNING_PAUSE)
            {
                warned = Some(Instant::now());
                let end = told(self.not_after());
                tracing::warn!(
                    end,
                    "the API's certificate ends soon or has ended: put another one in its place"
                );
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look(SystemTime::now())).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking after the API's certificate panicked");
            }
        }
    }
}

fn told(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    time::rfc3339(WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// Says that another certificate is there and can't be used.
pub(crate) fn refused(error: &CertificateError) {
    let error = with_causes(error);
    tracing::error!(error, "the API's new certificate was refused: the old one stays");
}

fn unusable(certificate: &Path, key: &Path, source: IdentityError) -> CertificateError {
    CertificateError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    }
}

struct Pair<'a> {
    certificate_file: &'a Path,
    key_file: &'a Path,
    chain: String,
    key: Zeroizing<String>,
}

impl<'a> Pair<'a> {
    fn read(certificate: &'a Path, key: &'a Path) -> Result<Self, CertificateError> {
        Ok(Self {
            certificate_file: certificate,
            key_file: key,
            chain: read(certificate)?,
            key: Zeroizing::new(read(key)?),
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(&self.chain);
        digest.update([0]);
        digest.update(self.key.as_bytes());
        digest.finalize().into()
    }
}

fn read(path: &Path) -> Result<String, CertificateError> {
    let failed = |source| CertificateError::File {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateError::Size {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn own(authority: &Arc<Authority>, now: SystemTime) -> ApiCertificate {
        let listens = Ipv4Addr::LOCALHOST.into();
        ApiCertificate::own(Arc::clone(authority), Path::new("ca"), listens, &[], now).unwrap()
    }

    #[test]
    fn our_own_is_renewed_before_its_end_and_not_sooner() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Arc::new(Authority::open_or_create(folder.path(), now).unwrap());
        let certificate = own(&authority, now);
        let first = certificate.fingerprint();
        certificate.look(now + 59 * DAY);
        assert_eq!(certificate.fingerprint(), first);
        certificate.look(now + 61 * DAY);
        let second = certificate.fingerprint();
        assert_ne!(second, first);
        assert!(certificate.not_after() > now + 150 * DAY);
        certificate.look(now + 62 * DAY);
        assert_eq!(certificate.fingerprint(), second);
        assert!(!certificate.reload(now).unwrap(), "there is nothing to read");

        // One that ends with its authority is not made again and again.
        let late = authority.not_after() - 2 * DAY;
        let last = own(&authority, late);
        assert_eq!(last.not_after(), authority.not_after());
        let shown = last.fingerprint();
        last.look(late + DAY);
        assert_eq!(last.fingerprint(), shown);
        assert!(last.seconds_left(authority.not_after() + DAY) < -86_000.0);
    }
}
