//! What each node is to run: a pure function of State, computed anew whenever it is asked for.

use std::collections::BTreeMap;

use crate::ids::{EnvName, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::observe::Observations;
use crate::rollout::{Phase, Rollout};
use crate::spec::{Generation, ModuleSpec, NodeSpec, Observe, SmokeRun, SmokeVia, WEIGHT_ALL};
use crate::state::{EnvModule, Node, State};
use crate::time::Millis;
use crate::trace::{self, TraceParent};
use crate::values::Numbered;

/// How long a release must be healthy to be committed where no rollout says otherwise.
const SETTLE_DEFAULT: Millis = Millis::from_secs(10);

/// By how much an epoch exceeds the one before at most. A new leader draws it, so that two leaderships that began from
/// the same log, one of them lost since, have different epochs, and a node that heard of the lost one is recognised.
pub const EPOCH_STEP_MAX: u64 = 1 << 16;

/// The age of a node's spec: the newest event that changed an input of it.
pub fn generation(state: &State, node: &NodeId) -> Option<Generation> {
    Some(generation_of(state, state.nodes.get(node)?))
}

/// Whether a node that says `highest` knows specs of a log that this one lost, e.g. since a backup was restored: it is
/// ahead of this log's end, or of the end of the leadership that it names, or names one that this log knows nothing of.
/// What was adopted since is no longer lost.
pub fn knows_more(state: &State, highest: Generation) -> bool {
    let ours = Generation {
        epoch: state.epoch,
        seq: state.seq,
    };
    if is_on(Mutant::AheadIgnored) {
        return false;
    }
    if highest > ours {
        return true;
    }
    if highest.epoch < state.adopted {
        return false;
    }
    let remembered = state.epoch_starts.keys().next();
    let unknown = remembered.is_some_and(|oldest| highest.epoch > *oldest)
        && !state.epoch_starts.contains_key(&highest.epoch);
    let mut later = state.epoch_starts.range(highest.epoch.saturating_add(1)..);
    unknown || later.next().is_some_and(|(_, start)| highest.seq >= *start)
}

/// The nodes that know specs of a log that this one lost. They are told nothing until the fleet is adopted.
pub fn nodes_ahead<'a>(
    state: &'a State,
    obs: &'a Observations,
) -> impl Iterator<Item = (&'a NodeId, Generation)> {
    let nodes = obs.nodes().map(|(node, seen)| (node, seen.highest));
    nodes.filter(|(_, highest)| knows_more(state, *highest))
}

fn generation_of(state: &State, node: &Node) -> Generation {
    let env = state.envs.get(&node.environment).map_or(0, |env| env.touched);
    Generation {
        epoch: state.epoch,
        seq: env.max(node.touched),
    }
}

/// Everything that a node is to run; `None` for a node that the log doesn't know.
pub fn desired(state: &State, id: &NodeId) -> Option<NodeSpec> {
    let node = state.nodes.get(id)?;
    let (mut modules, mut traces) = (BTreeMap::new(), BTreeMap::new());
    if let Some(env) = state.envs.get(&node.environment) {
        for (name, module) in &env.modules {
            if let Some(spec) = module_spec(state, &node.environment, id, module) {
                modules.insert(name.clone(), spec);
            }
            let trace = module
                .rollout
                .as_deref()
                .and_then(|rollout| trace_of(state, rollout));
            traces.extend(trace.map(|trace| (name.clone(), trace)));
        }
    }
    for (name, release, rollout) in coming(state, &node.environment) {
        if let Some(trace) = trace_of(state, rollout) {
            traces.entry(name.clone()).or_insert(trace);
        }
        let spec = modules.entry(name.clone()).or_insert_with(|| empty(RolloutId(0)));
        let held = spec.releases.iter().any(|held| held.digest == release.digest);
        if !held && !spec.prefetch.contains(&release.digest) {
            spec.prefetch.push(release.digest);
        }
    }
    Some(NodeSpec {
        fleet: state.fleet?,
        generation: generation_of(state, node),
        modules,
        traces,
    })
}

/// The place of a rollout's work in its deployment's trace.
fn trace_of(state: &State, rollout: &Rollout) -> Option<TraceParent> {
    let deployment = state.deployments.get(&rollout.plan.deployment)?;
    let trace_id = trace::trace_id(&deployment.trace_id)?;
    Some(TraceParent {
        trace_id,
        span_id: trace::span_of(trace_id, trace::Part::Rollout(rollout.plan.id)),
        sampled: true,
    })
}

/// What a node is to run of one module, apart from what it prefetches for its environment below.
pub fn desired_module(state: &State, id: &NodeId, name: &ModuleName) -> Option<ModuleSpec> {
    let environment = &state.nodes.get(id)?.environment;
    module_spec(state, environment, id, state.env_module(environment, name)?)
}

/// What every node of a rollout's cohort that counts is to run, while it goes forward; without values.
pub fn desired_of_cohort(rollout: &Rollout) -> Option<ModuleSpec> {
    Some(on_trial(
        rollout,
        rollout.plan.candidate.as_ref()?,
        &Numbered::default(),
    ))
}

/// The environment after this one, in the fleet's order.
pub fn next_environment<'a>(state: &'a State, environment: &EnvName) -> Option<&'a EnvName> {
    let index = state
        .environments
        .iter()
        .position(|other| other.name == *environment)?;
    Some(&state.environments.get(index + 1)?.name)
}

/// Releases that are being rolled out one environment below and will come here next.
fn coming<'a>(state: &'a State, environment: &EnvName) -> Vec<(&'a ModuleName, &'a ReleaseRef, &'a Rollout)> {
    let Some(index) = state
        .environments
        .iter()
        .position(|other| other.name == *environment)
    else {
        return Vec::new();
    };
    let Some(below) = index
        .checked_sub(1)
        .and_then(|below| state.envs.get(&state.environments[below].name))
    else {
        return Vec::new();
    };
    let mut coming = Vec::new();
    for (name, module) in &below.modules {
        let Some(rollout) = module.rollout.as_deref().filter(|rollout| !rollout.is_back()) else {
            continue;
        };
        let goes_on = !rollout.plan.validates;
        if let (true, Some(candidate)) = (goes_on, &rollout.plan.candidate) {
            coming.push((name, candidate, rollout));
        }
    }
    coming
}

fn empty(rollout: RolloutId) -> ModuleSpec {
    ModuleSpec {
        rollout,
        trial: false,
        releases: Vec::new(),
        values: BTreeMap::new(),
        prefetch: Vec::new(),
        routes: Vec::new(),
        preview: None,
        settle: SETTLE_DEFAULT,
        smoke: None,
        observe: None,
    }
}

fn module_spec(
    state: &State,
    environment: &EnvName,
    node: &NodeId,
    module: &EnvModule,
) -> Option<ModuleSpec> {
    let rollout = module.rollout.as_deref();
    if let Some(rollout) = rollout
        && (!rollout.is_back() || (is_on(Mutant::RollbackForgetsOne) && rollout.place(node) == Some(0)))
        && rollout.cohort.contains(node)
        && !rollout.excluded.contains_key(node)
        && !rollout.excused.contains_key(node)
        && let Some(candidate) = &rollout.plan.candidate
    {
        return Some(on_trial(rollout, candidate, &module.values));
    }
    let mut spec = at_rest(state, environment, node, module);
    if let Some(spec) = &mut spec
        && state.nodes.get(node).is_some_and(Node::is_drained)
    {
        idle(spec);
    }
    // The rest of the roster has the candidate at hand before its own step comes.
    if let Some(rollout) = rollout
        && !rollout.is_back()
        && let Some(candidate) = &rollout.plan.candidate
        && !module.exceptions.contains_key(node)
    {
        let spec = spec.get_or_insert_with(|| empty(module.rollout_of_stable));
        let held = spec.releases.iter().map(|release| &release.digest);
        if held
            .chain(&spec.prefetch)
            .all(|digest| *digest != candidate.digest)
        {
            spec.prefetch.push(candidate.digest);
        }
    }
    spec
}

/// What a drained node is told: to serve nothing, and to have at hand what it serves once it is undrained.
fn idle(spec: &mut ModuleSpec) {
    spec.routes.clear();
    let releases = std::mem::take(&mut spec.releases);
    spec.prefetch = releases
        .first()
        .map(|release| release.digest)
        .into_iter()
        .collect();
}

/// What a node runs outside a rollout's cohort: the stable release, or its exception's base.
fn at_rest(state: &State, environment: &EnvName, node: &NodeId, module: &EnvModule) -> Option<ModuleSpec> {
    let settle = state
        .environments
        .iter()
        .find(|known| known.name == *environment)
        .map_or(SETTLE_DEFAULT, |known| known.policy.settle);
    if let Some(exception) = module.exceptions.get(node) {
        let base = exception.base.as_ref()?;
        return Some(ModuleSpec {
            releases: vec![base.clone()],
            values: module.values.of([base.config]),
            routes: vec![(base.id(), WEIGHT_ALL)],
            settle,
            ..empty(exception.rollout)
        });
    }
    let stable = &module.stable.as_ref()?.release;
    let mut releases = vec![stable.clone()];
    releases.extend(
        module
            .standby
            .iter()
            .filter(|standby| standby.id() != stable.id())
            .cloned(),
    );
    Some(ModuleSpec {
        values: module.values.of(releases.iter().map(|release| release.config)),
        releases,
        routes: routes_at_rest(module)?,
        settle,
        ..empty(module.rollout_of_stable)
    })
}

/// Who gets requests at rest, on nodes without an exception; `None` where nothing is stable.
pub(crate) fn routes_at_rest(module: &EnvModule) -> Option<Vec<(crate::ids::Digest, u8)>> {
    Some(vec![(module.stable.as_ref()?.release.id(), WEIGHT_ALL)])
}

/// What a cohort's node runs while the rollout goes forward.
fn on_trial(rollout: &Rollout, candidate: &ReleaseRef, values: &Numbered) -> ModuleSpec {
    let mut releases = vec![candidate.clone()];
    releases.extend(rollout.base().cloned());
    let preview = rollout.effect.is_some_and(|effect| effect.preview);
    ModuleSpec {
        rollout: rollout.plan.id,
        trial: true,
        values: values.of(releases.iter().map(|release| release.config)),
        releases,
        prefetch: Vec::new(),
        routes: routes(rollout, candidate),
        preview: preview.then_some(candidate.id()),
        settle: rollout.plan.policy.settle,
        smoke: smoke(rollout, candidate),
        observe: observe(rollout, candidate),
    }
}

/// Who gets a cohort node's requests.
fn routes(rollout: &Rollout, candidate: &ReleaseRef) -> Vec<(crate::ids::Digest, u8)> {
    let (candidate_weight, base_weight) = match rollout.phase {
        Phase::Validating { .. } => (WEIGHT_ALL, 0),
        _ if rollout.effect.is_some_and(|effect| effect.preview) => (0, WEIGHT_ALL),
        _ => rollout.weights(),
    };
    let base = rollout.base().map(|base| (base.id(), base_weight));
    [Some((candidate.id(), candidate_weight)), base]
        .into_iter()
        .flatten()
        .filter(|&(_, weight)| weight > 0)
        .collect()
}

fn smoke(rollout: &Rollout, candidate: &ReleaseRef) -> Option<SmokeRun> {
    let run = |step, via| SmokeRun {
        rollout: rollout.plan.id,
        step,
        digest: candidate.id(),
        via,
    };
    match &rollout.phase {
        Phase::Validating { .. } => Some(run(rollout.last_step() + 1, SmokeVia::Ingress)),
        _ => rollout
            .effect
            .filter(|effect| effect.preview)
            .map(|effect| run(effect.step, SmokeVia::Preview)),
    }
}

fn observe(rollout: &Rollout, candidate: &ReleaseRef) -> Option<Observe> {
    let effect = rollout.effect.filter(|effect| effect.gate.is_judged())?;
    if !matches!(rollout.phase, Phase::Forward { .. }) {
        return None;
    }
    Some(Observe {
        rollout: rollout.plan.id,
        step: effect.step,
        candidate: candidate.id(),
        control: rollout.base().map(|base| base.id()),
        interval: rollout.plan.policy.interval,
        probes: rollout.plan.policy.probes_per_interval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ahead_of_the_logs_end_and_of_the_end_of_the_leadership_that_it_names() {
        let mut state = State {
            epoch: 4,
            seq: 705,
            ..State::default()
        };
        state.epoch_starts.extend([(1, 1), (3, 500), (4, 701)]);
        let ahead = |state: &State, epoch, seq| knows_more(state, Generation { epoch, seq });
        // Of leadership 2 this log knows nothing.
        for (epoch, seq) in [(4, 706), (5, 1), (3, 701), (3, 900), (2, 499)] {
            assert!(ahead(&state, epoch, seq), "{epoch}/{seq}");
        }
        for (epoch, seq) in [(0, 0), (1, 499), (3, 700), (4, 705)] {
            assert!(!ahead(&state, epoch, seq), "{epoch}/{seq}");
        }
        // What an adoption was for is over; what is above it is not.
        state.epoch = 8;
        state.adopted = 8;
        state.epoch_starts.insert(8, 706);
        state.seq = 706;
        assert!(!ahead(&state, 3, 900) && !ahead(&state, 7, 900));
        assert!(ahead(&state, 8, 707) && ahead(&state, 9, 1));
    }
}
