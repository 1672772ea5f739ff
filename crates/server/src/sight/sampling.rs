//! What is measured at one moment: from nodes' last reports, by environment, node and release.

use std::collections::BTreeMap;

use hotswap_core::ids::{EnvName, ModuleName};
use hotswap_core::observe::Observations;
use hotswap_core::report::NodeHealth;
use hotswap_core::state::State;

use super::series::{Entity, NODES_FINE_MAX};
use crate::driver::World;
use crate::views::cluster;

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU in use, in %.
    pub cpu_percent: f64,
    /// Memory in use, in %.
    pub memory_percent: f64,
    /// Mean latency of requests, in ms.
    pub latency_ms: f64,
    /// Errors among requests, in %.
    pub error_percent: f64,
    /// Requests a second.
    pub requests_per_second: f64,
}

/// A round of samples. In a large fleet nodes are in it only where it begins a minute.
pub(super) fn samples(world: &World, minute: bool) -> Vec<(Entity, Sample)> {
    // Taken out under the locks, stored after.
    let (state, obs) = (world.state(), world.observations());
    let mut samples = environments(&state, &obs);
    if minute || state.nodes.len() <= NODES_FINE_MAX {
        samples.extend(nodes(&state, &obs));
    }
    samples.extend(releases(&state, &obs));
    samples
}

fn environments(state: &State, obs: &Observations) -> Vec<(Entity, Sample)> {
    let peopled = |name: &&EnvName| state.envs.get(*name).is_some_and(|env| !env.nodes.is_empty());
    let names = state.environments.iter().map(|environment| &environment.name);
    names
        .filter(peopled)
        .map(|name| {
            let metrics = cluster::metrics(name, state, obs);
            let sample = Sample {
                cpu_percent: metrics.avg_cpu_usage,
                memory_percent: metrics.avg_memory_usage,
                latency_ms: metrics.avg_latency,
                error_percent: metrics.error_rate,
                requests_per_second: metrics.requests_per_second,
            };
            (Entity::Environment(name.clone()), sample)
        })
        .collect()
}

fn nodes(state: &State, obs: &Observations) -> Vec<(Entity, Sample)> {
    let connected = obs.nodes().filter(|(_, seen)| seen.connected);
    connected
        .filter_map(|(id, seen)| {
            let environment = state.nodes.get(id)?.environment.clone();
            let health = seen.health?;
            Some((Entity::Node(environment, id.clone()), sample_of(&health)))
        })
        .collect()
}

fn sample_of(health: &NodeHealth) -> Sample {
    Sample {
        cpu_percent: health.cpu_percent,
        memory_percent: health.memory_percent,
        latency_ms: health.latency_ms,
        error_percent: health.error_percent,
        requests_per_second: health.requests_per_second,
    }
}

/// Sums of what nodes say of one release.
#[derive(Clone, Copy, Default)]
struct Sum {
    rate: f64,
    errors: f64,
    latency_ms: f64,
}

fn releases(state: &State, obs: &Observations) -> Vec<(Entity, Sample)> {
    let mut sums: BTreeMap<(&EnvName, &ModuleName, String), Sum> = BTreeMap::new();
    for (id, seen) in obs.nodes().filter(|(_, seen)| seen.connected) {
        let Some(node) = state.nodes.get(id) else { continue };
        for load in &seen.loads {
            let version = crate::views::node::version_of(state, &load.module, &load.digest);
            let sum = sums
                .entry((&node.environment, &load.module, version))
                .or_default();
            sum.rate += load.requests_per_second;
            sum.errors += load.requests_per_second * load.error_percent;
            sum.latency_ms += load.requests_per_second * load.latency_ms;
        }
    }
    sums.into_iter()
        .map(|((environment, module, version), sum)| {
            let share = |of: f64| if sum.rate > 0.0 { of / sum.rate } else { 0.0 };
            let sample = Sample {
                requests_per_second: sum.rate,
                error_percent: share(sum.errors),
                latency_ms: share(sum.latency_ms),
                ..Sample::default()
            };
            (
                Entity::Release(environment.clone(), module.clone(), version),
                sample,
            )
        })
        .collect()
}
