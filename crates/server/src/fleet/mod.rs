//! Agents: their connections and sessions, and the packages they fetch.

mod admission;
mod artifacts;
mod listen;
mod outbox;
mod service;
mod telling;

pub use listen::{AgentStream, Caller, Door, incoming, keep_certificate};
pub use outbox::Outbox;
pub use service::{Fleet, SessionId};
