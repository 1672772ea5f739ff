//! Light agents: real sessions by the real protocol, with nothing behind them. One process holds thousands.

mod line;
mod node;
mod session;
mod swarm;

pub(crate) use line::Lines;
pub(crate) use node::heartbeat_bytes;
pub(crate) use swarm::{Swarm, raise_open_files};
