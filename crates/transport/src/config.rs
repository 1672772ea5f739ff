//! What rustls is told on either side.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use rustls::client::{Resumption, VerifierBuilderError};
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, pem};

use crate::certificate::{Serial, certificates};
use crate::fleet::FleetVerifier;
use crate::identity::Identity;
use crate::untrusted::NamingVerifier;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Which clients' certificates a server asks for.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Nobody's.
    Nobody,
    /// Those of the fleet's nodes.
    Fleet {
        /// The fleet's authority.
        authority: CertificateDer<'static>,
        /// Whether a client without a certificate is refused. One with a certificate that doesn't hold always is.
        required: bool,
        /// Certificates that are refused from their next handshake on.
        revoked: Arc<ArcSwap<BTreeSet<Serial>>>,
    },
}

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Roots {
    /// The system's authorities.
    System,
    /// These alone, in PEM.
    Pem(String),
    /// Nobody: for clients that speak without TLS, and must be told something all the same.
    Nobody,
}

/// Why no TLS can be spoken as asked.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The versions don't go with the provider.
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
    /// An authority's certificate that can't be one.
    #[error("an authority's certificate can't be used")]
    Root(#[source] rustls::Error),
    /// Text that isn't PEM.
    #[error("the authorities' certificates are malformed")]
    Pem(#[source] pem::Error),
    /// No authority at all.
    #[error("the authorities' file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoRoots,
    /// A system that trusts nobody.
    #[error("this system has no trusted authorities; name the one to trust")]
    NoSystemRoots,
    /// The authorities can't be used.
    #[error("the authorities can't be used")]
    Verifier(#[source] VerifierBuilderError),
}

/// What a server speaks, with this certificate, to these clients, with these protocols in the order of preference.
///
/// # Errors
/// An authority that can't be used.
pub fn server_config(
    identity: Arc<Identity>,
    clients: Clients,
    alpn: &[&[u8]],
) -> Result<ServerConfig, ConfigError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(ConfigError::Tls)?;
    let mut config = match clients {
        Clients::Nobody => builder.with_no_client_auth().with_cert_resolver(identity),
        Clients::Fleet {
            authority,
            required,
            revoked,
        } => {
            let verifier = FleetVerifier::new(authority, required, revoked)?;
            let mut config = builder
                .with_client_cert_verifier(Arc::new(verifier))
                .with_cert_resolver(identity);
            // A resumed session brings its client's certificate along without a new look at it.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// What a client speaks, trusting these authorities, with a certificate of its own where it has one.
///
/// # Errors
/// Authorities that can't be used, or none.
pub fn client_config(
    roots: Roots,
    identity: Option<Arc<Identity>>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, ConfigError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(ConfigError::Tls)?;
    let builder = match store(roots)? {
        Some(roots) => {
            let verifier = Arc::new(NamingVerifier::new(roots)?);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let mut config = builder.with_client_cert_resolver(identity);
            // Each connection shows the certificate that holds now.
            config.resumption = Resumption::disabled();
            config
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn store(roots: Roots) -> Result<Option<RootCertStore>, ConfigError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Nobody => return Ok(None),
        Roots::Pem(text) => {
            for certificate in certificates(&text).map_err(ConfigError::Pem)? {
                store.add(certificate).map_err(ConfigError::Root)?;
            }
            if store.is_empty() {
                return Err(ConfigError::NoRoots);
            }
        }
        Roots::System => {
            // Systems carry some that no library reads; one that is needed and missing shows as an unknown authority.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(ConfigError::NoSystemRoots);
            }
        }
    }
    Ok(Some(store))
}
