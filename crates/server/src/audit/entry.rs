//! An entry, and the chain.

use std::net::IpAddr;

use hotswap_core::ids::DeploymentId;
use hotswap_core::time::WallTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Most entries of a page.
pub const PAGE_MAX: usize = 1_000;
/// What the first entry's hash builds on.
pub const GENESIS: [u8; 32] = [0; 32];
/// Longest detail, in characters: what was done, not all that was sent.
const DETAIL_LEN_MAX: usize = 500;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditKind {
    /// The server itself.
    Server,
    /// An event of the log: a transition.
    Event,
    /// A command, taken or refused.
    Command,
    /// A login, good or bad; a refresh; a logout.
    Login,
    /// A request that was not let through.
    Denial,
    /// A user made or changed.
    Account,
    /// An API token made or revoked.
    Token,
    /// A signing key made, rotated or forgotten.
    Key,
    /// A node that joined, renewed its certificate, or lost it.
    Node,
}

impl AuditKind {
    /// All of them, by name.
    pub const NAMES: [&'static str; 9] = [
        "server", "event", "command", "login", "denial", "account", "token", "key", "node",
    ];
}

/// One thing that was done, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When, in ms since 1970.
    pub at: WallTime,
    /// What it is about.
    pub kind: AuditKind,
    /// What was done.
    pub action: String,
    /// Who did it: a username. Absent where nobody is known, or where the server decided by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The API token that spoke for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `done`, or the code of the refusal.
    pub outcome: String,
    /// More, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The deployment that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// The request's W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The event's number in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// The event's digest, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl AuditEntry {
    /// Something that was done.
    pub fn done(at: WallTime, kind: AuditKind, action: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            action: action.into(),
            actor: None,
            token: None,
            outcome: "done".to_owned(),
            detail: String::new(),
            deployment: None,
            trace_id: None,
            address: None,
            event: None,
            digest: None,
        }
    }

    /// By somebody.
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// With another outcome than `done`.
    pub fn outcome(mut self, outcome: impl Into<String>) -> Self {
        self.outcome = outcome.into();
        self
    }

    /// With more, for people; what is too long is cut.
    pub fn detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = detail.as_ref().chars().take(DETAIL_LEN_MAX).collect();
        self
    }
}

/// An entry with its number, as the log holds it.
#[derive(Serialize, Deserialize)]
struct Numbered<E> {
    seq: u64,
    #[serde(flatten)]
    entry: E,
}

/// The text of an entry: what is hashed.
///
/// # Errors
/// None that could happen to plain data.
pub fn record_of(seq: u64, entry: &AuditEntry) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Numbered { seq, entry })
}

/// An entry and its number from its text.
pub(super) fn read_record(record: &[u8]) -> Option<(u64, AuditEntry)> {
    let numbered: Numbered<AuditEntry> = serde_json::from_slice(record).ok()?;
    Some((numbered.seq, numbered.entry))
}

/// The hash of an entry, from that of the one before and its own text.
pub fn hash_of(former: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(former);
    hasher.update(record);
    hasher.finalize().into()
}

/// The chain's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry's number; 0: there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Which entries are asked for: newest first, before the cursor.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only by this user.
    pub actor: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// Only about this deployment.
    pub deployment: Option<DeploymentId>,
    /// Only from this time on.
    pub from: Option<WallTime>,
    /// Only before this time.
    pub to: Option<WallTime>,
    /// Only before this number.
    pub before: Option<u64>,
    /// At most so many, bounded by [`PAGE_MAX`].
    pub limit: usize,
}

/// An entry in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number.
    pub seq: u64,
    /// The entry; `None` where its text can't be read any more.
    pub entry: Option<AuditEntry>,
    /// Its hash.
    pub hash: Vec<u8>,
}

impl AuditRow {
    /// From what is stored.
    pub fn new(seq: u64, record: &[u8], hash: Vec<u8>) -> Self {
        Self {
            seq,
            entry: read_record(record).map(|(_, entry)| entry),
            hash,
        }
    }
}
