//! Events, specs and fleets in words.

use std::collections::BTreeMap;

use hotswap_core::event::{Event, RolloutKey};
use hotswap_core::ids::{Digest, EnvName, ModuleName, NodeId};
use hotswap_core::report::ReleaseStatus;
use hotswap_core::rollout::{Gate, Rollout, RolloutPlan, StepPass};
use hotswap_core::spec::ModuleSpec;
use hotswap_core::stage::{Purpose, StageKind, StageStatus};
use hotswap_core::state::State;

use super::world::World;

/// Most nodes that a line names.
const NAMED_MAX: usize = 6;

/// An event as a line, or nothing where it is not part of the story. `state` is the one after it.
pub fn event(state: &State, event: &Event) -> Option<String> {
    Some(match event {
        Event::FleetCreated { .. }
        | Event::EnvironmentsConfigured { .. }
        | Event::ReleasePushed { .. }
        | Event::NodeDescribed { .. }
        | Event::EvidenceRecorded { .. }
        | Event::StageStarted { .. }
        | Event::ReversalRequested { .. } => return None,
        Event::EpochStarted { epoch: 1 } => return None,
        Event::FleetAdopted { epoch, by, .. } => format!("{by} adopts the fleet under epoch {epoch}"),
        Event::EpochStarted { epoch } => format!("the server leads epoch {epoch}"),
        Event::ReleaseHeld {
            module,
            release,
            reason,
        } => format!("{module} {release} is on hold: {reason}"),
        Event::ReleaseRevoked {
            module,
            release,
            reason,
            by,
        } => format!("{module} {release} is revoked by {by}: {reason}"),
        Event::MinimumVersionSet {
            module,
            version: Some(version),
            by,
        } => format!("{module} must be at least {version}, says {by}"),
        Event::MinimumVersionSet { module, by, .. } => format!("{module} may be of any version, says {by}"),
        Event::ReleaseHoldLifted { module, by, .. } => format!("a hold of {module} is lifted by {by}"),
        Event::NodeRegistered {
            node, environment, ..
        } => format!("{node} joins {environment}"),
        Event::NodeMoved {
            node,
            environment,
            by,
        } => format!("{node} is moved to {environment} by {by}"),
        Event::ReleaseYanked {
            module,
            version,
            reason,
            by,
        } => format!("{module} {version} is withdrawn by {by}: {reason}"),
        Event::ReleaseUnyanked { module, version, by } => {
            format!("{module} {version} is offered again by {by}")
        }
        Event::ValuesSet {
            module,
            environment,
            number,
            values,
            by,
        } => format!("{module} is given values {number} in {environment} by {by}: {values:?}"),
        Event::NodeLabelsSet { node, overrides, by } => {
            format!("labels of {node} are set by {by}: {overrides:?}")
        }
        Event::NodeDrainRequested { node, by, reason, .. } => {
            format!("{node} is to be drained, asked for by {by}: {reason}")
        }
        Event::NodeDrained { node } => format!("{node} is drained"),
        Event::NodeUndrained { node, by } => format!("{node} serves again, by {by}"),
        Event::NodeRemoved { node, by } => format!("{node} is removed by {by}"),
        Event::DeploymentRequested {
            request, approval, ..
        } => {
            let waits = if *approval { "; it needs an approval" } else { "" };
            format!(
                "{} is requested by {}{waits}",
                name(state, &request.id),
                request.requester
            )
        }
        Event::ApprovalDecided {
            deployment,
            approved,
            by,
            ..
        } => {
            let word = if *approved { "approved" } else { "rejected" };
            format!("{} is {word} by {by}", name(state, deployment))
        }
        Event::ApprovalGiven { deployment, by, .. } => {
            format!(
                "{} has the approval of {by}, and needs more",
                name(state, deployment)
            )
        }
        Event::DeploymentFrozen { deployment, frozen } => {
            format!(
                "{} meets the freeze {} in {}",
                name(state, deployment),
                frozen.window,
                frozen.environment
            )
        }
        Event::ApprovalExpired { deployment } => format!("{}: the approval expires", name(state, deployment)),
        Event::StageFinished {
            deployment,
            stage,
            status,
            message,
            ..
        } => {
            let known = state.deployment(deployment)?;
            let kind = &known.stages[*stage as usize].kind;
            if kind.is_check() && *status == StageStatus::Succeeded {
                if *kind != StageKind::SecurityScan {
                    return None;
                }
                return Some(format!(
                    "{}: Build, Test and Security Scan passed",
                    name(state, deployment)
                ));
            }
            format!(
                "{}: {} {status:?}: {message}",
                name(state, deployment),
                kind.name()
            )
        }
        Event::DeploymentFinished {
            deployment,
            status,
            message,
        } => {
            format!("{} ends {status:?}: {message}", name(state, deployment))
        }
        Event::DeploymentRolledBack { deployment, .. } => {
            format!("{} is RolledBack", name(state, deployment))
        }
        Event::RolloutStarted { plan } => started(state, plan),
        Event::StepStarted { key, step, joins } => {
            let rollout = rollout(state, key)?;
            let planned = &rollout.plan.steps[*step as usize];
            let of = rollout.plan.steps.len();
            let share = match (planned.preview, planned.weight) {
                (true, _) => " in preview".to_owned(),
                (false, 100) => String::new(),
                (false, weight) => format!(" with {weight} % of their requests"),
            };
            let who = if joins.is_empty() {
                match rollout.counting().count() {
                    1 => "the one that is there".to_owned(),
                    n => format!("the {n} that are there"),
                }
            } else {
                nodes(joins)
            };
            format!("{}: step {} of {of} begins: {who}{share}", place(key), step + 1)
        }
        Event::StepCompleted { key, step, pass } => {
            let by = match pass {
                StepPass::Gate { detail } => detail.clone(),
                StepPass::Override { who } => format!("by the word of {who}"),
                StepPass::Inconclusive { detail } => format!("without a verdict: {detail}"),
                StepPass::Empty => "nobody is left in its cohort".to_owned(),
            };
            format!("{}: step {} passes: {by}", place(key), step + 1)
        }
        Event::NodeEntered { key, node } => format!("{}: {node} enters", place(key)),
        Event::NodeExcluded { key, node, reason } => {
            format!("{}: {node} counts as failed: {reason}", place(key))
        }
        Event::NodeExcused { key, node, reason } => format!("{}: {node} is excused: it {reason}", place(key)),
        Event::RolloutHeld { key, reason, .. } => format!("{}: held: {reason}", place(key)),
        Event::RolloutReleased { key } => format!("{}: goes on", place(key)),
        Event::RolloutPaused { deployment, by, .. } => {
            format!("{} is paused by {by}", name(state, deployment))
        }
        Event::RolloutResumed { deployment, by } => format!("{} is resumed by {by}", name(state, deployment)),
        Event::RolloutPromoted { key, by } => format!("{}: promoted by {by}", place(key)),
        Event::ValidationStarted { key } => format!("{}: validation begins", place(key)),
        Event::BackStarted { key, reason } => format!("{}: GOES BACK: {reason}", place(key)),
        Event::StableSet { key, release, .. } => match release {
            Some(release) => format!("{}: {release} is stable", place(key)),
            None => format!("{}: nothing is stable", place(key)),
        },
        Event::RolloutEnded { missing, kept, .. } if *kept && missing.is_empty() => return None,
        Event::RolloutEnded { key, missing, .. } if missing.is_empty() => {
            format!("{}: the rollout has ended", place(key))
        }
        Event::RolloutEnded { key, missing, .. } => {
            format!("{}: the rollout has ended without {}", place(key), nodes(missing))
        }
        Event::ExceptionRecorded {
            environment,
            module,
            node,
            release,
            base,
            ..
        } => {
            let base = base
                .as_ref()
                .map_or("nothing".to_owned(), |base| base.version.to_string());
            format!("{module} in {environment}: {node} left {release} by itself and runs {base}")
        }
    })
}

fn rollout<'a>(state: &'a State, key: &RolloutKey) -> Option<&'a Rollout> {
    state
        .env_module(&key.environment, &key.module)?
        .rollout
        .as_deref()
}

fn place(key: &RolloutKey) -> String {
    format!("{} in {}", key.module, key.environment)
}

fn started(state: &State, plan: &RolloutPlan) -> String {
    let at = place(&plan.key());
    let from = plan
        .base
        .as_ref()
        .map_or("nothing".to_owned(), ToString::to_string);
    if plan.reverse {
        return format!(
            "{at}: the way back to {from} begins ({})",
            name(state, &plan.deployment)
        );
    }
    let candidate = plan
        .candidate
        .as_ref()
        .map_or("nothing".to_owned(), ToString::to_string);
    let steps: Vec<String> = plan
        .steps
        .iter()
        .map(|step| {
            let share = match (step.preview, step.weight) {
                (true, _) => " in preview".to_owned(),
                (false, 100) => String::new(),
                (false, weight) => format!(" at {weight} %"),
            };
            let gate = match step.gate {
                Gate::Settled => "settled",
                Gate::Smoke => "smoke",
                Gate::Soak => "soak",
                Gate::Judge => "judge",
                Gate::JudgedSoak => "judged soak",
            };
            format!("{}{share} ({gate})", step.upto)
        })
        .collect();
    let roster = count(plan.order.len());
    format!(
        "{at}: {} of {candidate} over {from} begins: {roster}, steps {}",
        plan.strategy,
        steps.join(" → ")
    )
}

pub fn count(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

/// Nodes by name where they are few, in their natural order.
pub fn nodes<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    let mut all: Vec<&NodeId> = nodes.into_iter().collect();
    all.sort_by_key(|node| {
        let (stem, number) = node.as_str().rsplit_once('-').unwrap_or((node.as_str(), ""));
        (stem, number.parse::<u32>().unwrap_or(0))
    });
    if all.len() > NAMED_MAX {
        return count(all.len());
    }
    all.iter()
        .map(|node| node.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A deployment as scripts name it.
pub fn name(state: &State, id: &hotswap_core::ids::DeploymentId) -> String {
    let number = id.0.as_u128();
    let Some(deployment) = state.deployment(id) else {
        return format!("#{number}");
    };
    let module = &deployment.module;
    match (&deployment.purpose, &deployment.release) {
        (Purpose::Deploy, Some(release)) => {
            format!("#{number} {module} {release} to {}", deployment.target)
        }
        (Purpose::Reverse { of: Some(of), .. }, _) => {
            format!(
                "#{number} the rollback of #{} in {}",
                of.0.as_u128(),
                deployment.target
            )
        }
        _ => format!("#{number} the unloading of {module} from {}", deployment.target),
    }
}

/// Deployment ids in messages as scripts name them.
pub fn plain(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for id in 1..=world.ids() {
        let uuid = uuid::Uuid::from_u128(id).to_string();
        text = text
            .replace(&format!("deployment {uuid}"), &format!("#{id}"))
            .replace(&uuid, &format!("#{id}"));
    }
    text
}

/// What each environment's nodes really run of a module, grouped.
pub fn fleet(world: &World, module: &ModuleName) -> Vec<String> {
    let mut lines = Vec::new();
    for environment in &world.state.environments {
        let mut groups: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        let Some(env) = world.state.envs.get(&environment.name) else {
            continue;
        };
        for node in &env.nodes {
            groups
                .entry(runs(world, node, module))
                .or_default()
                .push(node.clone());
        }
        for (what, members) in groups {
            let all = members.len() == env.nodes.len() && members.len() > 1;
            let who = if all {
                format!("all {}", members.len())
            } else {
                nodes(&members)
            };
            lines.push(format!("{}: {who}: {what}", environment.name));
        }
    }
    lines
}

/// What a node really runs, as it would say itself.
fn runs(world: &World, node: &NodeId, module: &ModuleName) -> String {
    let Some(machine) = world.machines.get(node) else {
        return "no more".to_owned();
    };
    let away = if machine.reachable && !machine.hung {
        ""
    } else {
        " (out of reach)"
    };
    let Some(status) = machine.reconciler().statuses().get(module) else {
        return format!("nothing of it{away}");
    };
    let version = |digest: &Digest| version(&world.state, module, digest);
    let mut parts = Vec::new();
    for (digest, weight) in &status.routes {
        let share = if *weight == 100 {
            String::new()
        } else {
            format!("{weight} % ")
        };
        let trial = if status.trial == Some(*digest) {
            " on trial"
        } else {
            ""
        };
        parts.push(format!("{share}{}{trial}", version(digest)));
    }
    let mut what = if parts.is_empty() {
        "serving nothing".to_owned()
    } else {
        format!("serving {}", parts.join(" + "))
    };
    if let Some(preview) = status.preview {
        what += &format!(", previews {}", version(&preview));
    }
    for (digest, release) in &status.releases {
        if status.routes.iter().any(|(served, _)| served == digest) || status.preview == Some(*digest) {
            continue;
        }
        let how = match release {
            ReleaseStatus::Ready { .. } => "standby",
            ReleaseStatus::Prefetched => "prefetched",
            ReleaseStatus::Fetching => "fetching",
            ReleaseStatus::Loading => "loading",
            ReleaseStatus::Unhealthy { .. } => "unhealthy",
            ReleaseStatus::Failed { .. } => "failed",
        };
        what += &format!(", {how} {}", version(digest));
    }
    format!("{what}{away}")
}

/// What a node is told of a module.
pub fn spec(state: &State, module: &ModuleName, spec: &ModuleSpec) -> String {
    let version = |digest: &Digest| version(state, module, digest);
    let routes: Vec<String> = spec
        .routes
        .iter()
        .map(|(digest, weight)| format!("{weight} % {}", version(digest)))
        .collect();
    let mut what = if routes.is_empty() {
        "serve nothing".to_owned()
    } else {
        format!("serve {}", routes.join(" + "))
    };
    let held: Vec<String> = spec
        .releases
        .iter()
        .map(|release| release.version.to_string())
        .collect();
    what += &format!(
        "; hold {}",
        if held.is_empty() {
            "nothing".to_owned()
        } else {
            held.join(", ")
        }
    );
    if !spec.prefetch.is_empty() {
        let prefetch: Vec<String> = spec.prefetch.iter().map(version).collect();
        what += &format!("; prefetch {}", prefetch.join(", "));
    }
    if let Some(preview) = &spec.preview {
        what += &format!("; preview {}", version(preview));
    }
    if spec.trial {
        what += "; on trial";
    }
    what
}

fn version(state: &State, module: &ModuleName, digest: &Digest) -> String {
    let found = state.modules.get(module).and_then(|known| {
        known
            .releases
            .iter()
            .find_map(|(version, release)| Some((version, release.digest.config_of(digest)?)))
            .map(|(version, config)| match config {
                0 => version.to_string(),
                config => format!("{version}@{config}"),
            })
    });
    found.unwrap_or_else(|| digest.short())
}

/// What is stable where, and what deviates from it.
pub fn stable(state: &State, module: &ModuleName) -> Vec<String> {
    let mut lines = Vec::new();
    for environment in &state.environments {
        let here = state.env_module(&environment.name, module);
        let stable = here.and_then(|here| here.stable.as_ref());
        let stable = stable.map_or("nothing".to_owned(), |stable| stable.release.to_string());
        let mut line = format!("{}: {stable}", environment.name);
        for (node, exception) in here.into_iter().flat_map(|here| &here.exceptions) {
            let base = exception
                .base
                .as_ref()
                .map_or("nothing".to_owned(), ToString::to_string);
            line += &format!(", except {node}: {base}");
        }
        lines.push(line);
    }
    for hold in state
        .modules
        .get(module)
        .into_iter()
        .flat_map(|module| module.holds.values())
    {
        lines.push(format!("on hold: {} ({})", hold.release, hold.reason));
    }
    lines
}

/// An environment by its name, as configured.
pub fn environment(state: &State, name: &str) -> EnvName {
    let name: EnvName = name.parse().unwrap_or_else(|error| panic!("{error}"));
    state
        .environment(&name)
        .unwrap_or_else(|error| panic!("{error}"))
        .name
        .clone()
}
