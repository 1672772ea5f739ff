//! The node: it serves modules, swaps them as the server says, and goes on by itself when no server is there.
//!
//! [`Agent::start`] puts it together. The core's machine decides ([`hotswap_core::reconcile`]); the driver around it
//! fetches, loads, routes and reports; the [`ingress`] serves and the [`meter`] counts.

pub mod ingress;
pub mod meter;

mod admit;
mod agent;
mod config;
mod credential;
mod disk;
mod driver;
mod fetch;
mod machine;
mod metrics;
mod secrets;
mod session;
mod smoke;
mod spans;
pub mod takeover;

pub use agent::{Agent, AgentError, Retired, RunningAgent};
pub use config::{AgentConfig, ConfigError, TraceConfig};
pub use credential::{CredentialError, JoinSource, NODE_CERTIFICATE_FILE};
pub use disk::{FolderError, LedgerError, StoreError};
pub use driver::Stats;
pub use spans::RequestSpans;
