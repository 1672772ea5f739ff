//! Whose word counts on a connection, and what becomes of the others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hotswap_core::report::NodeReport;
use hotswap_transport::{self as transport, certificate_refused};
use tonic::Status;

use super::telling::Tell;
use super::{Caller, Fleet};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::wall_now;
use crate::driver::World;
use crate::enrolment::{EXPIRED, NodePeer, Peer, REVOKED, Refusal};

impl Fleet {
    /// The node whose certificate a connection has; `None` where the server takes agents without TLS.
    pub(super) fn node_of(&self, caller: &Caller) -> Result<Option<Arc<NodePeer>>, Refusal> {
        match &caller.peer {
            Peer::Plain => Ok(None),
            Peer::Anonymous => Err(Refusal::CertificateRequired),
            Peer::Node(peer) => {
                self.enrolment.check(peer)?;
                Ok(Some(Arc::clone(peer)))
            }
        }
    }

    /// A connection that came to no session: whose certificate was not taken is in the audit log.
    pub fn handshake_failed(&self, address: SocketAddr, error: &io::Error) {
        let Some(refusal) = certificate_refused(error) else {
            tracing::debug!(%address, %error, "an agent's handshake failed");
            return;
        };
        let (code, why) = match refusal {
            transport::Refusal::Revoked => ("certificate_revoked", REVOKED),
            transport::Refusal::Expired => ("certificate_expired", EXPIRED),
            transport::Refusal::OtherAuthority => (
                "other_authority",
                "the certificate is not by this fleet's authority: the node is another fleet's",
            ),
            _ => (
                "certificate_refused",
                "the certificate is not a node's of this fleet",
            ),
        };
        self.enrolment.counts().refused();
        let said = AuditEntry::done(wall_now(), AuditKind::Denial, "connect");
        let said = AuditEntry {
            address: Some(address.ip()),
            ..said
        };
        self.access.note(said.outcome(code).detail(why));
        self.tell(address, code, why);
    }

    /// Puts a refusal into the log, unless it is one of a flood.
    fn tell(&self, address: SocketAddr, code: &str, why: &str) {
        let tell = self.telling.next(Instant::now());
        if tell == Tell::Nothing {
            tracing::debug!(%address, code, "{why}");
            return;
        }
        tracing::warn!(%address, code, "{why}");
        if tell == Tell::ItAsTheLast {
            tracing::warn!(
                "many are refused: for the rest of this minute only the audit log and the metrics count them"
            );
        }
    }

    /// A refusal, in the audit log and as its caller gets it.
    pub(super) fn refuse(&self, action: &str, caller: &Caller, refusal: Refusal) -> Status {
        self.enrolment.counts().refused();
        let node = match &caller.peer {
            Peer::Node(peer) => format!("node {}: ", peer.node()),
            Peer::Plain | Peer::Anonymous => String::new(),
        };
        let said = AuditEntry::done(wall_now(), AuditKind::Denial, action);
        let said = AuditEntry {
            address: Some(caller.address.ip()),
            ..said
        };
        self.access
            .note(said.outcome(refusal.code()).detail(format!("{node}{refusal}")));
        self.tell(caller.address, refusal.code(), &format!("{node}{refusal}"));
        refusal.into()
    }
}

/// What of a node's own word is its certificate's to say.
pub(super) fn speaks_for(world: &World, peer: &NodePeer, report: &NodeReport) -> Result<(), Refusal> {
    if *peer.node() != report.node {
        return Err(Refusal::OtherNode {
            certified: peer.node().to_string(),
            claimed: report.node.clone(),
        });
    }
    let Some(hello) = &report.hello else {
        return Ok(());
    };
    // The server's record of a node that is known wins over both.
    let known = world.state().nodes.contains_key(&report.node);
    if !known && hello.environment != *peer.environment() {
        return Err(Refusal::OtherEnvironment {
            certified: peer.environment().to_string(),
            claimed: hello.environment.clone(),
        });
    }
    Ok(())
}
