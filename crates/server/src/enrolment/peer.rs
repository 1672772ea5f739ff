//! Who is at the other end of an agent's connection.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::time::WallTime;
use hotswap_transport::{KeyId, Serial, peer_certificate};
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;

use super::refusal::{EXPIRED, REVOKED, Refusal};
use super::{Enrolment, wall_time};
use crate::clock::wall_now;

/// The longest sleep until an open connection's end is looked at again: wall clocks may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Anybody on this machine: the server takes agents without TLS.
    Plain,
    /// Somebody without a certificate, who may join.
    Anonymous,
    /// A node.
    Node(Arc<NodePeer>),
}

/// A node that showed its certificate.
#[derive(Debug)]
pub struct NodePeer {
    node: NodeId,
    environment: EnvName,
    key: KeyId,
    /// What the connection stands on: the certificate that it was opened with, or the newest that was granted over it.
    stands_on: RwLock<StandsOn>,
}

#[derive(Clone, Debug)]
struct StandsOn {
    serial: Serial,
    until: WallTime,
}

impl NodePeer {
    /// From a certificate that the handshake took; `None` where it names no node that could be of a fleet.
    pub fn new(der: &CertificateDer<'_>) -> Option<Self> {
        let peer = peer_certificate(der).ok()?;
        Some(Self {
            node: peer.identity.node.parse().ok()?,
            environment: peer.identity.environment.parse().ok()?,
            key: KeyId::of_certificate(der).ok()?,
            stands_on: RwLock::new(StandsOn {
                serial: peer.serial,
                until: wall_time(peer.not_after),
            }),
        })
    }

    /// The node that it may speak for.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Where it belonged when the certificate was issued.
    pub fn environment(&self) -> &EnvName {
        &self.environment
    }

    pub(super) fn serial(&self) -> Serial {
        self.stands_on.read().serial.clone()
    }

    pub(super) fn key(&self) -> &KeyId {
        &self.key
    }

    pub(super) fn valid_until(&self) -> WallTime {
        self.stands_on.read().until
    }

    pub(super) fn extend(&self, serial: Serial, until: WallTime) {
        *self.stands_on.write() = StandsOn { serial, until };
    }
}

impl Enrolment {
    /// Whether a node's certificate still holds.
    ///
    /// # Errors
    /// It was revoked, or has expired and was not renewed.
    pub fn check(&self, peer: &NodePeer) -> Result<(), Refusal> {
        self.credentials.stands(&peer.node, &peer.serial())?;
        if wall_now() >= peer.valid_until() {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// Returns once a node's certificate holds no longer, with what its session is told.
    pub async fn ended(&self, peer: &NodePeer) -> &'static str {
        let mut revocations = self.credentials.watch();
        loop {
            match self.check(peer) {
                Ok(()) => {}
                Err(Refusal::Expired) => return EXPIRED,
                Err(_) => return REVOKED,
            }
            let left = Duration::from_millis(peer.valid_until().since(wall_now()).0);
            tokio::select! {
                // The sender lives as long as this does.
                _ = revocations.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }
}
