//! Which nodes are let in: join tokens, certificates by the fleet's own authority, and their revocation.
//!
//! A node joins once, against a token, and renews its certificate over its own connection from then on. All that is
//! kept of it is in records beside the log, changed in one transaction with their entry in the audit log, durable
//! before a certificate is given out or a revocation is acknowledged; and in memory, so that nobody is let in by a query.

mod admin;
mod changes;
mod credentials;
mod join;
mod maintain;
mod model;
mod peer;
mod refusal;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use hotswap_core::time::{Millis, WallTime};
use hotswap_transport::{Authority, Serial};

use crate::driver::World;
use crate::store::EnrolmentStore;

use changes::Changes;

pub use admin::{
    IssuedJoinToken, JOIN_TOKEN_LIFETIME_DEFAULT, JOIN_TOKEN_LIFETIME_MAX, JOIN_TOKEN_USES_MAX,
    JOIN_TOKENS_MAX, NewJoinToken, check_pattern,
};
pub use credentials::Credentials;
pub use join::Grant;
pub use maintain::maintain;
pub use model::{EnrolmentChange, EnrolmentRecords, JoinToken, NodeCertificate, Origin};
pub use peer::{NodePeer, Peer};
pub use refusal::Refusal;
pub(crate) use refusal::{EXPIRED, REVOKED};

/// The authority's folder in the data directory.
pub const AUTHORITY_FOLDER: &str = "ca";
/// How long a node's certificate holds unless the configuration says otherwise.
pub const NODE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// The shortest and the longest that it may say.
pub const NODE_CERTIFICATE_LIFETIMES: (Duration, Duration) =
    (Duration::from_secs(2), Duration::from_secs(90 * 86_400));
/// Certificates of one node that hold at once: one that renews without end is told to stop.
pub const CERTIFICATES_PER_NODE_MAX: usize = 16;

/// Lets nodes in.
pub struct Enrolment {
    authority: Arc<Authority>,
    credentials: Arc<Credentials>,
    changes: Changes,
    world: Arc<World>,
    lifetime: Duration,
    counts: Counts,
}

/// What happened since this process started.
#[derive(Debug, Default)]
pub struct Counts {
    joins: AtomicU64,
    renewals: AtomicU64,
    revocations: AtomicU64,
    refusals: AtomicU64,
}

impl Counts {
    /// Each with its name.
    pub fn all(&self) -> [(&'static str, u64); 4] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("joined", read(&self.joins)),
            ("renewed", read(&self.renewals)),
            ("revoked", read(&self.revocations)),
            ("refused", read(&self.refusals)),
        ]
    }

    /// A node was not let in.
    pub(crate) fn refused(&self) {
        count(&self.refusals);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Enrolment {
    /// With an authority, and what is known of nodes by now.
    pub fn new(
        authority: Arc<Authority>,
        store: Arc<dyn EnrolmentStore>,
        credentials: Arc<Credentials>,
        world: Arc<World>,
        lifetime: Duration,
    ) -> Self {
        Self {
            authority,
            changes: Changes::new(store, Arc::clone(&credentials)),
            credentials,
            world,
            lifetime,
            counts: Counts::default(),
        }
    }

    /// The fleet's authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Join tokens and certificates.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// The serials that handshakes refuse.
    pub(crate) fn revoked(&self) -> Arc<ArcSwap<BTreeSet<Serial>>> {
        self.credentials.revoked()
    }

    /// What happened since this process started.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Wall time as the system counts it.
fn system_time(at: WallTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0)
}

/// The system's time as the server counts it.
fn wall_time(at: SystemTime) -> WallTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// When a certificate is to be renewed: at two thirds of its life, so that a third is left for tries.
fn renew_in(certificate: &NodeCertificate, now: WallTime) -> Millis {
    let life = certificate.expires.since(certificate.issued);
    let due = certificate.issued + Millis(life.0 / 3 * 2);
    due.since(now)
}
