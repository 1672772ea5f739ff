//! Forgetting what can't matter any more.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::time::Millis;
use tokio_util::sync::CancellationToken;

use super::{Enrolment, EnrolmentChange, NODE_CERTIFICATE_LIFETIMES};
use crate::clock::{millis, wall_now};
use crate::store::StoreError;

/// How often.
const PAUSE: Duration = Duration::from_secs(600);
/// Certificates that have expired are shown for so long.
const EXPIRED_KEPT: Millis = Millis::from_secs(7 * 86_400);
/// Join tokens that have expired are told from unknown ones for so long.
const TOKENS_KEPT: Millis = Millis::from_secs(86_400);

/// How far the clock may be ahead of the end of the newest certificate.
const AHEAD_MAX: Millis = Millis::from_secs(86_400);

/// Forgets expired tokens and certificates until the shutdown.
pub async fn maintain(enrolment: Arc<Enrolment>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = enrolment.forget().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "expired join tokens and certificates are not forgotten; tried again later"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

impl Enrolment {
    async fn forget(&self) -> Result<(), StoreError> {
        let turn = self.changes.turn().await;
        let now = wall_now();
        // Nodes renew before their certificates end: a clock that is further ahead than that is wrong, and what it would
        // have forgotten is missed once it is set right.
        let newest = self.credentials.newest_issued();
        if newest.is_some_and(|newest| newest + millis(self.lifetime) + AHEAD_MAX <= now) {
            tracing::debug!("the clock is far ahead of the newest certificate: nothing is forgotten");
            return Ok(());
        }
        let tokens = self.credentials.tokens();
        let over = tokens.iter().filter(|token| token.expires + TOKENS_KEPT <= now);
        let mut changes: Vec<_> = over.map(|token| EnrolmentChange::EndToken(token.id)).collect();
        // No certificate of before a revocation lives longer.
        let longest = millis(NODE_CERTIFICATE_LIFETIMES.1);
        changes.push(EnrolmentChange::Forget(now - EXPIRED_KEPT, now - longest));
        self.changes.make(turn, changes, Vec::new()).await
    }
}
