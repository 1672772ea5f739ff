//! Linux kernel modules and livepatches as modules: loaded by `finit_module`, replaced as their manifest says, watched by
//! the kernel's own files, and not loaded again where a node went down with them.
//!
//! A version is only looked at when it starts; it is loaded when it is put in its place ([`Instance::engage`]), which is
//! when its trial is durable in the node's ledger. Two implementations of one module are never both in place, so none
//! stays loaded on standby, and the way back is one more load. What is loaded outlives the agent: a file of the node
//! says what that is, and during which boot.
//!
//! [`Instance::engage`]: crate::Instance::engage

mod answers;
mod blame;
mod config;
mod counting;
mod entering;
mod host;
mod instance;
mod livepatch;
mod looking;
mod module;
mod object;
mod record;
mod steps;
mod swap;
mod sysfs;
mod system;
#[cfg(test)]
mod tests;
mod wait;
mod watchdog;
mod work;

pub use config::{KernelHostConfig, WATCHDOG};
pub use host::{KernelHost, KernelHostError};
pub use object::{Inspected, inspect};
