//! What the API says, as pure functions of State and Observations.

pub mod analysis;
pub mod cluster;
pub mod deployment;
pub mod estimate;
pub mod live;
pub mod module;
pub mod node;
pub mod plan;
pub mod sentence;
pub mod time;
pub mod why;
