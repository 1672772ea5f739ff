//! Which clients a server of the fleet lets in.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::Serial;
use crate::config::{ConfigError, provider};
use crate::node::peer_certificate;

/// Lets in the nodes of the fleet: by the authority, the certificate's validity, its name, and the revoked ones.
#[derive(Debug)]
pub(crate) struct FleetVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    revoked: Arc<ArcSwap<BTreeSet<Serial>>>,
}

impl FleetVerifier {
    pub(crate) fn new(
        authority: CertificateDer<'static>,
        required: bool,
        revoked: Arc<ArcSwap<BTreeSet<Serial>>>,
    ) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(ConfigError::Root)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
        let builder = if required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let chain = builder.build().map_err(ConfigError::Verifier)?;
        Ok(Self { chain, revoked })
    }
}

impl ClientCertVerifier for FleetVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let peer = peer_certificate(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))?;
        if self.revoked.load().contains(&peer.serial) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
