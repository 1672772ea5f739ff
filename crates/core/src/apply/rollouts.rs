//! Rollouts, and what is stable by them.

use super::{touch, touch_node, touch_with_next};
use crate::event::{Event, RolloutKey};
use crate::ids::{DeploymentId, NodeId};
use crate::mutants::{Mutant, is_on};
use crate::rollout::{BackReason, Effect, Hold, Phase, Rollout, RolloutPlan};
use crate::stage::DeploymentStatus;
use crate::state::{EnvModule, SUCCESSES_KEPT_MAX, State, Success};
use crate::time::{Millis, Now};

fn env_module<'a>(state: &'a mut State, key: &RolloutKey) -> &'a mut EnvModule {
    state
        .envs
        .entry(key.environment.clone())
        .or_default()
        .modules
        .entry(key.module.clone())
        .or_default()
}

pub(super) fn rollout<'a>(state: &'a mut State, key: &RolloutKey) -> &'a mut Rollout {
    let found = env_module(state, key)
        .rollout
        .as_deref_mut()
        .filter(|rollout| rollout.plan.id == key.rollout);
    found.expect("an event names an unfinished rollout")
}

pub(super) fn rollouts(state: &mut State, event: &Event, now: Now) {
    match event {
        Event::RolloutStarted { plan } => start(state, plan, now),
        Event::StepStarted { key, step, joins } => {
            step_started(rollout(state, key), *step, joins, now);
            touch(state, &key.environment);
        }
        Event::StepCompleted { key, step, .. } => {
            let rollout = rollout(state, key);
            rollout.held = None;
            rollout.phase = Phase::Forward {
                step: step + 1,
                began: None,
                soak: Millis(0),
                soaked_at: now.core,
            };
        }
        Event::NodeEntered { key, node } => {
            let rollout = rollout(state, key);
            rollout.excused.remove(node);
            rollout.enter(node);
            rollout.entered.insert(node.clone(), now.core);
            // What it left before this rollout it has left, should the rollout go back.
            let exceptions = &mut env_module(state, key).exceptions;
            if exceptions
                .get(node)
                .is_some_and(|exception| exception.rollout == key.rollout)
            {
                exceptions.remove(node);
            }
            touch(state, &key.environment);
        }
        Event::NodeExcluded { key, node, reason } => {
            rollout(state, key).excluded.insert(node.clone(), reason.clone());
            touch_node(state, node);
        }
        Event::NodeExcused { key, node, reason } => {
            rollout(state, key).excused.insert(node.clone(), *reason);
            touch_node(state, node);
        }
        Event::EvidenceRecorded {
            key,
            soak,
            block,
            late,
            folded,
            ..
        } => {
            let rollout = rollout(state, key);
            rollout.note_folded(folded);
            if let Phase::Forward {
                soak: total,
                soaked_at,
                ..
            } = &mut rollout.phase
            {
                *total = *total + *soak;
                *soaked_at = now.core;
            }
            if let Some(block) = block {
                rollout.judge.fold(block);
                rollout.evidence.merge(block);
            }
            for (step, block) in late {
                rollout.judge.fold_late(*step, block);
            }
        }
        Event::RolloutHeld { key, reason, until } => {
            rollout(state, key).held = Some(Hold {
                reason: reason.clone(),
                until: *until,
            });
        }
        Event::RolloutReleased { key } => rollout(state, key).held = None,
        Event::RolloutPromoted { key, by } => {
            let rollout = rollout(state, key);
            rollout.promoted = Some(by.clone());
            rollout.held = None;
        }
        Event::ValidationStarted { key } => {
            rollout(state, key).phase = Phase::Validating { began: now.core };
            touch(state, &key.environment);
        }
        Event::BackStarted { key, reason } => {
            let rollout = rollout(state, key);
            rollout.phase = Phase::Back {
                began: now.core,
                reason: reason.clone(),
            };
            rollout.held = None;
            let id = rollout.plan.deployment;
            // A way back can't be paused.
            if let Some(deployment) = state.deployments.get_mut(&id).filter(|d| d.paused.is_some()) {
                deployment.paused = None;
                deployment.status = DeploymentStatus::Running;
            }
            if !is_on(Mutant::TurnUntold) {
                touch_with_next(state, &key.environment);
            }
        }
        Event::StableSet {
            key,
            deployment,
            release,
        } => {
            set_stable(env_module(state, key), key, *deployment, release.as_ref());
            touch(state, &key.environment);
        }
        Event::RolloutEnded { key, .. } => {
            let module = env_module(state, key);
            module.rollout = None;
            // Whoever left a release that went back runs what everyone runs: that is no exception.
            let stable = module.stable.as_ref().map(|stable| stable.release.clone());
            module
                .exceptions
                .retain(|_, exception| exception.rollout != key.rollout || exception.base != stable);
            if is_on(Mutant::ExceptionForgotten) {
                module.exceptions.clear();
            }
            touch_with_next(state, &key.environment);
        }
        _ => unreachable!("only rollout events come here"),
    }
}

fn start(state: &mut State, plan: &RolloutPlan, now: Now) {
    let key = plan.key();
    state.rollouts = state.rollouts.max(plan.id.0);
    let mut rollout = Rollout::new(plan.clone(), now.core);
    if plan.reverse {
        let by = state
            .deployments
            .get(&plan.deployment)
            .map_or(String::new(), |d| d.requester.clone());
        rollout.phase = Phase::Back {
            began: now.core,
            reason: BackReason::Requested { by },
        };
    }
    let module = env_module(state, &key);
    assert!(
        module.rollout.is_none(),
        "one unfinished rollout per environment and module"
    );
    module.rollout = Some(Box::new(rollout));
    if plan.reverse {
        module.exceptions.clear();
    }
    touch_with_next(state, &key.environment);
}

fn step_started(rollout: &mut Rollout, step: u32, joins: &[NodeId], now: Now) {
    let plan = &rollout.plan.steps[step as usize];
    rollout.effect = Some(Effect {
        step,
        weight: plan.weight,
        preview: plan.preview,
        gate: plan.gate,
    });
    rollout.phase = Phase::Forward {
        step,
        began: Some(now.core),
        soak: Millis(0),
        soaked_at: now.core,
    };
    if rollout.effect.is_some_and(|effect| effect.gate.is_judged()) {
        rollout.judge.begin_step(step);
        rollout.evidence = crate::analysis::Block::default();
    }
    for node in joins {
        rollout.enter(node);
    }
}

fn set_stable(
    module: &mut EnvModule,
    key: &RolloutKey,
    deployment: DeploymentId,
    release: Option<&crate::ids::ReleaseRef>,
) {
    let rollout = module
        .rollout
        .as_deref()
        .filter(|rollout| rollout.plan.id == key.rollout);
    let reverse = rollout.is_some_and(|rollout| rollout.plan.reverse);
    let target = rollout.is_some_and(|rollout| rollout.plan.validates);
    let former = module.stable.take();
    module.rollout_of_stable = key.rollout;
    if reverse {
        // The way back forgets what came after the release that it returns to.
        module.standby = None;
        match release.and_then(|to| {
            module
                .successes
                .iter()
                .rposition(|success| success.release == *to)
        }) {
            Some(place) => module.successes.truncate(place + 1),
            None => module.successes.clear(),
        }
        module.stable = module.successes.last().cloned();
        return;
    }
    let Some(release) = release else { return };
    if let Some(former) = former.filter(|former| former.release != *release) {
        module.standby = Some(former.release);
    }
    let success = Success {
        release: release.clone(),
        deployment,
        target,
    };
    module.stable = Some(success.clone());
    module.successes.push(success);
    if module.successes.len() > SUCCESSES_KEPT_MAX {
        module.successes.remove(0);
    }
    // Whoever was on the roster and stayed has the release now; others keep their exceptions.
    if let Some(rollout) = module.rollout.as_deref() {
        let cohort = &rollout.cohort;
        module
            .exceptions
            .retain(|node, exception| exception.rollout == key.rollout || !cohort.contains(node));
    }
}
