//! Deterministic simulation of the control plane and its nodes around the real core.
//!
//! One seed decides everything: the fleet, how its releases behave, who asks for what, what breaks and when. The core
//! is the real one, with its events through their real encoding and the store's real contract; the disks, the network
//! and the clocks are simulated. [`faults`] lists what breaks, with what is promised under it; [`marks`] the rare
//! branches that a run over many seeds must take. The S and A invariants are checked after every input; once faults
//! stop, the L ones within a stated bound.

mod acks;
pub mod agent;
pub mod faults;
pub mod many;
pub mod marks;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod operators;
pub mod oracle;
pub mod rng;
pub mod scenario;
pub mod server;
pub mod shape;
pub mod shrink;
pub mod store;
pub mod world;

pub use shape::Shape;
pub use world::{Outcome, World};
