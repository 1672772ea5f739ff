//! Deterministic simulation of the control plane and its nodes around the real core.
//!
//! One seed decides everything: the fleet, how its releases behave, who asks for what, what breaks and when. The core
//! is the real one, with its events through their real encoding; the disk, the network and the clocks are simulated.
//! Faults that are injected: power cuts of nodes and of the server at any point between two syncs (a write that was
//! under way is lost or not), sessions that break, partitions, late and doubled messages, slow disks, and releases
//! that fail to load, turn ill, flap, kill their process, fail their smoke checks, err or are slow only under users'
//! requests. Under all of them the S and A invariants hold after every input; once they stop, the L ones do within a
//! stated bound.

pub mod agent;
pub mod operators;
pub mod oracle;
pub mod rng;
pub mod scenario;
pub mod server;
pub mod world;

pub use world::{Outcome, World};
