//! The pure core of Hotswap: deployments, rollouts, the judge, desired state, the node's reconciler
//! and the invariants.
//!
//! It knows no network, file, clock, thread or random source: time, ids and seeds arrive as inputs.

pub mod analysis;
pub mod apply;
pub mod attribution;
pub mod capability;
pub mod causes;
pub mod checks;
pub mod command;
pub mod decide;
pub mod desired;
pub mod event;
pub mod explain;
pub mod freeze;
pub mod ids;
pub mod invariants;
pub mod mutants;
pub mod observe;
mod ordered;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod release;
pub mod replay;
pub mod report;
pub mod rollout;
pub mod spec;
pub mod stage;
pub mod state;
pub mod strategy;
pub mod time;
pub mod trace;
pub mod values;
