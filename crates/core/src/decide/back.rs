//! A rollout on its way back: everyone is told the stable release; it waits for those it can reach.

use super::nodes::{back_lack, is_unknown};
use crate::desired::{desired_module, routes_at_rest};
use crate::event::Event;
use crate::explain::{Wait, nodes};
use crate::ids::{Digest, NodeId};
use crate::mutants::{Mutant, is_on};
use crate::observe::{ModuleObs, Observations, Presence};
use crate::ordered::each_in_order;
use crate::rollout::{BackReason, Phase, Rollout};
use crate::stage::{DeploymentStatus, Purpose, StageKind, StageStatus};
use crate::state::{EnvModule, Node, State};
use crate::time::Now;

/// Most missing nodes that a message names.
const MISSING_TOLD_MAX: usize = 10;

pub(super) fn back(
    state: &State,
    obs: &Observations,
    rollout: &Rollout,
    now: Now,
) -> Result<Vec<Event>, Wait> {
    let Phase::Back { began, reason } = &rollout.phase else {
        unreachable!("only a rollout on its way back comes here")
    };
    let policy = &rollout.plan.policy;
    let mut missing = Vec::new();
    let mut pending = Vec::new();
    let mut back = Vec::new();
    let env = state.envs.get(&rollout.plan.environment);
    let members = env.into_iter().flat_map(|env| &env.nodes);
    // Whoever is drained serves nothing that could go back.
    let here = each_in_order(&state.nodes, members)
        .filter(|(_, record)| !record.is_some_and(Node::is_drained))
        .map(|(node, _)| node);
    let wanted = Wanted::of(state, rollout);
    for (node, seen) in obs.seen_in_order(here, now.core) {
        match seen.presence {
            // Right after a start everyone is unknown; whoever is away is missing, not waited for.
            Presence::Silent { .. } => {
                let listening_for = now.core.since(obs.started());
                let just_started =
                    seen.node.is_none_or(|node| node.hello.is_none()) && listening_for < policy.silence_max;
                if just_started && is_unknown(seen.presence, policy.silence_max) {
                    pending.push((node, "not heard of yet"));
                } else {
                    missing.push(node.clone());
                }
            }
            Presence::Known { .. } => match wanted.lack(node, seen.module(&rollout.plan.module)) {
                Some(lack) => pending.push((node, lack)),
                None => back.push(node),
            },
        }
    }
    let late = now.core.since(*began) >= policy.back_deadline;
    if !pending.is_empty() && !late {
        return Err(Wait::way_back(&pending));
    }
    missing.extend(pending.into_iter().map(|(node, _)| node.clone()));
    // Those that it never reached were never away.
    let back = back.into_iter().filter(|node| match rollout.plan.reverse {
        true => !rollout.excluded.contains_key(*node),
        false => rollout.cohort.contains(*node),
    });
    let back = u32::try_from(back.count()).expect("nodes are bounded by NODES_MAX");
    Ok(end(state, rollout, reason, back, missing))
}

/// The routes that nodes are wanted to have at rest: the same on all of them but a few.
struct Wanted<'a> {
    state: &'a State,
    rollout: &'a Rollout,
    module: Option<&'a EnvModule>,
    usual: Option<Vec<(Digest, u8)>>,
}

impl<'a> Wanted<'a> {
    fn of(state: &'a State, rollout: &'a Rollout) -> Self {
        let module = state.env_module(&rollout.plan.environment, &rollout.plan.module);
        Self {
            state,
            rollout,
            module,
            usual: module.and_then(routes_at_rest),
        }
    }

    fn lack(&self, node: &NodeId, seen: Option<&ModuleObs>) -> Option<&'static str> {
        let excepted = self
            .module
            .is_some_and(|module| module.exceptions.contains_key(node));
        if excepted || is_on(Mutant::RollbackForgetsOne) {
            let own = desired_module(self.state, node, &self.rollout.plan.module);
            let own = own.map(|spec| spec.routes).filter(|routes| !routes.is_empty());
            return back_lack(own.as_deref(), seen);
        }
        back_lack(self.usual.as_deref(), seen)
    }
}

fn end(state: &State, rollout: &Rollout, reason: &BackReason, back: u32, missing: Vec<NodeId>) -> Vec<Event> {
    let plan = &rollout.plan;
    let mut events = Vec::new();
    let Some(deployment) = state.deployments.get(&plan.deployment) else {
        return vec![Event::RolloutEnded {
            key: rollout.key(),
            kept: false,
            missing,
        }];
    };
    let to = match &plan.base {
        Some(base) if back == 1 => format!("1 node is back on {base}"),
        Some(base) => format!("{} are back on {base}", nodes(back)),
        None => format!("{} unloaded it", nodes(back)),
    };
    let told = missing_told(&missing);
    let reversal = matches!(deployment.purpose, Purpose::Reverse { .. });
    let message = if reversal {
        let left: Vec<&str> = rollout.excluded.keys().map(NodeId::as_str).collect();
        let left = if left.is_empty() {
            String::new()
        } else {
            format!("; left by {} by themselves", left.join(", "))
        };
        format!("{to}{left}{told}")
    } else {
        format!("rolled back: {reason}; {to}{told}")
    };
    let failed = u32::try_from(rollout.excluded.len()).unwrap_or(u32::MAX);
    let current = deployment
        .stages
        .iter()
        .position(|stage| stage.status == StageStatus::Running);
    let place = current.or_else(|| {
        deployment
            .stages
            .iter()
            .position(|stage| stage.kind == StageKind::Deploy(plan.environment.clone()))
    });
    if let Some(stage) = place.and_then(|place| u32::try_from(place).ok()) {
        events.push(Event::StageFinished {
            deployment: plan.deployment,
            stage,
            status: if reversal {
                StageStatus::Succeeded
            } else {
                StageStatus::Failed
            },
            message: message.clone(),
            nodes_deployed: if reversal { back } else { 0 },
            nodes_failed: failed,
        });
    }
    events.push(Event::RolloutEnded {
        key: rollout.key(),
        kept: false,
        missing,
    });
    let status = match reason {
        _ if reversal => DeploymentStatus::Succeeded,
        BackReason::Aborted { .. } | BackReason::Superseded { .. } => DeploymentStatus::Cancelled,
        _ => DeploymentStatus::Failed,
    };
    events.push(Event::DeploymentFinished {
        deployment: plan.deployment,
        status,
        message,
    });
    events
}

fn missing_told(missing: &[NodeId]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let named: Vec<&str> = missing
        .iter()
        .take(MISSING_TOLD_MAX)
        .map(NodeId::as_str)
        .collect();
    let more = missing.len().saturating_sub(MISSING_TOLD_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        "; out of reach and to converge when they return: {}{more}",
        named.join(", ")
    )
}
