//! Changes, one at a time: durable first, then in memory.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Credentials, EnrolmentChange};
use crate::audit::AuditEntry;
use crate::store::{EnrolmentStore, StoreError};

/// Changes what is kept.
pub(super) struct Changes {
    store: Arc<dyn EnrolmentStore>,
    credentials: Arc<Credentials>,
    turns: Arc<Mutex<()>>,
}

/// One change's turn: what the change is based on is still so when it is made.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Changes {
    pub(super) fn new(store: Arc<dyn EnrolmentStore>, credentials: Arc<Credentials>) -> Self {
        Self {
            store,
            credentials,
            turns: Arc::default(),
        }
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> Turn {
        Turn {
            _guard: Arc::clone(&self.turns).lock_owned().await,
        }
    }

    /// Makes changes with their entries. Once begun it comes to its end, also where whoever asked for it goes away
    /// meanwhile: a revocation that is durable and not in memory would hold from the next start on only, and a use of a
    /// join token would not count until then.
    pub(super) async fn make(
        &self,
        turn: Turn,
        changes: Vec<EnrolmentChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        let (store, credentials) = (Arc::clone(&self.store), Arc::clone(&self.credentials));
        let making = tokio::spawn(async move {
            store.change_enrolment(changes.clone(), audit).await?;
            credentials.apply(changes);
            drop(turn);
            Ok(())
        });
        match making.await {
            Ok(made) => made,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use hotswap_core::ids::NodeId;
    use hotswap_core::time::WallTime;
    use tokio::sync::Notify;

    use super::super::EnrolmentRecords;
    use super::*;
    use crate::store::SqliteStore;

    /// A store that is slow to say that something is durable.
    struct Slow {
        store: SqliteStore,
        durable: Notify,
        go_on: Notify,
    }

    #[async_trait]
    impl EnrolmentStore for Slow {
        async fn load_enrolment(&self) -> Result<EnrolmentRecords, StoreError> {
            self.store.load_enrolment().await
        }

        async fn change_enrolment(
            &self,
            changes: Vec<EnrolmentChange>,
            audit: Vec<AuditEntry>,
        ) -> Result<(), StoreError> {
            self.store.change_enrolment(changes, audit).await?;
            self.durable.notify_one();
            self.go_on.notified().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_durable_change_is_in_memory_whoever_has_gone_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Slow {
            store: SqliteStore::open(dir.path()).unwrap(),
            durable: Notify::new(),
            go_on: Notify::new(),
        });
        let credentials = Arc::new(Credentials::new(EnrolmentRecords::default()));
        let mut revocations = credentials.watch();
        let changes = Changes::new(Arc::<Slow>::clone(&store), Arc::clone(&credentials));
        let node: NodeId = "node-1".parse().unwrap();
        let revoke = vec![EnrolmentChange::Revoke(node.clone(), WallTime(7))];
        let turn = changes.turn().await;
        let mut making = Box::pin(changes.make(turn, revoke, Vec::new()));
        tokio::select! {
            _ = &mut making => panic!("the store is slow"),
            () = store.durable.notified() => {}
        }
        drop(making);
        store.go_on.notify_one();
        // The next change waits for it.
        let _turn = changes.turn().await;
        assert!(revocations.has_changed().unwrap(), "the revocation is in memory");
        revocations.mark_unchanged();
        assert_eq!(
            store.load_enrolment().await.unwrap().revocations,
            [(node, WallTime(7))]
        );
    }
}
