//! TLS for both sides: the fleet's own authority, certificates that are exchanged while connections go on, and the
//! configurations that server, nodes and clients use.
//!
//! Cryptography is `ring`'s through rustls, always passed explicitly. TLS 1.3, and 1.2 with ECDHE and authenticated
//! ciphers. No clock, except the one that rustls asks in a handshake.

mod alert;
mod authority;
mod certificate;
mod config;
mod dial;
mod files;
mod fleet;
mod identity;
mod join_token;
mod node;
mod node_key;
mod request;
mod untrusted;

pub use alert::{Refusal, certificate_refused, refusal};
pub use authority::{Authority, AuthorityError, CERTIFICATE_FILE, Issued};
pub use certificate::{Fingerprint, InvalidCertificate, InvalidSerial, Serial, certificates, not_after};
pub use config::{Clients, ConfigError, Roots, client_config, server_config};
pub use dial::{FLEET_ALPN, FLEET_SERVER_NAME, FleetStream, OtherAuthority, dial, pinned_client_config};
pub use files::write_secret;
pub use identity::{Identity, IdentityError};
pub use join_token::{AuthorityPin, InvalidJoinToken, JOIN_TOKEN_BYTES_MAX, JOIN_TOKEN_PREFIX, JoinToken};
pub use node::{InvalidNodeIdentity, NodeIdentity, PeerCertificate, peer_certificate};
pub use node_key::{KeyId, request_with};
pub use request::{InvalidRequest, REQUEST_BYTES_MAX, Request, request};
pub use rustls::{self, ClientConfig};
pub use untrusted::{UntrustedServer, speaks_no_tls, untrusted};
