//! Deployments between their rollouts: checks, queues, locks, and the start of each environment.

use std::collections::BTreeMap;

use super::forward::go_back;
use crate::event::Event;
use crate::explain::Wait;
use crate::freeze::Frozen;
use crate::ids::{DeploymentId, EnvName, ModuleName, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::policy::Environment;
use crate::release::Kind;
use crate::rollout::{BackReason, RolloutPlan};
use crate::stage::{Deployment, DeploymentStatus, StageKind, StageStatus};
use crate::state::{EnvModule, State};
use crate::strategy::{Draw, STRATUM_LABEL, Setting, draw_order, steps};
use crate::time::Now;

/// Deployments that do Build, Test and Security Scan work at once.
pub const CHECKS_AT_ONCE_MAX: usize = 5;

/// The next move of every deployment that has one; the oldest of those that want the same comes first.
pub(super) fn tick(state: &State, now: Now) -> Vec<Event> {
    let mut events = Vec::new();
    let by_age = state.deployments_by_age();
    let mut checking = by_age.iter().filter(|deployment| is_checking(deployment)).count();
    let queues = Queues::new(&by_age);
    let (mut started, mut turned) = (0, Vec::new());
    for deployment in by_age {
        let Some((place, stage)) = deployment.current() else {
            events.push(Event::DeploymentFinished {
                deployment: deployment.id,
                status: DeploymentStatus::Succeeded,
                message: "nothing was left to do".to_owned(),
            });
            continue;
        };
        if deployment.status == DeploymentStatus::PendingApproval {
            events.extend(approval_expired(deployment, now));
            continue;
        }
        if let Some(pause) = &deployment.paused {
            if now.wall >= pause.until && state.rollout_of(deployment).is_none() {
                let message = format!("the pause by {} expired", pause.by);
                events.push(finished(deployment, DeploymentStatus::Failed, message));
            }
            continue;
        }
        if stage.status != StageStatus::Pending {
            continue;
        }
        match &stage.kind {
            kind if kind.is_check() => {
                let granted = checking < CHECKS_AT_ONCE_MAX;
                checking += usize::from(granted);
                events.extend(granted.then(|| stage_started(deployment, place)));
            }
            StageKind::Deploy(environment) => {
                // Several may supersede the same rollout: it turns once.
                if turned.contains(&(environment, &deployment.module)) {
                    continue;
                }
                // Rollouts that start in one round take numbers one after the other.
                let id = RolloutId(state.rollouts + 1 + started);
                let moved = enter(state, &queues, deployment, (place, environment), id, now);
                for event in &moved {
                    match event {
                        Event::RolloutStarted { .. } => started += 1,
                        Event::BackStarted { .. } => turned.push((environment, &deployment.module)),
                        _ => {}
                    }
                }
                events.extend(moved);
            }
            // Its rollout is gone without one to validate: the target had the release already.
            StageKind::Validation => events.push(skipped(deployment, place, "nothing changed in the target")),
            _ => {}
        }
    }
    events
}

/// Whether a check of it is under way. Between two of them it queues again: it is older than most.
fn is_checking(deployment: &Deployment) -> bool {
    let current = deployment.current();
    current.is_some_and(|(_, stage)| stage.kind.is_check() && stage.status == StageStatus::Running)
}

fn approval_expired(deployment: &Deployment, now: Now) -> Vec<Event> {
    if deployment.approval_until.is_none_or(|until| now.wall < until) {
        return Vec::new();
    }
    vec![
        Event::ApprovalExpired {
            deployment: deployment.id,
        },
        finished(
            deployment,
            DeploymentStatus::Failed,
            "the approval expired: nobody decided in time".to_owned(),
        ),
    ]
}

fn finished(deployment: &Deployment, status: DeploymentStatus, message: String) -> Event {
    Event::DeploymentFinished {
        deployment: deployment.id,
        status,
        message,
    }
}

fn stage_started(deployment: &Deployment, place: u32) -> Event {
    let attempt = deployment.stages[place as usize].attempt + 1;
    Event::StageStarted {
        deployment: deployment.id,
        stage: place,
        attempt,
    }
}

fn stage_ended(deployment: &Deployment, place: u32, status: StageStatus, message: &str) -> Event {
    Event::StageFinished {
        deployment: deployment.id,
        stage: place,
        status,
        message: message.to_owned(),
        nodes_deployed: 0,
        nodes_failed: 0,
    }
}

fn skipped(deployment: &Deployment, place: u32, message: &str) -> Event {
    stage_ended(deployment, place, StageStatus::Skipped, message)
}

fn failed(deployment: &Deployment, place: u32, message: &str) -> Vec<Event> {
    vec![
        stage_ended(deployment, place, StageStatus::Failed, message),
        finished(deployment, DeploymentStatus::Failed, message.to_owned()),
    ]
}

/// Who has, or gets before this one, the lock on (environment, module): the running rollout's deployment,
/// or the oldest of those that wait for it now.
pub(crate) fn blocker(state: &State, deployment: &Deployment, environment: &EnvName) -> Option<DeploymentId> {
    holder(state, deployment, environment).or_else(|| {
        let same_module = |other: &&Deployment| other.module == deployment.module;
        let waiting = state.deployments.values().filter(same_module);
        waiting
            .filter(|other| waits_for(other) == Some(environment))
            .min_by_key(|other| other.order)
            .filter(|other| other.order < deployment.order)
            .map(|other| other.id)
    })
}

/// Whose rollout of the module runs there.
fn holder(state: &State, deployment: &Deployment, environment: &EnvName) -> Option<DeploymentId> {
    let module = state.env_module(environment, &deployment.module)?;
    let rollout = module.rollout.as_deref()?;
    (!is_on(Mutant::LockIgnored)).then_some(rollout.plan.deployment)
}

/// The environment whose lock a deployment waits for now.
fn waits_for(deployment: &Deployment) -> Option<&EnvName> {
    let (_, stage) = deployment.current()?;
    match &stage.kind {
        StageKind::Deploy(environment)
            if stage.status == StageStatus::Pending && deployment.paused.is_none() =>
        {
            Some(environment)
        }
        _ => None,
    }
}

/// The first of every queue for a lock, found once: a look through all deployments for each of them would cost a
/// thousand times more where thousands wait.
struct Queues<'a>(BTreeMap<(&'a EnvName, &'a ModuleName), &'a Deployment>);

impl<'a> Queues<'a> {
    fn new(by_age: &[&'a Deployment]) -> Self {
        let mut firsts = BTreeMap::new();
        for deployment in by_age {
            if let Some(environment) = waits_for(deployment) {
                firsts
                    .entry((environment, &deployment.module))
                    .or_insert(*deployment);
            }
        }
        Self(firsts)
    }

    /// As [`blocker`].
    fn blocker(&self, state: &State, deployment: &Deployment, environment: &EnvName) -> Option<DeploymentId> {
        holder(state, deployment, environment).or_else(|| {
            let first = self.0.get(&(environment, &deployment.module))?;
            (first.order < deployment.order).then_some(first.id)
        })
    }
}

/// Enters an environment: skips it, fails, waits, or takes the lock and starts its rollout.
fn enter(
    state: &State,
    queues: &Queues<'_>,
    deployment: &Deployment,
    (place, name): (u32, &EnvName),
    id: RolloutId,
    now: Now,
) -> Vec<Event> {
    let Some(release) = &deployment.release else {
        return Vec::new();
    };
    let release = &release.under(state.values_in(name, &deployment.module));
    let Ok(environment) = state.environment(name) else {
        return failed(
            deployment,
            place,
            &format!("environment {name} is not configured any more"),
        );
    };
    if let Some(why) = state.barred(&deployment.module, release)
        && !is_on(Mutant::HoldIgnored)
    {
        return failed(deployment, place, &format!("{release} is {why}"));
    }
    if let Some(minimum) = state
        .minimum(&deployment.module)
        .filter(|minimum| release.version < **minimum)
    {
        return failed(
            deployment,
            place,
            &format!("{release} is older than {minimum}, the oldest version that may be deployed"),
        );
    }
    if let Some(why) = not_as_asked(state, deployment, name) {
        return failed(deployment, place, &why);
    }
    if let Some(other) = queues.blocker(state, deployment, name) {
        return superseded(state, deployment, name, other);
    }
    with_lock(state, deployment, place, environment, release, id, now)
}

/// Whether an environment gives the module other values than those that a deployment's approval is of, and how it says so.
pub(super) fn not_as_asked(state: &State, deployment: &Deployment, name: &EnvName) -> Option<String> {
    let asked = deployment.values.as_ref()?;
    let (was, is) = (
        asked.get(name).copied().unwrap_or(0),
        state.values_in(name, &deployment.module),
    );
    (was != is).then(|| {
        format!(
            "{}'s values in {name} were number {was} when the approval was asked for, and are number {is} now; ask again",
            deployment.module
        )
    })
}

/// Enters an environment that nobody else rolls this module out in: skips it, fails, or starts its rollout.
pub(crate) fn with_lock(
    state: &State,
    deployment: &Deployment,
    place: u32,
    environment: &Environment,
    release: &ReleaseRef,
    id: RolloutId,
    now: Now,
) -> Vec<Event> {
    let name = &environment.name;
    let release = &release.under(state.values_in(name, &deployment.module));
    let nothing = EnvModule::default();
    let module = state.env_module(name, &deployment.module).unwrap_or(&nothing);
    let is_target = deployment.target == *name;
    if let Some(stable) = &module.stable {
        let same = stable.release == *release;
        if same && module.exceptions.is_empty() {
            return vec![skipped(
                deployment,
                place,
                &format!("already there: {release} is stable in {name}"),
            )];
        }
        if stable.release.version > release.version {
            let once = module
                .successes
                .iter()
                .any(|success| success.release.is_of_package(release));
            if once && !is_target {
                let message = format!("{} is stable in {name}, which is newer", stable.release);
                return vec![skipped(deployment, place, &message)];
            }
            if !deployment.allow_downgrade {
                let message = format!(
                    "{} is stable in {name} and newer than {release}; set allowDowngrade to replace it",
                    stable.release
                );
                return failed(deployment, place, &message);
            }
        }
    }
    if let Some(waits) = freeze(deployment, environment, now) {
        return waits;
    }
    let plan = plan(state, deployment, environment, module, release, id);
    if plan.order.is_empty() {
        let drained = state.envs.get(name).is_some_and(|env| !env.nodes.is_empty());
        let message = if drained {
            format!("every node of {name} is drained")
        } else {
            format!("{name} has no nodes")
        };
        return if is_target {
            failed(deployment, place, &message)
        } else {
            vec![skipped(deployment, place, &message)]
        };
    }
    vec![
        stage_started(deployment, place),
        Event::RolloutStarted { plan: Box::new(plan) },
    ]
}

/// Whether no rollout may start in an environment now; the freeze that is met is recorded once.
fn freeze(deployment: &Deployment, environment: &Environment, now: Now) -> Option<Vec<Event>> {
    if met(deployment, environment).is_some_and(|frozen| now.wall < frozen.until) {
        return Some(Vec::new());
    }
    Some(vec![Event::DeploymentFrozen {
        deployment: deployment.id,
        frozen: frozen_now(environment, now)?,
    }])
}

/// The freeze that is on in an environment now; of several, the one that ends last.
pub(crate) fn frozen_now(environment: &Environment, now: Now) -> Option<Frozen> {
    let windows = environment.freezes.iter();
    let (window, until) = windows
        .filter_map(|window| Some((window, window.until(now.wall)?)))
        .max_by_key(|(_, until)| *until)?;
    Some(Frozen {
        environment: environment.name.clone(),
        window: window.name.clone(),
        reason: window.reason.clone(),
        until,
    })
}

/// The freeze that a deployment met in an environment, unless its window is no longer configured.
fn met<'a>(deployment: &'a Deployment, environment: &Environment) -> Option<&'a Frozen> {
    let frozen = deployment.frozen.as_ref()?;
    let stands = environment
        .freezes
        .iter()
        .any(|window| window.name == frozen.window);
    (frozen.environment == environment.name && stands).then_some(frozen)
}

/// A deployment that may supersede ends a held rollout in its way.
fn superseded(
    state: &State,
    deployment: &Deployment,
    environment: &EnvName,
    other: DeploymentId,
) -> Vec<Event> {
    let module = state.env_module(environment, &deployment.module);
    let rollout = module.and_then(|module| module.rollout.as_deref());
    match rollout.filter(|rollout| rollout.plan.deployment == other && rollout.held.is_some()) {
        Some(rollout) if deployment.supersede && !rollout.is_back() => {
            go_back(rollout, BackReason::Superseded { by: deployment.id })
        }
        _ => Vec::new(),
    }
}

fn plan(
    state: &State,
    deployment: &Deployment,
    environment: &Environment,
    module: &EnvModule,
    release: &ReleaseRef,
    id: RolloutId,
) -> RolloutPlan {
    let kind = state
        .release(&deployment.module, &release.version)
        .map_or(Kind::Wasm, |release| release.kind);
    let stable = module.stable.as_ref().map(|stable| stable.release.clone());
    // Where the release is stable already, only the nodes that left it are rolled out to.
    let mends = stable.as_ref() == Some(release);
    let base = if mends {
        module
            .exceptions
            .values()
            .next()
            .and_then(|exception| exception.base.clone())
    } else {
        stable
    };
    let env = state.envs.get(&environment.name);
    let nodes = env.into_iter().flat_map(|env| env.nodes.iter());
    let roster = nodes
        .filter(|node| !mends || module.exceptions.contains_key(*node))
        .filter_map(|node| Some((node, state.nodes.get(node)?)))
        .filter(|(_, record)| !record.is_drained())
        .map(|(node, record)| (node, record.label(STRATUM_LABEL).unwrap_or_default()));
    let seed = Draw::new(deployment.seed ^ id.0).bits();
    let order = draw_order(roster, seed);
    let setting = Setting {
        nodes: order.len(),
        routes: kind.routes(),
        has_base: base.is_some(),
        policy: &environment.policy,
    };
    RolloutPlan {
        id,
        deployment: deployment.id,
        module: deployment.module.clone(),
        environment: environment.name.clone(),
        kind,
        candidate: Some(release.clone()),
        base,
        strategy: environment.strategy.name().to_owned(),
        policy: environment.policy.for_module(&deployment.module),
        seed,
        steps: steps(&environment.strategy, setting),
        order,
        validates: deployment.target == environment.name,
        reverse: false,
    }
}

/// What a deployment waits for while no rollout of its own runs.
pub(super) fn wait(state: &State, deployment: &Deployment) -> Option<Wait> {
    let (_, stage) = deployment.current()?;
    if deployment.status == DeploymentStatus::PendingApproval {
        return Some(Wait::Approval {
            until: deployment.approval_until?,
            given: u32::try_from(deployment.approvals.len()).unwrap_or(u32::MAX),
            needed: deployment.approvers.needed,
        });
    }
    if let Some(pause) = &deployment.paused {
        return Some(Wait::Resume {
            paused_by: pause.by.clone(),
            until: pause.until,
        });
    }
    match (&stage.kind, stage.status) {
        (kind, StageStatus::Running) if kind.is_check() => Some(Wait::Check { check: kind.name() }),
        (kind, StageStatus::Pending) if kind.is_check() => {
            let at_once = u32::try_from(CHECKS_AT_ONCE_MAX).unwrap_or(u32::MAX);
            Some(Wait::CheckSlot { at_once })
        }
        (StageKind::Deploy(environment), StageStatus::Pending) => {
            if let Some(behind) = blocker(state, deployment, environment) {
                return Some(Wait::Queue {
                    behind,
                    environment: environment.clone(),
                });
            }
            let frozen = met(deployment, state.environment(environment).ok()?)?;
            Some(Wait::Freeze {
                environment: environment.clone(),
                window: frozen.window.clone(),
                reason: frozen.reason.clone(),
                until: frozen.until,
            })
        }
        _ => None,
    }
}
