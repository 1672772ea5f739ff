//! Who is at the other end of an agent's connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::time::WallTime;
use hotswap_transport::{KeyId, Serial, peer_certificate};
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
    serial: Serial,
    key: KeyId,
    /// Until when the connection's node has a certificate, in ms since 1970. A renewal moves it.
    valid_until_ms: AtomicU64,
}

impl NodePeer {
    /// From a certificate that the handshake took; `None` where it names no node that could be of a fleet.
    pub fn new(der: &CertificateDer<'_>) -> Option<Self> {
        let peer = peer_certificate(der).ok()?;
        Some(Self {
            node: peer.identity.node.parse().ok()?,
            environment: peer.identity.environment.parse().ok()?,
            serial: peer.serial,
            key: KeyId::of_certificate(der).ok()?,
            valid_until_ms: AtomicU64::new(wall_time(peer.not_after).0),
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

    pub(super) fn serial(&self) -> &Serial {
        &self.serial
    }

    pub(super) fn key(&self) -> &KeyId {
        &self.key
    }

    pub(super) fn valid_until(&self) -> WallTime {
        WallTime(self.valid_until_ms.load(Ordering::Relaxed))
    }

    pub(super) fn extend(&self, until: WallTime) {
        self.valid_until_ms.fetch_max(until.0, Ordering::Relaxed);
    }
}

impl Enrolment {
    /// Whether a node's certificate still holds.
    ///
    /// # Errors
    /// It was revoked, or has expired and was not renewed.
    pub fn check(&self, peer: &NodePeer) -> Result<(), Refusal> {
        self.credentials.stands(&peer.node, &peer.serial)?;
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
