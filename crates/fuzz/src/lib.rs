//! Everything that reads what somebody else wrote, under bytes that are nearly right.
//!
//! A [`Target`] reads bytes and checks what it got: no panic, errors of a readable length, and what was read is read
//! again from what it is written as. [`mutate`](mutate::Mutator) makes inputs from seeds: real manifests, packages, messages, logs,
//! ledgers, configurations and signatures. An input that once failed lies in `found/TARGET` and is tried first for ever.

pub mod mutate;
pub mod run;
mod seeds;
pub mod targets;

pub use targets::Target;
