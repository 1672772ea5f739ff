//! TLS of the API: which certificate, and how it is kept up to date.

mod certificate;
mod names;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hotswap_transport::Authority;

use crate::enrolment::AUTHORITY_FOLDER;
use crate::server::StartError;

pub(crate) use certificate::refused;
pub use certificate::{ApiCertificate, CertificateError};

/// Longest handshake: a client on a slow line needs a second or two.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often certificates' files are looked at, and whether our own one is due.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

/// How the API is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// With which certificate, or without one.
    pub mode: TlsMode,
    /// Host names and addresses for a certificate of the fleet's authority, besides those that are found out.
    pub names: Vec<String>,
    /// How long a client may take for its handshake.
    pub handshake_timeout: Duration,
    /// How often the certificate is looked at.
    pub look_pause: Duration,
}

/// Whether, and with which certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain HTTP on loopback, [`TlsMode::Own`] elsewhere.
    #[default]
    Auto,
    /// A certificate of the fleet's own authority, renewed by itself.
    Own,
    /// Files in PEM, read anew when they change.
    Files {
        /// The certificate, and those that lead to its authority.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Plain HTTP.
    Off {
        /// Also where others can listen.
        beyond_loopback: bool,
    },
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            mode: TlsMode::default(),
            names: Vec::new(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            look_pause: LOOK_PAUSE,
        }
    }
}

/// Passwords and tokens would travel in the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API would speak plain HTTP at {addr}, where others can read passwords and tokens; leave TLS on, listen on \
     127.0.0.1, or allow it with --insecure-http where something in front of it speaks TLS"
)]
pub struct PlainBeyondLoopback {
    /// Where.
    pub addr: SocketAddr,
}

impl TlsConfig {
    /// What counts at this address.
    ///
    /// # Errors
    /// Plain HTTP where others can listen and nobody allowed it.
    pub(crate) fn at(&self, addr: SocketAddr) -> Result<&TlsMode, PlainBeyondLoopback> {
        const PLAIN: TlsMode = TlsMode::Off {
            beyond_loopback: false,
        };
        match &self.mode {
            TlsMode::Auto if addr.ip().is_loopback() => Ok(&PLAIN),
            TlsMode::Auto => Ok(&TlsMode::Own),
            TlsMode::Off { beyond_loopback } if !beyond_loopback && !addr.ip().is_loopback() => {
                Err(PlainBeyondLoopback { addr })
            }
            mode => Ok(mode),
        }
    }

    /// The certificate that the API shows there, where it speaks TLS. The data directory must be this process's alone.
    ///
    /// # Errors
    /// Those of [`TlsConfig::at`], or no certificate to be had.
    pub(crate) fn open(
        &self,
        listens: SocketAddr,
        data_dir: &Path,
    ) -> Result<Option<ApiCertificate>, StartError> {
        Ok(match self.at(listens)? {
            TlsMode::Auto | TlsMode::Off { .. } => None,
            TlsMode::Files { certificate, key } => Some(ApiCertificate::from_files(certificate, key)?),
            TlsMode::Own => {
                let (folder, now) = (data_dir.join(AUTHORITY_FOLDER), SystemTime::now());
                let authority = Authority::open_or_create(&folder, now).map_err(CertificateError::from)?;
                let authority = Arc::new(authority);
                let own = ApiCertificate::own(authority, &folder, listens.ip(), &self.names, now);
                Some(own?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_loopback_unless_it_is_allowed() {
        let at = |mode: TlsMode, addr: &str| {
            let config = TlsConfig {
                mode,
                ..TlsConfig::default()
            };
            config.at(addr.parse().unwrap()).cloned()
        };
        let off = |beyond_loopback| TlsMode::Off { beyond_loopback };
        for loopback in ["127.0.0.1:5000", "127.9.9.9:1", "[::1]:5000"] {
            assert_eq!(at(TlsMode::Auto, loopback), Ok(off(false)));
            assert_eq!(at(off(false), loopback), Ok(off(false)));
            assert_eq!(at(TlsMode::Own, loopback), Ok(TlsMode::Own));
        }
        for open in ["0.0.0.0:5000", "10.0.0.7:5000", "[::]:5000"] {
            assert_eq!(at(TlsMode::Auto, open), Ok(TlsMode::Own));
            let refused = at(off(false), open).unwrap_err().to_string();
            assert!(
                refused.contains(open) && refused.contains("--insecure-http"),
                "{refused}"
            );
            assert_eq!(at(off(true), open), Ok(off(true)));
        }
    }
}
