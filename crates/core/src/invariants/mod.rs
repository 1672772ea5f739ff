//! What must hold, one function each, named as in the list of invariants.
//!
//! Those in [`state`] look at State alone and those in [`step`] at State and the event that is about to be applied:
//! a running server can call them too. Those in [`node`] need the ground truth of a node, and those in [`settled`]
//! say what must be so once faults stop; tests and the simulator call them.

pub mod node;
pub mod settled;
pub mod state;
pub mod step;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::observe::Observations;
use crate::state::State;
use crate::time::Now;

pub use node::{InPlace, NodeTruth};

/// Which invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is documented at the function of its name")]
pub enum Invariant {
    S1Budget,
    S2Artifact,
    S3OneRollout,
    S4Generations,
    S5Steps,
    S6OneColour,
    S7StopMeansStop,
    S8Target,
    S9Log,
    S10Durable,
    S11Fencing,
    S12Purity,
    S13Explained,
    S14Separation,
    A1Serves,
    A2Atomic,
    A3Left,
    A4Verified,
    A5Full,
    A6Clock,
    A7Answered,
    A8VetoHolds,
    A9InPlace,
    A10NotAgain,
    L1Ends,
    L2Converges,
    L3Quiet,
    L4Apart,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        let digits = name[1..].bytes().take_while(u8::is_ascii_digit).count();
        let (number, words) = name.split_at(1 + digits);
        write!(f, "{number}")?;
        for c in words.chars() {
            if c.is_ascii_uppercase() {
                write!(f, " {}", c.to_ascii_lowercase())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// What doesn't hold, and how it shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is violated: {what}")]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// How it shows, for people.
    pub what: String,
}

impl Violation {
    fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

/// Whether it holds.
pub type Check = Result<(), Violation>;

/// Everything that can be decided from State alone.
///
/// # Errors
/// The first invariant that doesn't hold.
pub fn check_state(state: &State) -> Check {
    state::s3_one_rollout(state)?;
    state::s5_share(state)?;
    state::s8_targets_stay(state)?;
    state::s14_separation(state)
}

/// Everything about an event that is about to be applied to a State.
///
/// # Errors
/// The first invariant that doesn't hold.
pub fn check_step(before: &State, obs: &Observations, event: &crate::event::Logged) -> Check {
    let now = Now {
        core: event.at,
        wall: event.wall,
    };
    step::s9_log(before, event)?;
    step::s11_fencing(before, event)?;
    step::s2_artifact(before, &event.event)?;
    step::s3_start(before, &event.event)?;
    step::s1_budget(before, obs, &event.event, now)?;
    step::s5_steps(before, &event.event)?;
    step::s6_flip(before, obs, &event.event, now)?;
    step::s7_stop_means_stop(before, &event.event)?;
    step::s8_target(before, &event.event)
}
