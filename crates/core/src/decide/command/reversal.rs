//! The way back, by somebody's word: aborted, rolled back, unloaded.

use super::{Accepted, affected, running};
use crate::command::Refusal;
use crate::decide::Reply;
use crate::decide::forward::go_back;
use crate::event::Event;
use crate::ids::{DeploymentId, EnvName, ModuleName, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::release::Kind;
use crate::rollout::{BackReason, Rollout, RolloutPlan};
use crate::stage::{DeploymentStatus, Purpose, StageStatus};
use crate::state::{EnvModule, State};

pub(super) fn abort(state: &State, id: DeploymentId, by: &str) -> Result<Accepted, Refusal> {
    let deployment = running(state, id)?;
    if matches!(deployment.purpose, Purpose::Reverse { .. }) {
        return Err(Refusal::NotNow(format!(
            "deployment {id} is a way back, which never turns"
        )));
    }
    let reply = Reply {
        deployment: Some(id),
        ..Reply::default()
    };
    match state.rollout_of(deployment) {
        Some(rollout) if rollout.is_back() && !is_on(Mutant::TurnsTwice) => Err(Refusal::NotNow(format!(
            "deployment {id} is on its way back already"
        ))),
        Some(rollout) => {
            let nodes_affected = u32::try_from(rollout.cohort.len()).unwrap_or(u32::MAX);
            let reason = BackReason::Aborted { by: by.to_owned() };
            Ok((
                go_back(rollout, reason),
                Reply {
                    nodes_affected,
                    ..reply
                },
            ))
        }
        None => {
            let status = DeploymentStatus::Cancelled;
            let message = format!("aborted by {by}");
            Ok((
                vec![Event::DeploymentFinished {
                    deployment: id,
                    status,
                    message,
                }],
                reply,
            ))
        }
    }
}

pub(super) struct Reversal {
    pub(super) id: DeploymentId,
    pub(super) trace_id: String,
    pub(super) by: String,
}

/// Where a finished deployment is its target's stable one, or why it can't be undone.
fn undoable(state: &State, id: DeploymentId) -> Result<(EnvName, ModuleName), Refusal> {
    if let Some(deployment) = state.deployments.get(&id) {
        return Err(Refusal::NotNow(match deployment.purpose {
            Purpose::Deploy => format!("deployment {id} is in progress; abort it instead"),
            Purpose::Reverse { .. } => {
                format!("deployment {id} is a way back in progress, which never turns")
            }
        }));
    }
    if let Some(finished) = state.finished.get(&id) {
        if matches!(finished.purpose, Purpose::Reverse { .. }) {
            return Err(Refusal::NotNow(format!(
                "deployment {id} is itself a rollback; deploy the version that you want instead"
            )));
        }
        if finished.status != DeploymentStatus::Succeeded {
            return Err(Refusal::NotNow(format!(
                "deployment {id} is {:?}: there is nothing of it to roll back",
                finished.status
            )));
        }
    }
    for (environment, env) in &state.envs {
        for (module, here) in &env.modules {
            let Some(success) = here
                .successes
                .iter()
                .find(|success| success.deployment == id && success.target)
            else {
                continue;
            };
            return match &here.stable {
                Some(stable) if stable.deployment == id => Ok((environment.clone(), module.clone())),
                Some(stable) => Err(Refusal::NotNow(format!(
                    "{module} {} of deployment {id} is no longer stable in {environment}: {} is, by deployment {}",
                    success.release, stable.release, stable.deployment
                ))),
                None => Err(Refusal::NotNow(format!(
                    "nothing of {module} is stable in {environment}"
                ))),
            };
        }
    }
    match state.finished.get(&id) {
        Some(finished) => Err(Refusal::NotNow(format!(
            "deployment {id} changed nothing in {} that could be rolled back",
            finished.target
        ))),
        None => Err(Refusal::UnknownDeployment(id)),
    }
}

/// The newest earlier success that is neither held nor withdrawn: where a rollback goes.
fn earlier(state: &State, module: &ModuleName, here: &EnvModule) -> Result<Option<ReleaseRef>, Refusal> {
    if is_on(Mutant::LastAttempted) {
        let attempted = state
            .finished_order
            .iter()
            .rev()
            .filter_map(|id| state.finished.get(id));
        let last = attempted
            .filter(|attempt| attempt.module == *module && attempt.status == DeploymentStatus::Failed);
        let last = last.filter_map(|attempt| attempt.release.clone()).next();
        return Ok(last.or_else(|| here.successes.first().map(|success| success.release.clone())));
    }
    let current = here.stable.as_ref().map(|stable| &stable.release);
    let mut earlier = here.successes.iter().rev().map(|success| &success.release);
    let mut others = earlier
        .by_ref()
        .filter(|release| Some(*release) != current)
        .peekable();
    if others.peek().is_none() {
        return Ok(None);
    }
    let mut held = Vec::new();
    for release in others {
        match state.barred(module, release) {
            None => return Ok(Some(release.clone())),
            Some(why) => held.push(format!("{release} ({why})")),
        }
    }
    Err(Refusal::NotNow(format!(
        "every earlier release of {module} is on hold or withdrawn: {}; lift a hold, or undeploy",
        held.join("; ")
    )))
}

pub(super) fn roll_back(state: &State, of: DeploymentId, reversal: Reversal) -> Result<Accepted, Refusal> {
    let (environment, module) = undoable(state, of)?;
    let here = state
        .env_module(&environment, &module)
        .expect("undoable found it there");
    let to = earlier(state, &module, here)?;
    let from = here.stable.as_ref().map(|stable| stable.release.clone());
    let reason = format!("rolled back by {}", reversal.by);
    let mut accepted = reverse(state, (&environment, &module), Some(of), to, reversal)?;
    if let Some(release) = from {
        accepted.0.push(Event::ReleaseHeld {
            module,
            release,
            reason,
        });
    }
    Ok(accepted)
}

pub(super) fn undeploy(
    state: &State,
    module: &ModuleName,
    environment: &EnvName,
    reversal: Reversal,
) -> Result<Accepted, Refusal> {
    let environment = state.environment(environment)?.name.clone();
    let runs = state
        .env_module(&environment, module)
        .is_some_and(|here| here.stable.is_some());
    if !runs {
        return Err(Refusal::NotNow(format!(
            "{module} is not deployed in {environment}"
        )));
    }
    reverse(state, (&environment, module), None, None, reversal)
}

/// One batch: what runs there ends, the target release is stable, and the way back starts.
fn reverse(
    state: &State,
    (environment, module): (&EnvName, &ModuleName),
    of: Option<DeploymentId>,
    to: Option<ReleaseRef>,
    reversal: Reversal,
) -> Result<Accepted, Refusal> {
    if state.deployment(&reversal.id).is_some() {
        return Err(Refusal::DuplicateDeployment(reversal.id));
    }
    let here = state
        .env_module(environment, module)
        .expect("the caller found it there");
    let from = here.stable.as_ref().map(|stable| stable.release.clone());
    let policy = state.environment(environment)?.policy.clone();
    let mut events = Vec::new();
    if let Some(rollout) = here.rollout.as_deref() {
        events.extend(end_for(state, rollout, reversal.id));
    }
    let kind = from
        .as_ref()
        .and_then(|from| state.release(module, &from.version).ok())
        .map_or(Kind::Wasm, |release| release.kind);
    events.push(Event::ReversalRequested {
        deployment: reversal.id,
        trace_id: reversal.trace_id,
        of,
        module: module.clone(),
        environment: environment.clone(),
        from: from.clone(),
        to: to.clone(),
        by: reversal.by,
    });
    events.push(Event::StageStarted {
        deployment: reversal.id,
        stage: 0,
        attempt: 1,
    });
    let env = state.envs.get(environment);
    let plan = RolloutPlan {
        id: RolloutId(state.rollouts + 1),
        deployment: reversal.id,
        module: module.clone(),
        environment: environment.clone(),
        kind,
        candidate: from,
        base: to.clone(),
        strategy: "Direct".to_owned(),
        policy,
        seed: 0,
        order: env
            .into_iter()
            .flat_map(|env| env.nodes.iter().cloned())
            .collect(),
        steps: Vec::new(),
        validates: true,
        reverse: true,
    };
    let key = plan.key();
    events.push(Event::RolloutStarted { plan: Box::new(plan) });
    events.push(Event::StableSet {
        key,
        deployment: reversal.id,
        release: to,
    });
    if let Some(deployment) = of {
        events.push(Event::DeploymentRolledBack {
            deployment,
            by: reversal.id,
        });
    }
    let reply = Reply {
        deployment: Some(reversal.id),
        status: Some(DeploymentStatus::Running),
        nodes_affected: affected(state, environment),
    };
    Ok((events, reply))
}

/// Ends a rollout and its deployment at once, for one that takes its place.
fn end_for(state: &State, rollout: &Rollout, by: DeploymentId) -> Vec<Event> {
    let id = rollout.plan.deployment;
    let message = BackReason::Superseded { by }.to_string();
    let mut events = Vec::new();
    let running = state.deployments.get(&id).and_then(|deployment| {
        deployment
            .stages
            .iter()
            .position(|stage| stage.status == StageStatus::Running)
    });
    if let Some(stage) = running.and_then(|stage| u32::try_from(stage).ok()) {
        events.push(Event::StageFinished {
            deployment: id,
            stage,
            status: StageStatus::Failed,
            message: message.clone(),
            nodes_deployed: 0,
            nodes_failed: 0,
        });
    }
    events.push(Event::RolloutEnded {
        key: rollout.key(),
        kept: false,
        missing: Vec::new(),
    });
    let status = DeploymentStatus::Cancelled;
    events.push(Event::DeploymentFinished {
        deployment: id,
        status,
        message,
    });
    events
}
