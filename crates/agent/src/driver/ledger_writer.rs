//! One task that writes ledgers, in order, until each is durable.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::{Incarnation, NodeId};
use hotswap_core::reconcile::Ledger;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::work::Done;
use crate::disk::{Folder, LedgerError, LedgerFile, Record};

/// First and longest wait before a failed write is tried again: the disk may have room by then.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What every record of this process has in common.
#[derive(Clone)]
pub(crate) struct LedgerWriter {
    pub(crate) file: LedgerFile,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// Held until the last write has ended, so that no other agent takes the folder before.
    pub(crate) _folder: Arc<Folder>,
}

impl LedgerWriter {
    /// Makes a ledger durable, however often it takes, and says so.
    pub(super) async fn write(self, ledger: Ledger, done: mpsc::Sender<Done>) {
        let version = ledger.version;
        let mut wait = RETRY.0;
        loop {
            let (writer, copy) = (self.clone(), ledger.clone());
            match spawn_blocking(move || writer.write_once(copy)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::error!(%error, next_try_in = ?wait, "the ledger is not durable; what runs goes on");
                }
                Err(_) => return,
            }
            if done.is_closed() {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
        // A driver that is gone needs no answer.
        let _ = done.send(Done::Written { version }).await;
    }

    fn write_once(&self, ledger: Ledger) -> Result<(), LedgerError> {
        self.file.write(&Record {
            node: self.node.clone(),
            incarnation: self.incarnation,
            ledger,
        })
    }
}
