//! A release is asked for.

use super::Accepted;
use crate::capability::none_able;
use crate::command::{DEPLOYMENTS_UNFINISHED_MAX, DeployRequest, Refusal};
use crate::decide::Reply;
use crate::event::Event;
use crate::ids::ReleaseRef;
use crate::observe::Observations;
use crate::policy::{Approvers, Environment};
use crate::stage::DeploymentStatus;
use crate::state::State;

pub(super) fn deploy(
    state: &State,
    obs: &Observations,
    mut request: Box<DeployRequest>,
) -> Result<Accepted, Refusal> {
    let environment = state.environment(&request.target)?;
    request.target = environment.name.clone();
    let pushed = state.release(&request.module, &request.version)?;
    let digest = pushed.digest;
    let release = ReleaseRef {
        version: request.version.clone(),
        digest,
        config: 0,
    };
    let here = release.under(state.values_in(&request.target, &request.module));
    if let Some(hold) = state
        .hold(&request.module, &digest)
        .filter(|hold| hold.bars(&here))
    {
        let (module, reason) = (request.module.clone(), hold.reason.clone());
        return Err(if hold.revoked {
            Refusal::ReleaseRevoked {
                module,
                release,
                reason,
            }
        } else {
            Refusal::ReleaseHeld {
                module,
                release,
                reason,
            }
        });
    }
    if let Some(minimum) = state.minimum(&request.module)
        && request.version < *minimum
    {
        return Err(Refusal::BelowMinimum {
            module: request.module,
            version: request.version,
            minimum: minimum.clone(),
        });
    }
    if let Some(yank) = state.yank(&request.module, &request.version) {
        let (module, version, reason) = (
            request.module.clone(),
            request.version.clone(),
            yank.reason.clone(),
        );
        return Err(Refusal::ReleaseYanked {
            module,
            version,
            reason,
        });
    }
    if let Some(nodes) = none_able(state, obs, &request.target, pushed) {
        return Err(Refusal::NoCapableNode {
            module: request.module.clone(),
            version: request.version.clone(),
            environment: request.target.clone(),
            nodes: nodes
                .into_iter()
                .map(|(node, lack)| format!("{node} {lack}"))
                .collect(),
        });
    }
    // Judged where somebody can still choose: a rollout that meets such a strategy later goes by nodes.
    let mut way = state.environments_to(&request.target).iter();
    if !pushed.kind.routes()
        && let Some(environment) = way.find(|environment| environment.strategy.shares_traffic())
    {
        return Err(Refusal::NoTrafficToShare {
            module: request.module.clone(),
            kind: pushed.kind,
            environment: environment.name.clone(),
        });
    }
    if state.deployment(&request.id).is_some() {
        return Err(Refusal::DuplicateDeployment(request.id));
    }
    if state.deployments.len() >= DEPLOYMENTS_UNFINISHED_MAX {
        return Err(Refusal::Limit(format!(
            "{DEPLOYMENTS_UNFINISHED_MAX} deployments are unfinished, the most there may be; try again when some ended"
        )));
    }
    let (approval, approvers) = approval(state, &request);
    let status = if approval {
        DeploymentStatus::PendingApproval
    } else {
        DeploymentStatus::Running
    };
    let reply = Reply {
        deployment: Some(request.id),
        status: Some(status),
        nodes_affected: 0,
    };
    Ok((
        vec![Event::DeploymentRequested {
            request,
            release,
            approval,
            approvers,
        }],
        reply,
    ))
}

/// Whether a deployment needs an approval, and whose: what any environment on its way asks for. Where several do, as many
/// people as the strictest asks for, of those whom the last one names.
fn approval(state: &State, request: &DeployRequest) -> (bool, Approvers) {
    let way = state.environments_to(&request.target);
    let asking: Vec<&Environment> = way.iter().filter(|place| place.approval_required).collect();
    let whose = asking.last().copied().or(way.last());
    let mut approvers = whose.map(|place| place.approvers.clone()).unwrap_or_default();
    let strictest = asking.iter().map(|place| place.approvers.needed).max();
    approvers.needed = strictest.unwrap_or(approvers.needed);
    (request.require_approval || !asking.is_empty(), approvers)
}
