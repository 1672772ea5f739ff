//! Join tokens and nodes' certificates, as they are kept.

use std::collections::BTreeSet;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::time::WallTime;
use hotswap_transport::{KeyId, Serial};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::TokenDigest;

/// What lets nodes join an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its identity.
    pub id: Uuid,
    /// What its secret is known by.
    pub digest: TokenDigest,
    /// Where its nodes belong.
    pub environment: EnvName,
    /// Only nodes of such a name; a `*` stands for any characters.
    #[serde(default)]
    pub nodes: Option<String>,
    /// Nodes that were revoked since it was made: it lets them in no more, however often it may be used.
    #[serde(default)]
    pub barred: BTreeSet<NodeId>,
    /// How many nodes may join by it.
    pub uses_max: u32,
    /// How many have.
    #[serde(default)]
    pub uses: u32,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub created: WallTime,
    /// When it expires.
    pub expires: WallTime,
}

/// A certificate that a node was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// Its number.
    pub serial: Serial,
    /// Whose.
    pub node: NodeId,
    /// Where the node belonged when it was issued.
    pub environment: EnvName,
    /// The key that it is of.
    pub key: KeyId,
    /// The join token that it was given against; a renewal has none.
    pub token: Option<Uuid>,
    /// When it was issued.
    pub issued: WallTime,
    /// Until when it holds.
    pub expires: WallTime,
    /// Since when it is refused.
    pub revoked: Option<WallTime>,
}

impl NodeCertificate {
    /// Whether it is taken.
    pub fn is_live(&self, now: WallTime) -> bool {
        self.revoked.is_none() && now < self.expires
    }
}

/// All that is kept of it.
#[derive(Debug, Default)]
pub struct EnrolmentRecords {
    /// Join tokens.
    pub tokens: Vec<JoinToken>,
    /// Certificates that may still be shown.
    pub certificates: Vec<NodeCertificate>,
    /// Nodes whose certificates were revoked, and when.
    pub revocations: Vec<(NodeId, WallTime)>,
}

/// Where a certificate comes from. Whatever revoked that, while this one was on its way, revokes this one, too.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A join: it begins anew, unless its node was revoked since it was granted. By what was known then, not by the time:
    /// a clock that was ahead at the revocation would revoke all that comes after it, too.
    Join {
        /// The node's revocation that was known when it was granted.
        knowing: Option<WallTime>,
    },
    /// A renewal of another.
    Renewal(Serial),
    /// It was not in the records: good unless its node was ever revoked.
    Unrecorded,
}

/// One change of it.
#[derive(Clone, Debug)]
pub enum EnrolmentChange {
    /// A join token, new or used.
    PutToken(Box<JoinToken>),
    /// A join token is revoked, or forgotten.
    EndToken(Uuid),
    /// A certificate was issued, or seen for the first time.
    PutCertificate(Box<NodeCertificate>, Origin),
    /// All of a node's certificates are refused from now on.
    Revoke(NodeId, WallTime),
    /// Certificates that expired before are forgotten, and revocations of before the second time.
    Forget(WallTime, WallTime),
    /// The first answer to the request that the other changes are for.
    PutAnswer(crate::store::FirstAnswer),
}
