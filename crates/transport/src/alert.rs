//! Why the other side did not take a handshake.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use crate::dial::OtherAuthority;

/// Errors in each other that are looked through.
const CAUSES_MAX: usize = 16;

/// Why a handshake between a node and its server came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server doesn't take this certificate any more: it was revoked.
    Revoked,
    /// The server says that this certificate has expired.
    Expired,
    /// The server knows another authority than this certificate's.
    OtherAuthority,
    /// The server takes no connection without a certificate.
    Required,
    /// The server doesn't take this certificate, and doesn't say why.
    Refused,
    /// The server isn't of the authority that this side trusts.
    Untrusted,
}

/// Finds the reason among an error's causes; `None`: the handshake failed otherwise, or it wasn't one.
pub fn refusal(error: &(dyn StdError + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let error = next?;
        if error.is::<OtherAuthority>() {
            return Some(Refusal::Untrusted);
        }
        next = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Error>()) {
            // Its source is that of what it holds, not what it holds.
            (Some(io), _) => io.get_ref().map(|held| held as &(dyn StdError + 'static)),
            (_, Some(Error::AlertReceived(alert))) => return of_alert(*alert),
            (_, Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other))))) => {
                return if other.is::<OtherAuthority>() || crate::untrusted(other.as_ref()).is_some() {
                    Some(Refusal::Untrusted)
                } else {
                    None
                };
            }
            (_, Some(Error::InvalidCertificate(_))) => return Some(Refusal::Untrusted),
            _ => error.source(),
        };
    }
    None
}

fn of_alert(alert: AlertDescription) -> Option<Refusal> {
    Some(match alert {
        AlertDescription::CertificateRevoked => Refusal::Revoked,
        AlertDescription::CertificateExpired => Refusal::Expired,
        AlertDescription::UnknownCA => Refusal::OtherAuthority,
        AlertDescription::CertificateRequired => Refusal::Required,
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate => Refusal::Refused,
        _ => return None,
    })
}

/// Why a server did not take a client's certificate, found among a handshake's errors on the server's side; `None`: it
/// came to nothing otherwise.
pub fn certificate_refused(error: &(dyn StdError + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let error = next?;
        next = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Error>()) {
            (Some(io), _) => io.get_ref().map(|held| held as &(dyn StdError + 'static)),
            (_, Some(Error::InvalidCertificate(why))) => {
                return Some(match why {
                    CertificateError::Revoked => Refusal::Revoked,
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
                    CertificateError::UnknownIssuer
                    | CertificateError::BadSignature
                    | CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
                        Refusal::OtherAuthority
                    }
                    _ => Refusal::Refused,
                });
            }
            (_, Some(Error::NoCertificatesPresented)) => return Some(Refusal::Required),
            _ => error.source(),
        };
    }
    None
}
