//! What scenarios and properties share: a server's core, its fleet, and a clock.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    reason = "each test uses its part"
)]

pub mod node;
pub mod script;
pub mod words;
pub mod world;
