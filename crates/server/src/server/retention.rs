//! How long events are kept.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::time::Millis;
use tokio_util::sync::CancellationToken;

use crate::driver::World;
use crate::store::{EVENTS_FORGOTTEN_MAX, Store};

/// How often events are looked at that are older than they are kept, and how soon again where many are.
const FORGET_PAUSE: Duration = Duration::from_secs(600);
const FORGET_PAUSE_SHORT: Duration = Duration::from_millis(200);

/// Forgets events that are older than they are kept, from time to time.
pub(super) async fn forget_old_events(
    store: Arc<dyn Store>,
    world: Arc<World>,
    kept: Millis,
    shutdown: CancellationToken,
) {
    loop {
        let before = world.now().wall - kept;
        let pause = match store.forget_events(before).await {
            // More may be left: soon again, with commits in between.
            Ok(forgotten) if forgotten == EVENTS_FORGOTTEN_MAX => FORGET_PAUSE_SHORT,
            Ok(forgotten) => {
                tracing::debug!(forgotten, "old events are forgotten");
                FORGET_PAUSE
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old events could not be forgotten"
                );
                FORGET_PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
