//! The fold: one event onto State. It decides nothing; recovery and running use the same.

mod deployments;
mod nodes;
mod releases;
mod rollouts;

use crate::event::{Event, Logged};
use crate::ids::{EnvName, NodeId};
use crate::mutants::{Mutant, is_on};
use crate::stage::DeploymentStatus;
use crate::state::{EPOCH_STARTS_KEPT_MAX, State};
use crate::time::Now;
use deployments::deployments;
use nodes::nodes;
use releases::releases;
use rollouts::rollouts;

/// Folds one event onto State.
///
/// # Panics
/// When the log has a gap or an epoch falls: it is not the log of this State.
pub fn apply(state: &mut State, logged: &Logged) {
    assert_eq!(logged.seq, state.seq + 1, "the log has no gaps");
    assert!(logged.epoch >= state.epoch, "epochs never fall");
    state.seq = logged.seq;
    state.at = logged.at;
    state.wall = logged.wall;
    let now = Now {
        core: logged.at,
        wall: logged.wall,
    };
    match &logged.event {
        Event::FleetCreated { .. }
        | Event::EnvironmentsConfigured { .. }
        | Event::EpochStarted { .. }
        | Event::FleetAdopted { .. } => fleet(state, &logged.event),
        Event::ReleasePushed { .. }
        | Event::ReleaseHeld { .. }
        | Event::ReleaseHoldLifted { .. }
        | Event::ReleaseRevoked { .. }
        | Event::MinimumVersionSet { .. }
        | Event::ReleaseYanked { .. }
        | Event::ReleaseUnyanked { .. } => releases(state, &logged.event, now),
        Event::ValuesSet {
            module,
            environment,
            number,
            values,
            ..
        } => {
            let known = state.modules.entry(module.clone()).or_default();
            known.values_numbered = known.values_numbered.max(*number);
            let env = state.envs.entry(environment.clone()).or_default();
            let here = env.modules.entry(module.clone()).or_default();
            let named = here.named_values();
            here.values.set(*number, values.clone(), &named);
        }
        Event::NodeRegistered { .. }
        | Event::NodeDescribed { .. }
        | Event::NodeMoved { .. }
        | Event::NodeRemoved { .. }
        | Event::NodeLabelsSet { .. }
        | Event::NodeDrainRequested { .. }
        | Event::NodeDrained { .. }
        | Event::NodeUndrained { .. }
        | Event::ExceptionRecorded { .. } => nodes(state, &logged.event, now),
        Event::DeploymentRequested { .. }
        | Event::ReversalRequested { .. }
        | Event::ApprovalGiven { .. }
        | Event::ApprovalDecided { .. }
        | Event::ApprovalExpired { .. }
        | Event::DeploymentFrozen { .. }
        | Event::StageStarted { .. }
        | Event::StageFinished { .. }
        | Event::DeploymentFinished { .. }
        | Event::DeploymentRolledBack { .. }
        | Event::RolloutPaused { .. }
        | Event::RolloutResumed { .. } => deployments(state, &logged.event, now),
        _ => rollouts(state, &logged.event, now),
    }
}

fn fleet(state: &mut State, event: &Event) {
    match event {
        Event::FleetCreated { fleet } => state.fleet = Some(*fleet),
        Event::EnvironmentsConfigured { environments } => {
            state.environments.clone_from(environments);
            for environment in environments {
                state.envs.entry(environment.name.clone()).or_default().touched = state.seq;
            }
        }
        Event::EpochStarted { epoch } => begin_epoch(state, *epoch),
        Event::FleetAdopted {
            epoch,
            rollouts_above,
            ..
        } => {
            begin_epoch(state, *epoch);
            state.adopted = *epoch;
            state.rollouts = state.rollouts.max(*rollouts_above);
        }
        _ => unreachable!("only fleet events come here"),
    }
}

fn begin_epoch(state: &mut State, epoch: u64) {
    state.epoch = epoch;
    state.epoch_starts.insert(epoch, state.seq);
    if state.epoch_starts.len() > EPOCH_STARTS_KEPT_MAX {
        state.epoch_starts.pop_first();
    }
    if is_on(Mutant::ApprovalForgotten) {
        for deployment in state.deployments.values_mut() {
            deployment.status = DeploymentStatus::Running;
        }
    }
}

fn touch(state: &mut State, environment: &EnvName) {
    let seq = state.seq;
    if let Some(env) = state.envs.get_mut(environment) {
        env.touched = seq;
    }
}

/// A rollout's beginning, turning and end also change what the next environment's nodes prefetch.
fn touch_with_next(state: &mut State, environment: &EnvName) {
    touch(state, environment);
    if let Some(next) = crate::desired::next_environment(state, environment).cloned() {
        touch(state, &next);
    }
}

fn touch_node(state: &mut State, node: &NodeId) {
    let seq = state.seq;
    if let Some(record) = state.nodes.get_mut(node) {
        record.touched = seq;
    }
}
