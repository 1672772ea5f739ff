//! Events of a deployment as sentences. Evidence is left to the analysis: it would drown the decisions.

use hotswap_core::event::Event;
use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::rollout::{Step, StepPass};

use super::deployment::{stage_status_name, status_name};

/// Most nodes that a sentence names.
const NODES_NAMED_MAX: usize = 5;

/// Where an event happened, if in an environment.
pub fn environment(event: &Event) -> Option<&EnvName> {
    match event {
        Event::RolloutStarted { plan } => Some(&plan.environment),
        Event::ExceptionRecorded { environment, .. }
        | Event::ReversalRequested { environment, .. }
        | Event::NodeRegistered { environment, .. }
        | Event::NodeMoved { environment, .. } => Some(environment),
        Event::StepStarted { key, .. }
        | Event::StepCompleted { key, .. }
        | Event::NodeEntered { key, .. }
        | Event::NodeExcluded { key, .. }
        | Event::NodeExcused { key, .. }
        | Event::RolloutHeld { key, .. }
        | Event::RolloutReleased { key }
        | Event::RolloutPromoted { key, .. }
        | Event::ValidationStarted { key }
        | Event::BackStarted { key, .. }
        | Event::StableSet { key, .. }
        | Event::RolloutEnded { key, .. } => Some(&key.environment),
        _ => None,
    }
}

/// An event as a sentence; `None` where it decides nothing.
pub fn sentence(event: &Event) -> Option<String> {
    Some(match event {
        Event::DeploymentRequested {
            request, approval, ..
        } => {
            let approval = if *approval {
                "; a person must approve it first"
            } else {
                ""
            };
            format!(
                "{} asked for {} {} to {}{approval}",
                request.requester, request.module, request.version, request.target
            )
        }
        Event::ReversalRequested {
            from,
            to,
            environment,
            by,
            ..
        } => match (from, to) {
            (Some(from), Some(to)) => format!("{by} asked for {environment} to go back from {from} to {to}"),
            (None, Some(to)) => format!("{by} asked for {environment} to go back to {to}"),
            (_, None) => format!("{by} asked for the module to be unloaded from {environment}"),
        },
        Event::ApprovalDecided {
            approved, by, reason, ..
        } => {
            let word = if *approved { "approved" } else { "rejected" };
            reason.as_ref().map_or_else(
                || format!("{by} {word} it"),
                |reason| format!("{by} {word} it: {reason}"),
            )
        }
        Event::ApprovalGiven { by, reason, .. } => reason.as_ref().map_or_else(
            || format!("{by} approved it; more people must"),
            |reason| format!("{by} approved it, and more people must: {reason}"),
        ),
        Event::DeploymentFrozen { frozen, .. } => {
            let until = super::time::rfc3339(frozen.until);
            format!(
                "{} is frozen by {} until {until}",
                frozen.environment, frozen.window
            )
        }
        Event::ApprovalExpired { .. } => "nobody decided the approval in time".to_owned(),
        Event::StageStarted { attempt, .. } if *attempt > 1 => {
            format!("the stage began again, attempt {attempt}")
        }
        Event::StageStarted { .. } => "the stage began".to_owned(),
        Event::StageFinished { status, message, .. } => {
            ended("the stage", stage_status_name(*status), message)
        }
        Event::DeploymentFinished { status, message, .. } => {
            ended("the deployment", status_name(*status), message)
        }
        Event::DeploymentRolledBack { by, .. } => format!("undone by deployment {by}"),
        Event::RolloutPaused { by, .. } => format!("{by} paused it"),
        Event::RolloutResumed { by, .. } => format!("{by} let it go on"),
        _ => return of_rollout(event).or_else(|| of_fleet(event)),
    })
}

/// What happened to releases, nodes and the server itself.
fn of_fleet(event: &Event) -> Option<String> {
    Some(match event {
        Event::EnvironmentsConfigured { environments } => {
            let names: Vec<&str> = environments
                .iter()
                .map(|environment| environment.name.as_str())
                .collect();
            format!("the environments were configured: {}", names.join(", "))
        }
        Event::EpochStarted { epoch } => format!("the server began epoch {epoch}"),
        Event::ReleasePushed {
            module,
            version,
            release,
        } => format!("{} pushed {module} {version}", release.pushed_by),
        Event::ReleaseHeld {
            module,
            release,
            reason,
        } => format!("{module} {release} is on hold: {reason}"),
        Event::ReleaseHoldLifted { module, digest, by } => {
            format!("{by} lifted the hold of {module} {}", digest.short())
        }
        Event::ReleaseYanked {
            module,
            version,
            reason,
            by,
        } => format!("{by} withdrew {module} {version}: {reason}"),
        Event::ReleaseUnyanked { module, version, by } => format!("{by} offers {module} {version} again"),
        Event::ValuesSet {
            module,
            environment,
            number,
            values,
            by,
        } => {
            let keys: Vec<&str> = values.keys().map(String::as_str).collect();
            let keys = if keys.is_empty() {
                "none".to_owned()
            } else {
                keys.join(", ")
            };
            format!("{by} set values {number} of {module} in {environment}: {keys}")
        }
        Event::NodeRegistered {
            node, environment, ..
        } => format!("{node} joined {environment}"),
        Event::NodeDescribed { node, .. } => format!("{node} describes itself anew"),
        Event::NodeMoved {
            node,
            environment,
            by,
        } => format!("{by} moved {node} to {environment}"),
        Event::NodeRemoved { node, by } => format!("{by} removed {node}"),
        Event::NodeLabelsSet { node, by, .. } => format!("{by} set labels of {node}"),
        Event::NodeDrainRequested { node, by, reason, .. } => {
            let colon = if reason.is_empty() { "" } else { ": " };
            format!("{by} asked for {node} to be drained{colon}{reason}")
        }
        Event::NodeDrained { node } => format!("{node} is drained: it serves nothing"),
        Event::NodeUndrained { node, by } => format!("{by} let {node} serve again"),
        _ => return None,
    })
}

fn of_rollout(event: &Event) -> Option<String> {
    Some(match event {
        Event::RolloutStarted { plan } => {
            let (nodes, steps) = (plan.order.len(), plan.steps.len());
            let way = if plan.reverse {
                "the way back"
            } else {
                plan.strategy.as_str()
            };
            let candidate = plan
                .candidate
                .as_ref()
                .map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let base = plan
                .base
                .as_ref()
                .map_or_else(|| "nothing".to_owned(), ToString::to_string);
            format!("{way} began: from {base} to {candidate} on {nodes} nodes in {steps} steps")
        }
        Event::StepStarted { step, joins, .. } if joins.is_empty() => {
            format!("step {} began with the nodes that are there", step + 1)
        }
        Event::StepStarted { step, joins, .. } => {
            format!(
                "step {} began: {} joined ({})",
                step + 1,
                counted(joins.len()),
                named(joins)
            )
        }
        Event::StepCompleted { step, pass, .. } => format!("step {} passed: {}", step + 1, passed(pass)),
        Event::NodeEntered { node, .. } => format!("{node} entered late"),
        Event::NodeExcluded { node, reason, .. } => format!("{node} counts as failed: {reason}"),
        Event::NodeExcused { node, reason, .. } => format!("{node} does not count: it {reason}"),
        Event::RolloutHeld { reason, .. } => format!("held: {reason}"),
        Event::RolloutReleased { .. } => "no longer held".to_owned(),
        Event::RolloutPromoted { by, .. } => format!("{by} passed all gates by their word"),
        Event::ValidationStarted { .. } => "validation began".to_owned(),
        Event::BackStarted { reason, .. } => format!("going back: {reason}"),
        Event::StableSet {
            release: Some(release),
            ..
        } => format!("{release} is stable now"),
        Event::StableSet { release: None, .. } => "nothing is stable now".to_owned(),
        Event::RolloutEnded { kept, missing, .. } => {
            let end = if *kept {
                "the release stayed"
            } else {
                "the release is gone again"
            };
            match missing.len() {
                0 => format!("the rollout ended: {end}"),
                count => format!(
                    "the rollout ended: {end}; {} not reached: {}",
                    counted(count),
                    named(missing)
                ),
            }
        }
        Event::ExceptionRecorded {
            node,
            release,
            base,
            reason,
            ..
        } => {
            let base = base
                .as_ref()
                .map_or_else(|| "nothing".to_owned(), ToString::to_string);
            format!("{node} left {release} by itself and runs {base}: {reason}")
        }
        _ => return None,
    })
}

fn ended(what: &str, status: &str, message: &str) -> String {
    let colon = if message.is_empty() { "" } else { ": " };
    format!("{what} ended as {status}{colon}{message}")
}

fn passed(pass: &StepPass) -> String {
    match pass {
        StepPass::Gate { detail } => detail.clone(),
        StepPass::Override { who } => format!("by the word of {who}"),
        StepPass::Inconclusive { detail } => format!("without a verdict, as the policy says: {detail}"),
        StepPass::Empty => "all of its nodes moved away".to_owned(),
    }
}

/// What a step is, for people.
pub fn step(step: &Step) -> String {
    let share = if step.preview {
        "in preview".to_owned()
    } else {
        format!("{} % of requests", step.weight)
    };
    format!("{} {share}", counted(step.upto as usize))
}

fn counted(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

fn named(nodes: &[NodeId]) -> String {
    let first: Vec<&str> = nodes.iter().take(NODES_NAMED_MAX).map(NodeId::as_str).collect();
    match nodes.len().saturating_sub(NODES_NAMED_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
