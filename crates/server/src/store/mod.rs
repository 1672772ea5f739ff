//! The event log and what is made of it, durable.
//!
//! One batch is one transaction: events, read tables and first answers, or none of them. The append is fenced: it
//! takes its numbers from the log's head only while the head still carries the writer's epoch.

mod access;
mod audit;
mod enrolment;
mod error;
mod reader;
mod schema;
mod sqlite;
mod writer;

use async_trait::async_trait;
use hotswap_core::event::Logged;
use hotswap_core::ids::{DeploymentId, EnvName, ModuleName};
use hotswap_core::stage::{Deployment, DeploymentStatus};
use hotswap_core::state::State;
use hotswap_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEntry, AuditQuery, AuditRow, Head, Report};
use crate::enrolment::{EnrolmentChange, EnrolmentRecords};

pub use access::{AccessChange, AccessRecords, SignedHead};
pub use error::StoreError;
pub(crate) use sqlite::LOCK_FILE;
pub use sqlite::{DATABASE_FILE, SqliteStore};
pub(crate) use writer::{signed, unsigned};

/// Most events that one read returns.
pub const EVENTS_READ_MAX: usize = 10_000;
/// Most events that are forgotten at once, so that commits wait for some milliseconds only.
pub const EVENTS_FORGOTTEN_MAX: usize = 2_000;
/// Most deployments of one page.
pub const DEPLOYMENTS_PAGE_MAX: usize = 1_000;

/// A leadership: what its appends are fenced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Its epoch; they only grow.
    pub epoch: u64,
    /// The number that its first event gets.
    pub next_seq: u64,
}

/// An event with the deployment whose decisions it belongs to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event.
    pub logged: Logged,
    /// Whose it is, where it is about a deployment.
    pub deployment: Option<DeploymentId>,
}

/// What becomes durable together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The writer's epoch: the append fails once the head carries another.
    pub epoch: u64,
    /// The head's epoch after the batch: larger where a fleet was adopted, else the same.
    pub epoch_after: u64,
    /// Events, numbered without gaps.
    pub events: Vec<Entry>,
    /// Deployments that the events changed, as they stand after them.
    pub deployments: Vec<Deployment>,
    /// Deployments that were undone after State had forgotten them.
    pub undone: Vec<DeploymentId>,
    /// First answers.
    pub answers: Vec<FirstAnswer>,
    /// Audit entries besides those of the events.
    pub audit: Vec<AuditEntry>,
    /// First answers older than this are forgotten with this batch.
    pub forget_answers_before: Option<WallTime>,
}

/// Which request an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdempotencyKey {
    /// Who asked, and for what.
    pub scope: String,
    /// The request's `Idempotency-Key`.
    pub key: String,
    /// Digest of the request's body: another body under the same key is a mistake.
    pub fingerprint: String,
}

/// The first answer to a request, kept for its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// Whose.
    pub key: IdempotencyKey,
    /// When it was given.
    pub wall: WallTime,
    /// The answer.
    pub answer: Answer,
}

/// An answer to a command, as HTTP gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The JSON body.
    pub body: serde_json::Value,
}

/// Which deployments are asked for: newest first, after the cursor.
#[derive(Clone, Debug, Default)]
pub struct DeploymentQuery {
    /// Only with this status.
    pub status: Option<DeploymentStatus>,
    /// Only of this module.
    pub module: Option<ModuleName>,
    /// Only with this target.
    pub environment: Option<EnvName>,
    /// Only older than this place.
    pub before: Option<u64>,
    /// At most so many, bounded by [`DEPLOYMENTS_PAGE_MAX`].
    pub limit: usize,
}

/// A deployment in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    /// Its place.
    pub order: u64,
    /// Its identity.
    pub id: DeploymentId,
    /// The module.
    pub module: String,
    /// The version, empty for an unloading.
    pub version: String,
    /// Its target.
    pub environment: String,
    /// How it stands.
    pub status: DeploymentStatus,
    /// When it was asked for.
    pub started: WallTime,
    /// When it ended.
    pub ended: Option<WallTime>,
}

/// Which events are asked for, in order.
#[derive(Clone, Copy, Debug)]
pub struct FeedQuery {
    /// Only after this number.
    pub after: u64,
    /// Only of this deployment.
    pub deployment: Option<DeploymentId>,
    /// At most so many, bounded by [`EVENTS_READ_MAX`].
    pub limit: usize,
}

/// An event with what it is about.
#[derive(Clone, Debug)]
pub struct FeedEntry {
    /// The event.
    pub logged: Logged,
    /// The deployment whose decisions it belongs to.
    pub deployment: Option<DeploymentId>,
    /// That deployment's module.
    pub module: Option<String>,
    /// That deployment's version.
    pub version: Option<String>,
    /// That deployment's target.
    pub target: Option<String>,
}

/// What keeps the log. One writer, many readers; reads see what is committed.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes the lead: raises the epoch, so that every earlier writer is fenced.
    async fn lead(&self) -> Result<Leadership, StoreError>;

    /// The newest snapshot that this version understands.
    async fn snapshot(&self) -> Result<Option<State>, StoreError>;

    /// Events after a number, in order, at most [`EVENTS_READ_MAX`].
    ///
    /// # Errors
    /// Also where a number is missing, and where an event is of a kind that this version doesn't know.
    async fn events_after(&self, seq: u64) -> Result<Vec<Logged>, StoreError>;

    /// Events after a number, in order, at most [`EVENTS_READ_MAX`], each with the deployment that it is about.
    async fn entries_after(&self, seq: u64) -> Result<Vec<Entry>, StoreError>;

    /// Makes a batch durable.
    ///
    /// # Errors
    /// [`StoreError::Full`] leaves everything as it was, and later batches may succeed. After any other error
    /// nothing is known, and the process must start anew.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Keeps a snapshot and forgets all but the newest two. Losing one costs time, not data.
    async fn keep_snapshot(&self, state: State) -> Result<(), StoreError>;

    /// Forgets the oldest events up to a time: at most [`EVENTS_FORGOTTEN_MAX`], never one that the oldest kept snapshot
    /// doesn't hold, nor one of a deployment that isn't finished. What is left has no gaps. Deployments' records, the read
    /// tables and first answers stay. Returns how many were forgotten.
    async fn forget_events(&self, before: WallTime) -> Result<usize, StoreError>;

    /// A deployment, finished long ago or not.
    async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError>;

    /// A page of deployments.
    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRow>, StoreError>;

    /// The events of a deployment after a number, in order, at most [`EVENTS_READ_MAX`].
    async fn events_of(&self, id: DeploymentId, after: u64) -> Result<Vec<Logged>, StoreError>;

    /// Events with what they are about, in order. Numbers may be missing where the log was compacted.
    async fn feed(&self, query: FeedQuery) -> Result<Vec<FeedEntry>, StoreError>;

    /// The first answer under a key, if there is one: the request's fingerprint, and the answer.
    async fn first_answer(&self, scope: String, key: String) -> Result<Option<FirstAnswer>, StoreError>;
}

/// What keeps users, their sessions and tokens, the signing keys, and the audit log.
#[async_trait]
pub trait AccessStore: Send + Sync + 'static {
    /// All of it but the audit log: it fits into memory by its limits.
    async fn load_access(&self) -> Result<AccessRecords, StoreError>;

    /// Makes changes durable together with their audit entries, or none of them.
    async fn change_access(
        &self,
        changes: Vec<AccessChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError>;

    /// A page of the audit log.
    async fn audit_page(&self, query: AuditQuery) -> Result<Vec<AuditRow>, StoreError>;

    /// The audit log's end.
    async fn audit_head(&self) -> Result<Head, StoreError>;

    /// Keeps a signed head.
    async fn keep_audit_head(&self, head: SignedHead) -> Result<(), StoreError>;

    /// Verifies the whole audit log; takes time in proportion.
    async fn verify_audit(&self) -> Result<Report, StoreError>;
}

/// What keeps join tokens, nodes' certificates, and revocations. The removal of a node revokes its certificates in the
/// removal's own transaction.
#[async_trait]
pub trait EnrolmentStore: Send + Sync + 'static {
    /// All of it: it fits into memory by its limits.
    async fn load_enrolment(&self) -> Result<EnrolmentRecords, StoreError>;

    /// Makes changes durable together with their audit entries, or none of them.
    async fn change_enrolment(
        &self,
        changes: Vec<EnrolmentChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError>;
}
