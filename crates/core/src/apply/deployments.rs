//! Deployments and their stages.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::ids::DeploymentId;
use crate::policy::Approvers;
use crate::stage::{Approval, Deployment, DeploymentStatus, Pause, Purpose, Stage, StageKind, StageStatus};
use crate::state::{FINISHED_KEPT_MAX, State};
use crate::time::{Millis, Now};

pub(super) fn deployments(state: &mut State, event: &Event, now: Now) {
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
            for environment in state.environments_to(&request.target) {
                let kind = StageKind::Deploy(environment.name.clone());
                stages.push(Stage {
                    strategy: Some(environment.strategy.name().to_owned()),
                    ..Stage::pending(kind)
                });
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
                values: approval.then(|| {
                    let way = state.environments_to(&request.target).iter();
                    way.map(|place| (place.name.clone(), state.values_in(&place.name, &request.module)))
                        .collect()
                }),
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
                values: None,
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
