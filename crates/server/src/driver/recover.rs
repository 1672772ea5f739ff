//! From the disk to a State that goes on.

use hotswap_core::apply::apply;
use hotswap_core::state::State;

use crate::store::{Leadership, Store, StoreError};

/// Why the log could not be folded.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log ends before its head.
    #[error(
        "the log ends at event {last}, and its head says that {next} comes next; restore it from a backup"
    )]
    Torn {
        /// The last event.
        last: u64,
        /// What the head says.
        next: u64,
    },
}

/// Takes the lead, so that nobody else appends, and folds the log: the newest snapshot, and the tail after it.
pub(super) async fn recover(store: &dyn Store) -> Result<(State, Leadership), RecoverError> {
    let leadership = store.lead().await?;
    let mut state = store.snapshot().await?.unwrap_or_default();
    let snapshot = state.seq;
    loop {
        let events = store.events_after(state.seq).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            apply(&mut state, event);
        }
    }
    if state.seq + 1 != leadership.next_seq {
        return Err(RecoverError::Torn {
            last: state.seq,
            next: leadership.next_seq,
        });
    }
    tracing::info!(seq = state.seq, snapshot, epoch = leadership.epoch, "recovered");
    Ok((state, leadership))
}
