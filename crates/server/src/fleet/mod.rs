//! Agents: their sessions, and the packages they fetch.

mod artifacts;
mod outbox;
mod service;

pub use outbox::Outbox;
pub use service::{Fleet, SessionId};
