//! A person decides about a deployment.

use super::Accepted;
use crate::command::Refusal;
use crate::decide::Reply;
use crate::decide::deployment::not_as_asked;
use crate::event::Event;
use crate::ids::DeploymentId;
use crate::stage::DeploymentStatus;
use crate::state::State;

pub(super) struct Decided {
    pub(super) approve: bool,
    pub(super) by: String,
    pub(super) email: String,
    pub(super) reason: Option<String>,
}

pub(super) fn decide_approval(
    state: &State,
    id: DeploymentId,
    decided: Decided,
) -> Result<Accepted, Refusal> {
    let Some(deployment) = state.deployments.get(&id) else {
        return Err(match state.finished.get(&id) {
            Some(_) => Refusal::AlreadyDecided(format!("deployment {id} has ended")),
            None => Refusal::UnknownDeployment(id),
        });
    };
    if let Some(approval) = &deployment.approval {
        let word = if approval.approved { "approved" } else { "rejected" };
        return Err(Refusal::AlreadyDecided(format!(
            "deployment {id} was {word} by {} already",
            approval.by
        )));
    }
    if deployment.status != DeploymentStatus::PendingApproval {
        return Err(Refusal::AlreadyDecided(format!(
            "deployment {id} waits for no approval"
        )));
    }
    if deployment.requester == decided.by {
        return Err(Refusal::Forbidden(format!(
            "{} asked for deployment {id} and can't decide on it; another person must",
            decided.by
        )));
    }
    let mut way = state.environments_to(&deployment.target).iter();
    if decided.approve
        && let Some(why) = way.find_map(|place| not_as_asked(state, deployment, &place.name))
    {
        return Err(Refusal::NotNow(why));
    }
    let approvers = &deployment.approvers;
    if !approvers.subjects.is_empty() && !approvers.subjects.contains(&decided.by) {
        return Err(Refusal::Forbidden(format!(
            "{} is none of those who may decide on deployments to {}: {}",
            decided.by,
            deployment.target,
            approvers.subjects.join(", ")
        )));
    }
    if decided.approve {
        if deployment.approvals.iter().any(|given| given.by == decided.by) {
            return Err(Refusal::AlreadyDecided(format!(
                "{} approved deployment {id} already; another person must, too",
                decided.by
            )));
        }
        if deployment.approvals.len() + 1 < approvers.needed as usize {
            let given = Event::ApprovalGiven {
                deployment: id,
                by: decided.by,
                email: decided.email,
                reason: decided.reason,
            };
            let reply = Reply {
                deployment: Some(id),
                status: Some(DeploymentStatus::PendingApproval),
                ..Reply::default()
            };
            return Ok((vec![given], reply));
        }
    }
    let approved = decided.approve;
    let message = format!("rejected by {}", decided.by);
    let mut events = vec![Event::ApprovalDecided {
        deployment: id,
        approved,
        by: decided.by,
        email: decided.email,
        reason: decided.reason,
    }];
    if !approved {
        let status = DeploymentStatus::Failed;
        events.push(Event::DeploymentFinished {
            deployment: id,
            status,
            message,
        });
    }
    Ok((
        events,
        Reply {
            deployment: Some(id),
            ..Reply::default()
        },
    ))
}
