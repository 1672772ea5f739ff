//! Decisions: State, Observations, an input and the time go in; events come out. Nothing is mutated.
//!
//! A `Tick` decides one move for whatever can move and is asked again until nothing does. Each move is
//! made against State as it then is, so that moves never race each other.

mod back;
mod checks;
mod command;
mod deployment;
mod fleet;
mod forward;
mod node_commands;
mod nodes;
mod releases;
mod values;

use crate::command::{Command, Refusal};
use crate::event::Event;
use crate::ids::DeploymentId;
use crate::observe::Observations;
use crate::stage::DeploymentStatus;
use crate::state::State;
use crate::time::{Millis, Now};

pub use checks::CheckResult;
pub use deployment::CHECKS_AT_ONCE_MAX;
pub(crate) use deployment::{blocker, frozen_now, with_lock};
pub use node_commands::{DRAIN_DEADLINE_MAX, Unspared, spare};

use crate::explain::Wait;

/// Rounds of ticks after one batch of inputs, at most. Each makes a move; a rollout through every step
/// at once takes four a step.
pub const ROUNDS_MAX: usize = 65_536;

/// While something is under way it is looked at again at least this often.
const WAKE_ACTIVE: Millis = Millis(100);
/// While something waits for a person.
const WAKE_WAITING: Millis = Millis(1_000);

/// Something to decide on.
#[derive(Clone, Debug)]
pub enum Input {
    /// Asked by a person or a program.
    Command(Box<Command>),
    /// A check of the server's own ended.
    Check(CheckResult),
    /// Reports came in, or time passed.
    Tick,
}

/// What follows from an input.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What happens now.
    pub events: Vec<Event>,
    /// The answer to a command, to be given once the events are durable.
    pub reply: Option<Result<Reply, Refusal>>,
}

/// The answer to a command that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reply {
    /// The deployment it made or concerns.
    pub deployment: Option<DeploymentId>,
    /// How that stands.
    pub status: Option<DeploymentStatus>,
    /// How many nodes it concerns.
    pub nodes_affected: u32,
}

/// Decides what follows from an input.
pub fn decide(state: &State, obs: &Observations, input: Input, now: Now) -> Decision {
    match input {
        Input::Command(command) => match command::command(state, obs, *command, now) {
            Ok((events, reply)) => Decision {
                events,
                reply: Some(Ok(reply)),
            },
            Err(refusal) => Decision {
                events: Vec::new(),
                reply: Some(Err(refusal)),
            },
        },
        Input::Check(result) => Decision {
            events: checks::check(state, result),
            reply: None,
        },
        Input::Tick => Decision {
            events: tick(state, obs, now),
            reply: None,
        },
    }
}

fn tick(state: &State, obs: &Observations, now: Now) -> Vec<Event> {
    let mut events = fleet::tick(state, obs, now);
    if !events.is_empty() {
        return events;
    }
    for rollout in state.rollouts() {
        events.extend(rollout_move(state, obs, rollout, now).unwrap_or_default());
    }
    if events.is_empty() {
        events = deployment::tick(state, now);
    }
    events
}

/// What a rollout does now, or what it waits for.
pub(crate) fn rollout_move(
    state: &State,
    obs: &Observations,
    rollout: &crate::rollout::Rollout,
    now: Now,
) -> Result<Vec<Event>, Wait> {
    if rollout.is_back() {
        back::back(state, obs, rollout, now)
    } else {
        forward::forward(state, obs, rollout, now)
    }
}

/// What an unfinished deployment without a rollout of its own waits for.
pub(crate) fn deployment_wait(state: &State, id: &DeploymentId) -> Option<Wait> {
    deployment::wait(state, state.deployments.get(id)?)
}

/// Look again after at most this long; `None`: only when something comes in.
pub fn wakeup(state: &State, _obs: &Observations, _now: Now) -> Option<Millis> {
    if state.rollouts().next().is_some() {
        return Some(WAKE_ACTIVE);
    }
    (!state.deployments.is_empty() || !state.draining.is_empty()).then_some(WAKE_WAITING)
}
