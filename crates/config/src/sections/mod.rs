//! The keys, by section.

mod agent;
mod environments;
mod log;
mod server;

pub use agent::Agent;
pub use environments::{
    Approvers, Canary, Environment, Freeze, Grants, Judge, NativeKind, OnInconclusive, Policy, Strategy,
    StrategyType,
};
pub use log::{Log, LogFormat};
pub use server::{RateLimits, Server, Tls, TlsMode};

use crate::section::section;

section! {
    /// The configuration of Hotswap's servers and agents: https://toml.io.
    pub struct Config {
        /// What is logged. Logs go to standard error.
        log: Log = Log::default(),
        /// The control plane, `hotswap server`.
        server: Server = Server::default(),
        /// The node, `hotswap agent`.
        agent: Agent = Agent::default(),
        /// The fleet's environments, in the order that deployments pass them. Left out, the fleet keeps those it has;
        /// a new fleet gets Development, QA, Staging and Production. A rollout that runs keeps the rules that it
        /// began with.
        #[schemars(extend("x-live" = true))]
        environments: Vec<Environment> = Vec::new(),
    }
}
