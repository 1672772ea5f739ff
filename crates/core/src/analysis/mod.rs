//! The judge: candidate against control, by evidence that may be looked at any time.
//!
//! [`Judge`] folds one [`Block`] of counts per reporting interval and says [`Verdict`]: fail when harm beyond the
//! tolerance is shown, pass when harm beyond the margin is ruled out, otherwise inconclusive. Each question is an
//! e-process ([`two_arm`]): under its null it ever exceeds 1/α with probability at most α, whenever one looks.
//!
//! Pure and deterministic: equal policies, steps and blocks in equal order give equal judges, bit for bit.

mod alternatives;
pub mod before_after;
mod confidence;
mod counts;
mod errors;
mod evidence;
mod histogram;
mod judge;
mod latency;
mod node_table;
mod nodes;
mod plan;
mod policy;
mod resources;
mod say;
mod settings;
pub mod two_arm;
mod verdict;

#[cfg(test)]
mod tests;

pub use confidence::Confidence;
pub use counts::{ArmCounts, Block};
pub use histogram::{BINS, EDGES_PER_DOUBLING, Histogram, bin_of, edge_us, edges_of_ratio};
pub use judge::Judge;
pub use node_table::NodeEvidence;
pub use nodes::{NODES_APART_MAX, NodeArm, NodeCounts};
pub use plan::{Forecast, PowerPlan, Traffic, power_plan};
pub use policy::{Control, InvalidPolicy, JudgePolicy, PolicyFault};
pub use settings::{Setting, SettingFault, Settings, parse_setting};
pub use verdict::{Basis, Finding, LatencySummary, Levels, Outcome, Rate, Reason, Signal, Verdict};
