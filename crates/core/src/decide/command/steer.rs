//! A rollout on its way is paused, resumed, hurried.

use super::{Accepted, running};
use crate::command::Refusal;
use crate::decide::Reply;
use crate::event::Event;
use crate::ids::DeploymentId;
use crate::rollout::{Phase, Rollout, StepPass};
use crate::stage::DeploymentStatus;
use crate::state::State;
use crate::time::Now;

pub(super) fn pause(state: &State, id: DeploymentId, by: String, now: Now) -> Result<Accepted, Refusal> {
    let deployment = running(state, id)?;
    if deployment.paused.is_some() {
        return Err(Refusal::NotNow(format!("deployment {id} is paused already")));
    }
    if deployment.status == DeploymentStatus::PendingApproval {
        return Err(Refusal::NotNow(format!(
            "deployment {id} waits for an approval and doesn't move"
        )));
    }
    let rollout = state.rollout_of(deployment);
    if rollout.is_some_and(Rollout::is_back) {
        return Err(Refusal::NotNow(format!(
            "deployment {id} is on its way back, which can't be paused"
        )));
    }
    let expiry = match rollout {
        Some(rollout) => rollout.plan.policy.pause_expiry,
        None => state.environment(&deployment.target)?.policy.pause_expiry,
    };
    let reply = Reply {
        deployment: Some(id),
        status: Some(DeploymentStatus::Paused),
        nodes_affected: 0,
    };
    Ok((
        vec![Event::RolloutPaused {
            deployment: id,
            by,
            until: now.wall + expiry,
        }],
        reply,
    ))
}

pub(super) fn resume(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
    let deployment = running(state, id)?;
    if deployment.paused.is_none() {
        return Err(Refusal::NotNow(format!("deployment {id} is not paused")));
    }
    let reply = Reply {
        deployment: Some(id),
        status: Some(DeploymentStatus::Running),
        nodes_affected: 0,
    };
    Ok((vec![Event::RolloutResumed { deployment: id, by }], reply))
}

/// The rollout of a deployment that goes forward.
fn moving(state: &State, id: DeploymentId) -> Result<&Rollout, Refusal> {
    let deployment = running(state, id)?;
    let rollout = state
        .rollout_of(deployment)
        .ok_or_else(|| Refusal::NotNow(format!("deployment {id} has no rollout under way now")))?;
    if rollout.is_back() {
        return Err(Refusal::NotNow(format!(
            "deployment {id} is on its way back, which never turns"
        )));
    }
    Ok(rollout)
}

pub(super) fn skip_step(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
    let rollout = moving(state, id)?;
    let Phase::Forward {
        step, began: Some(_), ..
    } = rollout.phase
    else {
        return Err(Refusal::NotNow(format!(
            "deployment {id} runs no step that could be skipped"
        )));
    };
    let completed = Event::StepCompleted {
        key: rollout.key(),
        step,
        pass: StepPass::Override { who: by },
    };
    Ok((
        vec![completed],
        Reply {
            deployment: Some(id),
            ..Reply::default()
        },
    ))
}

pub(super) fn promote(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
    let rollout = moving(state, id)?;
    let reply = Reply {
        deployment: Some(id),
        ..Reply::default()
    };
    Ok((
        vec![Event::RolloutPromoted {
            key: rollout.key(),
            by,
        }],
        reply,
    ))
}
