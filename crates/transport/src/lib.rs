//! TLS for both sides: the fleet's own authority, certificates that are exchanged while connections go on, and the
//! configurations that server, nodes and clients use.
//!
//! Cryptography is `ring`'s through rustls, always passed explicitly. TLS 1.3, and 1.2 with ECDHE and authenticated
//! ciphers. No clock, except the one that rustls asks in a handshake.

mod authority;
mod certificate;
mod config;
mod files;
mod fleet;
mod identity;
mod node;
mod request;
mod untrusted;

pub use authority::{Authority, AuthorityError, CERTIFICATE_FILE, Issued};
pub use certificate::{Fingerprint, InvalidCertificate, InvalidSerial, Serial, certificates, not_after};
pub use config::{Clients, ConfigError, Roots, client_config, server_config};
pub use files::write_secret;
pub use identity::{Identity, IdentityError};
pub use node::{InvalidNodeIdentity, NodeIdentity, PeerCertificate, peer_certificate};
pub use request::{InvalidRequest, REQUEST_BYTES_MAX, Request, request};
pub use rustls;
pub use untrusted::{UntrustedServer, speaks_no_tls, untrusted};
