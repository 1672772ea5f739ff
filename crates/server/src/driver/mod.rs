//! The driver: inputs → core → commit → effects.
//!
//! One task owns the working State. It takes what arrived during the last commit as one batch, lets the core decide
//! and fold, makes the events durable in one transaction, and only then lets anything out: replies, specs,
//! acknowledgements, checks. What the API reads is [`World`]: State as it was last committed, never ahead of the disk.
//! The driver itself decides nothing.

mod acks;
mod batch;
mod effects;
mod handle;
mod input;
mod recover;
mod run;
mod world;

pub use handle::{Driver, SubmitError};
pub use input::{Answerer, FleetInput, Origin, Outcome};
pub use recover::RecoverError;
pub use run::{DriverError, DriverParts, start};
pub use world::World;
