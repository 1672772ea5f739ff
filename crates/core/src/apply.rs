//! The fold: one event onto State. It decides nothing; recovery and running use the same.

use std::collections::BTreeMap;

use crate::event::{Event, Logged, RolloutKey};
use crate::ids::{DeploymentId, EnvName, ModuleName, NodeId, ReleaseRef};
use crate::mutants::{Mutant, is_on};
use crate::policy::Approvers;
use crate::release::{ReleaseHold, Yank};
use crate::rollout::{BackReason, Effect, Hold, Phase, Rollout, RolloutPlan};
use crate::stage::{Approval, Deployment, DeploymentStatus, Pause, Purpose, Stage, StageKind, StageStatus};
use crate::state::{
    Drain, EPOCH_STARTS_KEPT_MAX, EnvModule, Exception, FINISHED_KEPT_MAX, Node, SUCCESSES_KEPT_MAX, State,
    Success,
};
use crate::time::{Millis, Now};

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

/// Lets nothing take a release, for good where it is revoked: then a later hold changes nothing of that.
fn hold(state: &mut State, module: &ModuleName, release: &ReleaseRef, reason: &str, now: Now, revoked: bool) {
    let holds = &mut state.modules.entry(module.clone()).or_default().holds;
    if !revoked && holds.get(&release.digest).is_some_and(|hold| hold.revoked) {
        return;
    }
    let hold = ReleaseHold {
        release: release.clone(),
        reason: reason.to_owned(),
        since: now.wall,
        revoked,
    };
    holds.insert(release.digest, hold);
}

fn releases(state: &mut State, event: &Event, now: Now) {
    match event {
        Event::ReleasePushed {
            module,
            version,
            release,
        } => {
            let module = state.modules.entry(module.clone()).or_default();
            module.releases.insert(version.clone(), release.clone());
        }
        Event::ReleaseHeld {
            module,
            release,
            reason,
        } => hold(state, module, release, reason, now, false),
        Event::ReleaseRevoked {
            module,
            release,
            reason,
            ..
        } => hold(state, module, release, reason, now, true),
        Event::MinimumVersionSet { module, version, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.minimum.clone_from(version);
            }
        }
        Event::ReleaseHoldLifted { module, digest, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.holds.remove(digest);
            }
        }
        Event::ReleaseYanked {
            module,
            version,
            reason,
            by,
        } => {
            let yank = Yank {
                by: by.clone(),
                reason: reason.clone(),
                since: now.wall,
            };
            let module = state.modules.entry(module.clone()).or_default();
            module.yanks.insert(version.clone(), yank);
        }
        Event::ReleaseUnyanked { module, version, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.yanks.remove(version);
            }
        }
        _ => unreachable!("only release events come here"),
    }
}

fn nodes(state: &mut State, event: &Event, now: Now) {
    let seq = state.seq;
    match event {
        Event::NodeRegistered {
            node,
            environment,
            hostname,
            labels,
        } => {
            state
                .envs
                .entry(environment.clone())
                .or_default()
                .nodes
                .insert(node.clone());
            let record = Node {
                environment: environment.clone(),
                hostname: hostname.clone(),
                labels: labels.clone(),
                overrides: BTreeMap::new(),
                drain: None,
                touched: seq,
                registered: now.wall,
            };
            state.nodes.insert(node.clone(), record);
        }
        Event::NodeDescribed {
            node,
            hostname,
            labels,
        } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.hostname.clone_from(hostname);
                record.labels.clone_from(labels);
            }
        }
        Event::NodeMoved {
            node, environment, ..
        } => {
            leave_environment(state, node);
            state
                .envs
                .entry(environment.clone())
                .or_default()
                .nodes
                .insert(node.clone());
            if let Some(record) = state.nodes.get_mut(node) {
                record.environment = environment.clone();
                record.touched = seq;
            }
        }
        Event::NodeRemoved { node, .. } => {
            leave_environment(state, node);
            state.nodes.remove(node);
            state.draining.remove(node);
        }
        Event::NodeLabelsSet { node, overrides, .. } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.overrides.clone_from(overrides);
            }
        }
        Event::NodeDrainRequested { .. } | Event::NodeDrained { .. } | Event::NodeUndrained { .. } => {
            drains(state, event, now);
        }
        Event::ExceptionRecorded {
            environment,
            module,
            node,
            rollout,
            release,
            base,
            reason,
        } => {
            let exception = Exception {
                rollout: *rollout,
                release: release.clone(),
                base: base.clone(),
                reason: reason.clone(),
            };
            let env = state.envs.entry(environment.clone()).or_default();
            env.modules
                .entry(module.clone())
                .or_default()
                .exceptions
                .insert(node.clone(), exception);
            if let Some(record) = state.nodes.get_mut(node) {
                record.touched = seq;
            }
        }
        _ => unreachable!("only node events come here"),
    }
}

fn drains(state: &mut State, event: &Event, now: Now) {
    let seq = state.seq;
    match event {
        Event::NodeDrainRequested {
            node,
            until,
            reason,
            by,
        } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.drain = Some(Drain {
                    by: by.clone(),
                    reason: reason.clone(),
                    since: now.wall,
                    until: *until,
                    taken: false,
                });
                state.draining.insert(node.clone());
            }
        }
        Event::NodeDrained { node } => {
            state.draining.remove(node);
            if let Some(record) = state.nodes.get_mut(node) {
                record.touched = seq;
                if let Some(drain) = &mut record.drain {
                    drain.taken = true;
                }
            }
        }
        Event::NodeUndrained { node, .. } => {
            state.draining.remove(node);
            if let Some(record) = state.nodes.get_mut(node) {
                record.drain = None;
                record.touched = seq;
            }
        }
        _ => unreachable!("only drains come here"),
    }
}

fn leave_environment(state: &mut State, node: &NodeId) {
    let Some(record) = state.nodes.get(node) else {
        return;
    };
    if let Some(env) = state.envs.get_mut(&record.environment) {
        env.nodes.remove(node);
        for module in env.modules.values_mut() {
            module.exceptions.remove(node);
        }
    }
}

fn deployments(state: &mut State, event: &Event, now: Now) {
    match event {
        Event::DeploymentRequested {
            request,
            release,
            approval,
            approvers,
        } => {
            let mut stages = Vec::new();
            if *approval {
                let waiting = StageStatus::WaitingForApproval;
                stages.push(Stage {
                    status: waiting,
                    started: Some(now),
                    ..Stage::pending(StageKind::Approval)
                });
            }
            stages.extend([StageKind::Build, StageKind::Test, StageKind::SecurityScan].map(Stage::pending));
            for environment in &state.environments {
                let kind = StageKind::Deploy(environment.name.clone());
                stages.push(Stage {
                    strategy: Some(environment.strategy.name().to_owned()),
                    ..Stage::pending(kind)
                });
                if environment.name == request.target {
                    break;
                }
            }
            stages.push(Stage::pending(StageKind::Validation));
            let timeout = state
                .environment(&request.target)
                .map_or(Millis(0), |env| env.approval_timeout);
            let deployment = Deployment {
                id: request.id,
                trace_id: request.trace_id.clone(),
                purpose: Purpose::Deploy,
                seed: request.seed,
                order: state.seq,
                module: request.module.clone(),
                release: Some(release.clone()),
                target: request.target.clone(),
                requester: request.requester.clone(),
                requester_email: request.requester_email.clone(),
                description: request.description.clone(),
                metadata: request.metadata.clone(),
                allow_downgrade: request.allow_downgrade,
                supersede: request.supersede,
                requested: now,
                approval_until: approval.then_some(now.wall + timeout),
                approval: None,
                approvers: approvers.clone(),
                approvals: Vec::new(),
                frozen: None,
                stages,
                status: if *approval {
                    DeploymentStatus::PendingApproval
                } else {
                    DeploymentStatus::Running
                },
                message: String::new(),
                ended: None,
                paused: None,
            };
            state.deployments.insert(request.id, deployment);
        }
        Event::ReversalRequested {
            deployment,
            trace_id,
            of,
            module,
            environment,
            from,
            to,
            by,
        } => {
            let stage = Stage {
                strategy: Some("Direct".to_owned()),
                ..Stage::pending(StageKind::Deploy(environment.clone()))
            };
            let record = Deployment {
                id: *deployment,
                trace_id: trace_id.clone(),
                purpose: Purpose::Reverse {
                    of: *of,
                    to: to.clone(),
                },
                seed: 0,
                order: state.seq,
                module: module.clone(),
                release: from.clone(),
                target: environment.clone(),
                requester: by.clone(),
                requester_email: String::new(),
                description: String::new(),
                metadata: BTreeMap::new(),
                allow_downgrade: true,
                supersede: true,
                requested: now,
                approval_until: None,
                approval: None,
                approvers: Approvers::default(),
                approvals: Vec::new(),
                frozen: None,
                stages: vec![stage],
                status: DeploymentStatus::Running,
                message: String::new(),
                ended: None,
                paused: None,
            };
            state.deployments.insert(*deployment, record);
        }
        Event::DeploymentRolledBack { deployment, .. } => {
            if let Some(finished) = state.finished.get_mut(deployment) {
                finished.status = DeploymentStatus::RolledBack;
            }
        }
        Event::ApprovalGiven { deployment: id, .. }
        | Event::ApprovalDecided { deployment: id, .. }
        | Event::DeploymentFrozen { deployment: id, .. }
        | Event::ApprovalExpired { deployment: id }
        | Event::StageStarted { deployment: id, .. }
        | Event::StageFinished { deployment: id, .. }
        | Event::RolloutPaused { deployment: id, .. }
        | Event::RolloutResumed { deployment: id, .. } => {
            if let Some(deployment) = state.deployments.get_mut(id) {
                progress(deployment, event, now);
            }
        }
        Event::DeploymentFinished {
            deployment,
            status,
            message,
        } => {
            finish(state, *deployment, *status, message, now);
        }
        _ => unreachable!("only deployment events come here"),
    }
}

fn progress(deployment: &mut Deployment, event: &Event, now: Now) {
    match event {
        Event::ApprovalGiven {
            by, email, reason, ..
        } => deployment.approvals.push(Approval {
            approved: true,
            by: by.clone(),
            email: email.clone(),
            reason: reason.clone(),
            at: now.wall,
        }),
        Event::DeploymentFrozen { frozen, .. } => deployment.frozen = Some(frozen.clone()),
        Event::ApprovalDecided {
            approved,
            by,
            email,
            reason,
            ..
        } => {
            deployment.approval = Some(Approval {
                approved: *approved,
                by: by.clone(),
                email: email.clone(),
                reason: reason.clone(),
                at: now.wall,
            });
            let (status, word) = if *approved {
                (StageStatus::Succeeded, "approved")
            } else {
                (StageStatus::Failed, "rejected")
            };
            let mut people: Vec<&str> = deployment
                .approvals
                .iter()
                .map(|given| given.by.as_str())
                .collect();
            if !*approved {
                people.clear();
            }
            people.push(by);
            let message = format!("{word} by {}", people.join(", "));
            end_approval(deployment, status, message, now);
        }
        Event::ApprovalExpired { .. } => {
            end_approval(
                deployment,
                StageStatus::Failed,
                "nobody decided in time".to_owned(),
                now,
            );
        }
        Event::StageStarted { stage, attempt, .. } => {
            let stage = &mut deployment.stages[*stage as usize];
            stage.status = StageStatus::Running;
            stage.attempt = *attempt;
            stage.started.get_or_insert(now);
        }
        Event::StageFinished {
            stage,
            status,
            message,
            nodes_deployed,
            nodes_failed,
            ..
        } => {
            let stage = &mut deployment.stages[*stage as usize];
            stage.status = *status;
            stage.message.clone_from(message);
            stage.nodes_deployed = *nodes_deployed;
            stage.nodes_failed = *nodes_failed;
            stage.started.get_or_insert(now);
            stage.ended = Some(now);
        }
        Event::RolloutPaused { by, until, .. } => {
            deployment.paused = Some(Pause {
                by: by.clone(),
                until: *until,
                since: now.core,
            });
            deployment.status = DeploymentStatus::Paused;
        }
        Event::RolloutResumed { .. } => {
            deployment.paused = None;
            deployment.status = DeploymentStatus::Running;
        }
        _ => unreachable!("only a deployment's progress comes here"),
    }
}

fn end_approval(deployment: &mut Deployment, status: StageStatus, message: String, now: Now) {
    if let Some(stage) = deployment
        .stages
        .iter_mut()
        .find(|stage| stage.kind == StageKind::Approval)
    {
        stage.status = status;
        stage.message = message;
        stage.ended = Some(now);
    }
    deployment.status = DeploymentStatus::Running;
}

/// Finished deployments leave the working set; the newest stay at hand.
fn finish(state: &mut State, id: DeploymentId, status: DeploymentStatus, message: &str, now: Now) {
    let Some(mut deployment) = state.deployments.remove(&id) else {
        return;
    };
    deployment.status = status;
    message.clone_into(&mut deployment.message);
    deployment.ended = Some(now);
    deployment.paused = None;
    for stage in &mut deployment.stages {
        if !stage.status.is_finished() {
            let began = stage.status == StageStatus::Running;
            stage.status = if began {
                StageStatus::Failed
            } else {
                StageStatus::Skipped
            };
            stage.ended = began.then_some(now);
            if stage.message.is_empty() {
                stage.message = if began {
                    message.to_owned()
                } else {
                    "not reached".to_owned()
                };
            }
        }
    }
    state.finished.insert(id, deployment);
    state.finished_order.push(id);
    if state.finished_order.len() > FINISHED_KEPT_MAX {
        let oldest = state.finished_order.remove(0);
        state.finished.remove(&oldest);
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

fn env_module<'a>(state: &'a mut State, key: &RolloutKey) -> &'a mut EnvModule {
    state
        .envs
        .entry(key.environment.clone())
        .or_default()
        .modules
        .entry(key.module.clone())
        .or_default()
}

fn rollout<'a>(state: &'a mut State, key: &RolloutKey) -> &'a mut Rollout {
    let found = env_module(state, key)
        .rollout
        .as_deref_mut()
        .filter(|rollout| rollout.plan.id == key.rollout);
    found.expect("an event names an unfinished rollout")
}

fn rollouts(state: &mut State, event: &Event, now: Now) {
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

fn touch_node(state: &mut State, node: &NodeId) {
    let seq = state.seq;
    if let Some(record) = state.nodes.get_mut(node) {
        record.touched = seq;
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
