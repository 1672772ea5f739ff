//! Commands: what people and programs ask for, or why not.

use super::forward::go_back;
use super::node_commands::DRAIN_DEADLINE_MAX;
use super::{Reply, node_commands, releases, values};
use crate::capability::none_able;
use crate::command::{Command, DEPLOYMENTS_UNFINISHED_MAX, DeployRequest, Refusal};
use crate::desired::nodes_ahead;
use crate::event::Event;
use crate::ids::{DeploymentId, EnvName, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::observe::Observations;
use crate::policy::Environment;
use crate::release::{Kind, RELEASES_PER_MODULE_MAX};
use crate::rollout::{BackReason, Excuse, Phase, Rollout, RolloutPlan, StepPass};
use crate::stage::{Deployment, DeploymentStatus, Purpose, StageStatus};
use crate::state::{EnvModule, State};
use crate::time::Now;

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
        } => push(state, module, version, release),
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
        } => revoke(state, module, version, reason, by),
        Command::SetMinimumVersion { module, version, by } => set_minimum(state, module, version, by),
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

fn push(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    release: crate::release::Release,
) -> Result<Accepted, Refusal> {
    if let Some(known) = state.modules.get(&module) {
        if let Some(existing) = known.releases.get(&version) {
            if existing.digest == release.digest {
                return Ok((Vec::new(), Reply::default()));
            }
            let (existing, pushed) = (existing.digest, release.digest);
            return Err(Refusal::ReleaseConflict {
                module,
                version,
                existing,
                pushed,
            });
        }
        if known.releases.len() >= RELEASES_PER_MODULE_MAX {
            return Err(Refusal::Limit(format!(
                "{module} has {RELEASES_PER_MODULE_MAX} versions, the most there may be"
            )));
        }
        if let Some(other) = known.releases.values().find(|other| other.kind != release.kind) {
            return Err(Refusal::NotNow(format!(
                "{module} is of the kind {}; a release of the kind {} needs another name",
                other.kind.name(),
                release.kind.name()
            )));
        }
    }
    Ok((
        vec![Event::ReleasePushed {
            module,
            version,
            release,
        }],
        Reply::default(),
    ))
}

fn revoke(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    reason: String,
    by: String,
) -> Result<Accepted, Refusal> {
    let digest = state.release(&module, &version)?.digest;
    // Asked for again, it is done already.
    if state.hold(&module, &digest).is_some_and(|hold| hold.revoked) {
        return Ok((Vec::new(), Reply::default()));
    }
    let release = ReleaseRef {
        version,
        digest,
        config: 0,
    };
    let revoked = Event::ReleaseRevoked {
        module,
        release,
        reason,
        by,
    };
    Ok((vec![revoked], Reply::default()))
}

fn set_minimum(
    state: &State,
    module: ModuleName,
    version: Option<semver::Version>,
    by: String,
) -> Result<Accepted, Refusal> {
    let known = state.modules.get(&module).ok_or_else(|| Refusal::UnknownModule {
        module: module.clone(),
        known: state.modules.keys().map(ToString::to_string).collect(),
    })?;
    if known.minimum == version {
        return Ok((Vec::new(), Reply::default()));
    }
    Ok((
        vec![Event::MinimumVersionSet { module, version, by }],
        Reply::default(),
    ))
}

fn deploy(state: &State, obs: &Observations, mut request: Box<DeployRequest>) -> Result<Accepted, Refusal> {
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
    if state.deployment(&request.id).is_some() {
        return Err(Refusal::DuplicateDeployment(request.id));
    }
    if state.deployments.len() >= DEPLOYMENTS_UNFINISHED_MAX {
        return Err(Refusal::Limit(format!(
            "{DEPLOYMENTS_UNFINISHED_MAX} deployments are unfinished, the most there may be; try again when some ended"
        )));
    }
    let approval = environment.approval_required || request.require_approval;
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
            approvers: environment.approvers.clone(),
        }],
        reply,
    ))
}

struct Decided {
    approve: bool,
    by: String,
    email: String,
    reason: Option<String>,
}

fn decide_approval(state: &State, id: DeploymentId, decided: Decided) -> Result<Accepted, Refusal> {
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

fn abort(state: &State, id: DeploymentId, by: &str) -> Result<Accepted, Refusal> {
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

struct Reversal {
    id: DeploymentId,
    trace_id: String,
    by: String,
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

fn roll_back(state: &State, of: DeploymentId, reversal: Reversal) -> Result<Accepted, Refusal> {
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

fn undeploy(
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

fn pause(state: &State, id: DeploymentId, by: String, now: Now) -> Result<Accepted, Refusal> {
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

fn resume(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
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

fn skip_step(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
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

fn promote(state: &State, id: DeploymentId, by: String) -> Result<Accepted, Refusal> {
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
