//! Native servers as modules: a process for each loaded release, its listening socket handed over, its requests
//! proxied, its restarts and its end supervised.
//!
//! Native code is not sandboxed as WebAssembly is. What holds a process: a user of its own where the agent is root, no
//! new privileges, nothing inherited, a network of its own with nothing in it unless one is granted, limits by control
//! groups or by the system's own, and an end that it can't refuse.

mod cgroup;
mod config;
mod host;
mod instance;
mod keeper;
mod launch;
mod notify;
mod output;
mod pool;
mod proxy;
mod start;
mod state;
mod supervise;
mod sweep;
mod usage;

pub use config::{InvalidUser, ProcessHostConfig, User};
pub(crate) use host::capabilities;
pub use host::{ProcessHost, ProcessHostError};
