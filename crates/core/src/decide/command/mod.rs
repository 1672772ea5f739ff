//! Commands: what people and programs ask for, or why not.

mod approval;
mod deploy;
mod reversal;
mod steer;

use super::node_commands::DRAIN_DEADLINE_MAX;
use super::{Reply, node_commands, releases, values};
use crate::command::{Command, Refusal};
use crate::desired::nodes_ahead;
use crate::event::Event;
use crate::ids::{DeploymentId, EnvName, NodeId};
use crate::observe::Observations;
use crate::policy::Environment;
use crate::rollout::Excuse;
use crate::stage::Deployment;
use crate::state::State;
use crate::time::Now;
use approval::{Decided, decide_approval};
use deploy::deploy;
use reversal::{Reversal, abort, roll_back, undeploy};
use steer::{pause, promote, resume, skip_step};

/// The highest leadership that is taken for one: far above what starts and takeovers make, and a whole number in JSON
/// and in databases.
const EPOCH_MAX: u64 = 1 << 52;
/// The highest number that a rollout may get by an adoption.
const ROLLOUTS_MAX: u64 = 1 << 52;

pub(super) type Accepted = (Vec<Event>, Reply);

pub(super) fn command(
    state: &State,
    obs: &Observations,
    command: Command,
    now: Now,
) -> Result<Accepted, Refusal> {
    match command {
        Command::Configure { environments } => configure(state, environments),
        Command::PushRelease {
            module,
            version,
            release,
        } => releases::push(state, module, version, release),
        Command::Deploy(request) => deploy(state, obs, request),
        Command::Decide {
            deployment,
            approve,
            by,
            email,
            reason,
        } => decide_approval(
            state,
            deployment,
            Decided {
                approve,
                by,
                email,
                reason,
            },
        ),
        Command::Abort { deployment, by } => abort(state, deployment, &by),
        Command::RollBack {
            deployment,
            id,
            trace_id,
            by,
        } => roll_back(state, deployment, Reversal { id, trace_id, by }),
        Command::Undeploy {
            id,
            trace_id,
            module,
            environment,
            by,
        } => undeploy(state, &module, &environment, Reversal { id, trace_id, by }),
        Command::Pause { deployment, by } => pause(state, deployment, by, now),
        Command::Resume { deployment, by } => resume(state, deployment, by),
        Command::SkipStep { deployment, by } => skip_step(state, deployment, by),
        Command::Promote { deployment, by } => promote(state, deployment, by),
        Command::Hold {
            module,
            release,
            reason,
            by,
        } => {
            state.release(&module, &release.version)?;
            let reason = format!("{reason} (by {by})");
            Ok((
                vec![Event::ReleaseHeld {
                    module,
                    release,
                    reason,
                }],
                Reply::default(),
            ))
        }
        Command::LiftHold { module, digest, by } => {
            let hold = state.hold(&module, &digest);
            let hold = hold.ok_or_else(|| {
                Refusal::NotNow(format!("no release {} of {module} is on hold", digest.short()))
            })?;
            if hold.revoked {
                let (release, reason) = (hold.release.clone(), hold.reason.clone());
                return Err(Refusal::ReleaseRevoked {
                    module,
                    release,
                    reason,
                });
            }
            Ok((
                vec![Event::ReleaseHoldLifted { module, digest, by }],
                Reply::default(),
            ))
        }
        Command::Revoke {
            module,
            version,
            reason,
            by,
        } => releases::revoke(state, module, version, reason, by),
        Command::SetMinimumVersion { module, version, by } => {
            releases::set_minimum(state, module, version, by)
        }
        Command::Yank {
            module,
            version,
            reason,
            by,
        } => releases::yank(state, module, version, reason, by),
        Command::Unyank { module, version, by } => releases::unyank(state, module, version, by),
        Command::SetValues {
            module,
            environment,
            values,
            expected,
            by,
        } => values::set_values(state, (module, &environment), values, expected, by),
        Command::SetLabels { node, set, by } => node_commands::set_labels(state, node, set, by),
        Command::Drain {
            node,
            deadline,
            reason,
            by,
        } => node_commands::drain(
            state,
            node,
            now.wall + deadline.min(DRAIN_DEADLINE_MAX),
            reason,
            by,
        ),
        Command::Undrain { node, by } => node_commands::undrain(state, node, by),
        Command::MoveNode {
            node,
            environment,
            by,
        } => move_node(state, node, &environment, by),
        Command::RemoveNode { node, by } => {
            let mut events = excuse_everywhere(state, &node, Excuse::Removed)?;
            events.push(Event::NodeRemoved { node, by });
            Ok((events, Reply::default()))
        }
        Command::AdoptFleet { by } => adopt(state, obs, by),
    }
}

/// A leadership above all that the fleet knows, so that every node takes this log's specs.
fn adopt(state: &State, obs: &Observations, by: String) -> Result<Accepted, Refusal> {
    let highest = nodes_ahead(state, obs).map(|(_, highest)| highest).max();
    let Some(highest) = highest else {
        return Err(Refusal::NotNow(
            "there is nothing to adopt: no connected node knows newer specs than this log".to_owned(),
        ));
    };
    let epoch = state.epoch.max(highest.epoch).saturating_add(1);
    if epoch > EPOCH_MAX {
        return Err(Refusal::NotNow(format!(
            "a node names the leadership {}, more than there can ever be; remove that node",
            highest.epoch
        )));
    }
    // Each rollout of the lost part had events of its own, so there were no more rollouts than events.
    let seen = obs
        .nodes()
        .map(|(_, seen)| seen.highest.seq)
        .max()
        .unwrap_or_default();
    Ok((
        vec![Event::FleetAdopted {
            epoch,
            rollouts_above: state.rollouts.max(seen.min(ROLLOUTS_MAX)),
            by,
        }],
        Reply::default(),
    ))
}

fn configure(state: &State, environments: Vec<Environment>) -> Result<Accepted, Refusal> {
    Environment::validate_all(&environments).map_err(Refusal::Configuration)?;
    let used = state
        .envs
        .iter()
        .filter(|(_, env)| !env.nodes.is_empty() || !env.modules.is_empty());
    let gone: Vec<String> = used
        .map(|(name, _)| name)
        .filter(|name| environments.iter().all(|environment| environment.name != **name))
        .map(|name| format!("{name} has nodes or modules and can't be left out; move or undeploy them first"))
        .collect();
    if !gone.is_empty() {
        return Err(Refusal::Configuration(gone));
    }
    if environments == state.environments {
        return Ok((Vec::new(), Reply::default()));
    }
    Ok((
        vec![Event::EnvironmentsConfigured { environments }],
        Reply::default(),
    ))
}

/// A deployment that can still be steered.
fn running(state: &State, id: DeploymentId) -> Result<&Deployment, Refusal> {
    if let Some(deployment) = state.deployments.get(&id) {
        return Ok(deployment);
    }
    Err(match state.finished.get(&id) {
        Some(finished) => Refusal::NotNow(format!("deployment {id} has ended: it is {:?}", finished.status)),
        None => Refusal::UnknownDeployment(id),
    })
}

fn affected(state: &State, environment: &EnvName) -> u32 {
    let nodes = state.envs.get(environment).map_or(0, |env| env.nodes.len());
    u32::try_from(nodes).expect("nodes are bounded by NODES_MAX")
}

fn move_node(state: &State, node: NodeId, to: &EnvName, by: String) -> Result<Accepted, Refusal> {
    let environment = state.environment(to)?.name.clone();
    let record = state
        .nodes
        .get(&node)
        .ok_or_else(|| Refusal::UnknownNode(node.clone()))?;
    if record.environment == environment {
        return Err(Refusal::NotNow(format!(
            "{node} belongs to {environment} already"
        )));
    }
    let mut events = excuse_everywhere(state, &node, Excuse::Moved)?;
    events.push(Event::NodeMoved {
        node,
        environment,
        by,
    });
    Ok((
        events,
        Reply {
            nodes_affected: 1,
            ..Reply::default()
        },
    ))
}

/// Excuses a node from every rollout of the environment that it leaves.
pub(super) fn excuse_everywhere(state: &State, node: &NodeId, reason: Excuse) -> Result<Vec<Event>, Refusal> {
    let record = state
        .nodes
        .get(node)
        .ok_or_else(|| Refusal::UnknownNode(node.clone()))?;
    let env = state.envs.get(&record.environment);
    let rollouts = env
        .into_iter()
        .flat_map(|env| env.modules.values())
        .filter_map(|m| m.rollout.as_deref());
    Ok(rollouts
        .filter(|rollout| rollout.place(node).is_some())
        .map(|rollout| Event::NodeExcused {
            key: rollout.key(),
            node: node.clone(),
            reason,
        })
        .collect())
}
