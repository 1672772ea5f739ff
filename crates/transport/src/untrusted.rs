//! Servers whose certificate a client doesn't trust, and how it says so.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, InvalidMessage, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Fingerprint;
use crate::config::{ConfigError, provider};

/// Errors in each other that are looked through.
const CAUSES_MAX: usize = 16;

/// A server showed a certificate that isn't trusted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the certificate of {server} is not trusted: {}; its SHA-256 fingerprint is {fingerprint}",
    because(cause)
)]
pub struct UntrustedServer {
    /// Whom the client asked for.
    pub server: String,
    /// Of the server's certificate.
    pub fingerprint: Fingerprint,
    /// Of the last certificate that the server showed, where that is another: usually its authority's.
    pub authority: Option<Fingerprint>,
    /// Why.
    pub cause: CertificateError,
}

impl UntrustedServer {
    /// Whether nothing is wrong with it except that nobody who is trusted issued it.
    pub fn unknown_authority(&self) -> bool {
        matches!(self.cause, CertificateError::UnknownIssuer)
    }
}

fn because(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => "it was issued by an authority that isn't known here".to_owned(),
        CertificateError::Other(OtherError(other)) => other.to_string(),
        other => other.to_string(),
    }
}

/// Finds an untrusted certificate among an error's causes.
pub fn untrusted<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a UntrustedServer> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether an error came of an answer that isn't TLS, such as a plain server's.
pub fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType))
        )
    })
}

/// An error and what it came of.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error)).take(CAUSES_MAX)
}

fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Error>()) {
        // Its source is that of what it holds, not what it holds.
        (Some(io), _) => io.get_ref().map(|held| held as &(dyn StdError + 'static)),
        (_, Some(Error::InvalidCertificate(CertificateError::Other(other)))) => Some(other.0.as_ref()),
        _ => error.source(),
    }
}

/// The usual checks, with errors that say which certificate failed them.
#[derive(Debug)]
pub(crate) struct NamingVerifier(Arc<WebPkiServerVerifier>);

impl NamingVerifier {
    pub(crate) fn new(roots: RootCertStore) -> Result<Self, ConfigError> {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()))
            .build()
            .map(Self)
            .map_err(ConfigError::Verifier)
    }
}

impl ServerCertVerifier for NamingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                Error::InvalidCertificate(cause) => {
                    let untrusted = UntrustedServer {
                        server: server_name.to_str().into_owned(),
                        fingerprint: Fingerprint::of(end_entity),
                        authority: intermediates.last().map(Fingerprint::of),
                        cause,
                    };
                    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted))))
                }
                other => other,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
