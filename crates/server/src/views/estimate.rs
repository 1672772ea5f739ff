//! How long a deployment will take: the median of finished ones with the same target, else the sum of what its plan
//! makes it wait for.

use hotswap_core::ids::{EnvName, ModuleName};
use hotswap_core::policy::{Environment, Strategy};
use hotswap_core::stage::{Deployment, DeploymentStatus, Purpose};
use hotswap_core::state::State;
use hotswap_core::time::Millis;

/// Build, Test and Security Scan of a module of common size.
const CHECKS: Millis = Millis(500);
/// A node fetches, loads, switches and reports.
const SWITCH: Millis = Millis(500);

/// The time that a deployment of a module to a target will take about, without queues, approvals and pauses.
///
/// Of the succeeded deployments that State still holds, those of this module to this target count, or else those of
/// any module; without any it is the plan's time: for each environment that has nodes its steps' settle times and
/// soaks.
pub fn estimate(state: &State, module: &ModuleName, target: &EnvName) -> Millis {
    let times = |same_module: bool| {
        let of_kind = |deployment: &&Deployment| {
            deployment.target == *target
                && deployment.purpose == Purpose::Deploy
                && deployment.status == DeploymentStatus::Succeeded
                && (!same_module || deployment.module == *module)
        };
        let mut times: Vec<Millis> = state
            .finished
            .values()
            .filter(of_kind)
            .filter_map(|done| Some(done.ended?.core.since(done.requested.core)))
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    };
    times(true)
        .or_else(|| times(false))
        .unwrap_or_else(|| planned(state, target))
}

fn planned(state: &State, target: &EnvName) -> Millis {
    let upto = state
        .environments
        .iter()
        .position(|environment| environment.name == *target);
    let way = state.environments.iter().take(upto.map_or(0, |index| index + 1));
    way.fold(CHECKS, |sum, environment| sum + time_in(state, environment))
}

fn time_in(state: &State, environment: &Environment) -> Millis {
    let nodes = state.envs.get(&environment.name).map_or(0, |env| env.nodes.len()) as u64;
    if nodes == 0 {
        return Millis(0);
    }
    let policy = &environment.policy;
    let step = SWITCH + policy.settle;
    let (steps, soaks) = match &environment.strategy {
        Strategy::Direct => (1, 0),
        Strategy::Rolling { batch } => (nodes.div_ceil(u64::from((*batch).max(1))), 0),
        Strategy::BlueGreen => (2, 1),
        Strategy::Canary { percents, .. } => (percents.len() as u64, percents.len() as u64),
    };
    Millis(
        step.0
            .saturating_mul(steps)
            .saturating_add(policy.soak_min.0.saturating_mul(soaks)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_history_the_plan_tells() {
        let mut state = State {
            environments: Environment::defaults(),
            ..State::default()
        };
        let (module, qa): (ModuleName, EnvName) = ("pay".parse().unwrap(), "QA".parse().unwrap());
        assert_eq!(estimate(&state, &module, &qa), CHECKS, "no nodes, no rollouts");
        for name in ["a", "b", "c", "d", "e"] {
            state
                .envs
                .entry(qa.clone())
                .or_default()
                .nodes
                .insert(name.parse().unwrap());
        }
        let step = SWITCH + state.environments[1].policy.settle;
        assert_eq!(
            estimate(&state, &module, &qa),
            Millis(CHECKS.0 + 3 * step.0),
            "three batches of two"
        );
    }
}
