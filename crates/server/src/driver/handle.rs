//! The driver from outside.

use std::sync::Arc;

use hotswap_core::command::Command;
use tokio::sync::{mpsc, oneshot};

use super::World;
use super::input::{Answerer, FleetInput, Origin, Submission};
use crate::store::{Answer, IdempotencyKey};

/// Why a command was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many commands wait.
    #[error("too many commands are waiting; try again in a moment")]
    Busy,
    /// The disk is full.
    #[error("the server's disk is full: it is read-only until there is room")]
    ReadOnly,
    /// The key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new key for a new request")]
    KeyReused,
    /// The driver has ended.
    #[error("the server is shutting down")]
    Stopped,
}

/// Feeds the driver. Clones feed the same one.
#[derive(Clone)]
pub struct Driver {
    pub(super) commands: mpsc::Sender<Submission>,
    pub(super) urgent: mpsc::Sender<Submission>,
    pub(super) fleet: mpsc::Sender<FleetInput>,
    pub(super) world: Arc<World>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Has a command decided; returns once its outcome is durable.
    ///
    /// # Errors
    /// It was not decided, for a reason that says when to try again.
    pub async fn submit(
        &self,
        origin: Origin,
        command: Command,
        idempotency: Option<IdempotencyKey>,
        answer: Answerer,
    ) -> Result<Answer, SubmitError> {
        let urgent = matches!(
            command,
            Command::Abort { .. } | Command::RollBack { .. } | Command::Pause { .. }
        );
        let lane = if urgent { &self.urgent } else { &self.commands };
        let (reply, answered) = oneshot::channel();
        lane.try_send(Submission {
            origin,
            command: Box::new(command),
            idempotency,
            answer,
            reply,
        })
        .map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
        })?;
        answered.await.map_err(|_| SubmitError::Stopped)?
    }

    /// Tells what a session says; waits while the driver is behind. `false`: the driver has ended.
    pub async fn tell(&self, input: FleetInput) -> bool {
        self.fleet.send(input).await.is_ok()
    }

    /// What may be seen.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }
}
