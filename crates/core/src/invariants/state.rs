//! What State alone must show.

use std::collections::BTreeMap;

use crate::desired::desired_of_cohort;
use crate::ids::RolloutId;
use crate::spec::{Generation, NodeSpec, WEIGHT_ALL};
use crate::state::State;

use super::{Check, Invariant, Violation};

/// **S3** At most one unfinished rollout per (environment, module): each sits where its plan says, is of an
/// unfinished deployment, and no two have one number.
pub fn s3_one_rollout(state: &State) -> Check {
    let mut seen = BTreeMap::new();
    for (environment, env) in &state.envs {
        for (module, here) in &env.modules {
            let Some(rollout) = here.rollout.as_deref() else {
                continue;
            };
            let plan = &rollout.plan;
            let fault = if plan.environment != *environment || plan.module != *module {
                Some(format!(
                    "{} is kept at {environment}/{module}, not where its plan says",
                    plan.id
                ))
            } else if plan.id.0 > state.rollouts {
                Some(format!("{} was not counted", plan.id))
            } else if !state.deployments.contains_key(&plan.deployment) {
                Some(format!(
                    "{} runs for deployment {}, which has ended",
                    plan.id, plan.deployment
                ))
            } else {
                seen.insert(plan.id, environment)
                    .map(|other| format!("{} runs in {other} and {environment}", plan.id))
            };
            if let Some(what) = fault {
                return Err(Violation::new(Invariant::S3OneRollout, what));
            }
        }
    }
    Ok(())
}

/// **S4** Per node generations only grow, and the same generation always says the same.
pub fn s4_generations(before: Option<&NodeSpec>, next: &NodeSpec) -> Check {
    let Some(before) = before else { return Ok(()) };
    let age = |generation: Generation| format!("{}/{}", generation.epoch, generation.seq);
    if next.generation < before.generation {
        let what = format!(
            "generation {} was issued after {}",
            age(next.generation),
            age(before.generation)
        );
        return Err(Violation::new(Invariant::S4Generations, what));
    }
    if next.generation == before.generation && next.modules != before.modules {
        let what = format!("generation {} was issued with two contents", age(next.generation));
        return Err(Violation::new(Invariant::S4Generations, what));
    }
    Ok(())
}

/// **S5** The candidate's share never exceeds the step's: the cohort is no larger than what the step's prefix of the
/// order allows (later at the last step), and the routes give it no more than the step's weight.
pub fn s5_share(state: &State) -> Check {
    for rollout in state.rollouts().filter(|rollout| !rollout.is_back()) {
        let (Some(spec), Some(candidate)) = (desired_of_cohort(rollout), &rollout.plan.candidate) else {
            continue;
        };
        let Some(effect) = rollout.effect else {
            if rollout.cohort.is_empty() {
                continue;
            }
            let what = format!("{} has a cohort before its first step", rollout.plan.id);
            return Err(Violation::new(Invariant::S5Steps, what));
        };
        let step = &rollout.plan.steps[effect.step as usize];
        let given: u32 = spec
            .routes
            .iter()
            .filter(|(digest, _)| *digest == candidate.id())
            .map(|&(_, w)| u32::from(w))
            .sum();
        let alone = rollout.plan.base.is_none();
        let may = if step.preview {
            0
        } else if alone || validating(rollout) {
            WEIGHT_ALL
        } else {
            step.weight
        };
        if given > u32::from(may) {
            let what = format!(
                "{} gives {candidate} {given} % in a step of {may} %",
                rollout.plan.id
            );
            return Err(Violation::new(Invariant::S5Steps, what));
        }
        let prefix = rollout.plan.order.iter().take(step.upto as usize);
        let last = effect.step == rollout.last_step();
        let in_prefix: std::collections::BTreeSet<_> = prefix.collect();
        if let Some(node) = rollout
            .cohort
            .iter()
            .find(|node| !last && !in_prefix.contains(node))
        {
            let what = format!(
                "{node} has {candidate} before its step of {} came",
                rollout.plan.id
            );
            return Err(Violation::new(Invariant::S5Steps, what));
        }
    }
    Ok(())
}

fn validating(rollout: &crate::rollout::Rollout) -> bool {
    matches!(rollout.phase, crate::rollout::Phase::Validating { .. })
}

/// **S6** In blue-green one colour serves at a time on each node, and the old one stays loaded meanwhile. A drained node
/// serves none.
pub fn s6_one_colour(state: &State, node: &crate::ids::NodeId, spec: &NodeSpec) -> Check {
    let Some(record) = state.nodes.get(node).filter(|record| !record.is_drained()) else {
        return Ok(());
    };
    for (name, module) in &spec.modules {
        let rollout = state
            .env_module(&record.environment, name)
            .and_then(|here| here.rollout.as_deref());
        let Some(rollout) =
            rollout.filter(|rollout| rollout.plan.strategy == "BlueGreen" && !rollout.is_back())
        else {
            continue;
        };
        if module.rollout != rollout.plan.id {
            continue;
        }
        if module.routes.len() > 1 {
            let what = format!("{node} is told to serve two colours of {name}");
            return Err(Violation::new(Invariant::S6OneColour, what));
        }
        if let Some(base) = &rollout.plan.base
            && !module.releases.contains(base)
        {
            let what =
                format!("{node} is told to drop the old colour {base} of {name} before the soak is over");
            return Err(Violation::new(Invariant::S6OneColour, what));
        }
    }
    Ok(())
}

/// **S7** (on the way back) Nobody is told to serve the release that is taken back, unless it is stable, or what a
/// node of its own decision returned to.
pub fn s7_back_means_back(state: &State, node: &crate::ids::NodeId, spec: &NodeSpec) -> Check {
    let Some(record) = state.nodes.get(node) else {
        return Ok(());
    };
    for (name, told) in &spec.modules {
        let Some(here) = state.env_module(&record.environment, name) else {
            continue;
        };
        let Some(rollout) = here.rollout.as_deref().filter(|rollout| rollout.is_back()) else {
            continue;
        };
        let Some(candidate) = &rollout.plan.candidate else {
            continue;
        };
        let stable = here
            .stable
            .as_ref()
            .is_some_and(|stable| stable.release == *candidate);
        let own = here
            .exceptions
            .get(node)
            .is_some_and(|own| own.base.as_ref() == Some(candidate));
        if told.routes.iter().any(|(digest, _)| *digest == candidate.id()) && !stable && !own {
            let what = format!(
                "{node} is told to serve {candidate} of {name}, which {} takes back",
                rollout.plan.id
            );
            return Err(Violation::new(Invariant::S7StopMeansStop, what));
        }
    }
    Ok(())
}

/// **S8** (what is kept) The stable release is the last one that succeeded; the base of an unfinished rollout is the
/// stable release, or what its exceptions run.
pub fn s8_targets_stay(state: &State) -> Check {
    for (environment, env) in &state.envs {
        for (module, here) in &env.modules {
            let last = here.successes.last();
            if here.stable.as_ref() != last {
                let what = format!("{environment}/{module}: what is stable is not what succeeded last");
                return Err(Violation::new(Invariant::S8Target, what));
            }
            if here.rollout_of_stable > RolloutId(state.rollouts) {
                let what = format!(
                    "{environment}/{module}: stable by {}, which never ran",
                    here.rollout_of_stable
                );
                return Err(Violation::new(Invariant::S8Target, what));
            }
        }
    }
    Ok(())
}

/// **S14** Nobody approves what they asked for.
pub fn s14_separation(state: &State) -> Check {
    for deployment in state.deployments.values() {
        if let Some(approval) = &deployment.approval
            && approval.by == deployment.requester
        {
            let what = format!(
                "{} decided on their own deployment {}",
                approval.by, deployment.id
            );
            return Err(Violation::new(Invariant::S14Separation, what));
        }
    }
    Ok(())
}
