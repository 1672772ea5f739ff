//! Reading the log as it grows, off the path of what writes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::World;
use crate::store::{Entry, Store};

/// How long to rest after the store could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where a reader of the log stands.
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    committed: watch::Receiver<u64>,
    shutdown: CancellationToken,
    /// Everything up to this was read.
    at: u64,
}

impl Follower {
    /// Reads what comes after an event.
    pub(crate) fn after(
        at: u64,
        store: &Arc<dyn Store>,
        world: &World,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            committed: world.subscribe(),
            shutdown: shutdown.clone(),
            at,
        }
    }

    /// The next entries, in order, once there are any. `None`: the server ends.
    pub(crate) async fn next(&mut self) -> Option<Vec<Entry>> {
        loop {
            let (at, committed) = (self.at, &mut self.committed);
            let grown = async { committed.wait_for(|committed| *committed > at).await.is_ok() };
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                goes_on = grown => if !goes_on { return None },
            }
            match self.store.entries_after(at).await {
                Ok(entries) => {
                    if let Some(last) = entries.last() {
                        self.at = last.logged.seq;
                        return Some(entries);
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the log can't be read; trying again"
                    );
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
}
