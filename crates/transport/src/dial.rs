//! A node's connection to its fleet's server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{ConfigError, provider};
use crate::join_token::AuthorityPin;

/// The name in the certificate of a fleet's server for its nodes. The authority is the fleet's alone, so that the name
/// says "the server of this fleet" wherever it is reached.
pub const FLEET_SERVER_NAME: &str = "server.hotswap.internal";
/// The protocol of the agents' port.
pub const FLEET_ALPN: &[&[u8]] = &[b"h2"];
/// Longest time for a handshake, and for the server's first words after it.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection to the fleet's server.
pub type FleetStream = TlsStream<TcpStream>;

/// What a client speaks that knows the server's authority by its certificate's SHA-256 only, as a join token tells it.
///
/// # Errors
/// TLS can't be set up.
pub fn pinned_client_config(authority: AuthorityPin, alpn: &[&[u8]]) -> Result<ClientConfig, ConfigError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(ConfigError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority(authority)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The server is of another authority than the one that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server is not of the authority that the join token names (SHA-256 {wanted}): it is another fleet's, or \
     somebody is in between"
)]
pub struct OtherAuthority {
    /// The one that is pinned.
    pub wanted: AuthorityPin,
}

/// Trusts what the pinned authority issued, which the server has to show along.
#[derive(Debug)]
struct PinnedAuthority(AuthorityPin);

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| AuthorityPin::of(certificate) == self.0)
            .ok_or_else(|| {
                let other = OtherAuthority { wanted: self.0 };
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(other))))
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Connects to the fleet's server. Returns once the server has spoken: in TLS 1.3 a client only then knows that its
/// certificate was taken, and a refusal would be lost under what it sends meanwhile.
///
/// # Errors
/// What the system or the handshake says; [`crate::refusal`] finds the server's reason in it.
pub async fn dial(config: &Arc<ClientConfig>, host: &str, port: u16) -> io::Result<FleetStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(FLEET_SERVER_NAME).map_err(io::Error::other)?;
    let handshake = async {
        let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        if stream.fill_buf().await?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection without a word",
            ));
        }
        Ok(stream)
    };
    timeout(HANDSHAKE_TIME_MAX, handshake).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the server did not speak TLS within {HANDSHAKE_TIME_MAX:?}"),
        ))
    })
}
