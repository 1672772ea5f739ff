//! What the driver is fed.

use std::sync::Arc;

use hotswap_core::command::{Command, Refusal};
use hotswap_core::decide::Reply;
use hotswap_core::ids::NodeId;
use hotswap_core::report::NodeReport;
use hotswap_core::state::State;
use hotswap_core::time::Now;
use tokio::sync::oneshot;

use super::handle::SubmitError;
use crate::fleet::{Outbox, SessionId};
use crate::store::{Answer, IdempotencyKey};

/// Commands that wait for the driver. Beyond it a caller is told to come back: at 500 a second this is two seconds' worth.
pub(super) const COMMANDS_WAITING_MAX: usize = 1_024;
/// Commands that end or undo something have a lane of their own, which creations can't fill.
pub(super) const URGENT_WAITING_MAX: usize = 256;
/// Reports that wait for the driver. Beyond it sessions are read more slowly.
pub(super) const FLEET_WAITING_MAX: usize = 8_192;
/// Check results that wait for the driver: more than are ever under way.
pub(super) const CHECKS_WAITING_MAX: usize = 64;

/// What came of a command, for whoever words the answer.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The core's reply, or why it refused.
    pub result: Result<&'a Reply, &'a Refusal>,
    /// Whether anything was changed.
    pub changed: bool,
    /// When it was decided.
    pub now: Now,
}

/// Words the answer to a command, from State with the command's events folded in. It runs on the driver, so that the
/// answer can become durable with the events.
pub type Answerer = Box<dyn FnOnce(&State, Outcome<'_>) -> Answer + Send>;

/// Where a command came from, for the audit log.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Who asks.
    pub actor: Option<String>,
    /// The API token that speaks for them.
    pub token: Option<String>,
    /// The request's trace.
    pub trace_id: Option<String>,
    /// Where the request came from.
    pub address: Option<std::net::IpAddr>,
}

/// A command on its way.
pub(super) struct Submission {
    pub(super) origin: Origin,
    pub(super) command: Box<Command>,
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) answer: Answerer,
    pub(super) reply: oneshot::Sender<Result<Answer, SubmitError>>,
}

/// What an agent's session tells the driver.
pub enum FleetInput {
    /// A session stands. It replaces an older one of the same node.
    Connected {
        /// Whose.
        node: NodeId,
        /// Which.
        session: SessionId,
        /// Where messages to the node go.
        outbox: Arc<Outbox>,
    },
    /// The node reports.
    Report {
        /// By which session.
        session: SessionId,
        /// What.
        report: Box<NodeReport>,
    },
    /// The session fell.
    Disconnected {
        /// Whose.
        node: NodeId,
        /// Which.
        session: SessionId,
    },
}
