//! Environments as the API shows them: the contract calls them clusters.

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::observe::Observations;
use hotswap_core::report::NodeHealth;
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now};
use serde::Serialize;
use utoipa::ToSchema;

use super::node::{last_heartbeat, status};

/// The share of healthy nodes that makes an environment healthy, in %.
const HEALTHY_PERCENT_MIN: usize = 80;

/// An environment in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterItem {
    /// Its name.
    #[schema(example = "Production")]
    pub environment: String,
    /// Its nodes.
    pub total_nodes: usize,
    /// Those of them that are Running.
    pub healthy_nodes: usize,
    /// None is unhealthy, or at least 80 % are healthy.
    pub is_healthy: bool,
}

/// An environment with its nodes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its name.
    #[schema(example = "Production")]
    pub environment: String,
    /// Its nodes.
    pub total_nodes: usize,
    /// Those of them that are Running.
    pub healthy_nodes: usize,
    /// The others, except those that an operator drains or drained.
    pub unhealthy_nodes: usize,
    /// Averages over its nodes' last reports.
    pub metrics: ClusterMetrics,
    /// Each node.
    pub nodes: Vec<ClusterNode>,
}

/// Averages over an environment's nodes, of their last reports. Latency and errors are weighted by requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterMetrics {
    /// CPU in use, in %.
    pub avg_cpu_usage: f64,
    /// Memory in use, in %.
    pub avg_memory_usage: f64,
    /// Latency of requests, in ms.
    pub avg_latency: f64,
    /// Errors among requests, in %.
    pub error_rate: f64,
    /// Requests a second, of all nodes together.
    pub requests_per_second: f64,
}

/// A node of an environment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    /// Its identity.
    pub node_id: String,
    /// Its host name.
    pub hostname: String,
    /// Initializing, Running, Degraded, Stopping, Stopped or Failed.
    pub status: &'static str,
    /// When its last report came; null if none came since the server's start.
    #[schema(format = "date-time")]
    pub last_heartbeat: Option<String>,
}

/// All environments, in order.
pub fn list(state: &State, obs: &Observations, now: Now, heartbeat_timeout: Millis) -> Vec<ClusterItem> {
    let item = |environment: &EnvName| {
        let (total, healthy, unhealthy) = counts(environment, state, obs, now, heartbeat_timeout);
        let is_healthy = unhealthy == 0 || healthy * 100 >= total * HEALTHY_PERCENT_MIN;
        ClusterItem {
            environment: environment.to_string(),
            total_nodes: total,
            healthy_nodes: healthy,
            is_healthy,
        }
    };
    state
        .environments
        .iter()
        .map(|environment| item(&environment.name))
        .collect()
}

/// One environment with its nodes.
pub fn view(
    environment: &EnvName,
    state: &State,
    obs: &Observations,
    now: Now,
    heartbeat_timeout: Millis,
) -> ClusterView {
    let (total, healthy, unhealthy) = counts(environment, state, obs, now, heartbeat_timeout);
    let node = |id: &NodeId| ClusterNode {
        node_id: id.to_string(),
        hostname: state
            .nodes
            .get(id)
            .map(|node| node.hostname.clone())
            .unwrap_or_default(),
        status: status(id, state, obs, now, heartbeat_timeout),
        last_heartbeat: last_heartbeat(obs.node(id)),
    };
    ClusterView {
        environment: environment.to_string(),
        total_nodes: total,
        healthy_nodes: healthy,
        unhealthy_nodes: unhealthy,
        metrics: metrics(environment, state, obs),
        nodes: members(environment, state).map(node).collect(),
    }
}

fn members<'a>(environment: &EnvName, state: &'a State) -> impl Iterator<Item = &'a NodeId> {
    state
        .envs
        .get(environment)
        .map(|env| &env.nodes)
        .into_iter()
        .flatten()
}

/// All nodes, those that are Running, and those that ought to be.
fn counts(
    environment: &EnvName,
    state: &State,
    obs: &Observations,
    now: Now,
    heartbeat_timeout: Millis,
) -> (usize, usize, usize) {
    members(environment, state).fold((0, 0, 0), |(total, healthy, unhealthy), id| {
        match status(id, state, obs, now, heartbeat_timeout) {
            "Running" => (total + 1, healthy + 1, unhealthy),
            "Stopping" | "Stopped" => (total + 1, healthy, unhealthy),
            _ => (total + 1, healthy, unhealthy + 1),
        }
    })
}

/// Averages over an environment's connected nodes.
pub fn metrics(environment: &EnvName, state: &State, obs: &Observations) -> ClusterMetrics {
    let seen = members(environment, state)
        .filter_map(|id| obs.node(id))
        .filter(|seen| seen.connected);
    average(seen.filter_map(|seen| seen.health))
}

fn average(reports: impl Iterator<Item = NodeHealth>) -> ClusterMetrics {
    let (mut nodes, mut sum, mut latency, mut errors) = (0.0, ClusterMetrics::default(), 0.0, 0.0);
    for health in reports {
        nodes += 1.0;
        sum.avg_cpu_usage += health.cpu_percent;
        sum.avg_memory_usage += health.memory_percent;
        sum.requests_per_second += health.requests_per_second;
        latency += health.latency_ms * health.requests_per_second;
        errors += health.error_percent * health.requests_per_second;
    }
    let share = |sum: f64, of: f64| if of > 0.0 { rounded(sum / of) } else { 0.0 };
    ClusterMetrics {
        avg_cpu_usage: share(sum.avg_cpu_usage, nodes),
        avg_memory_usage: share(sum.avg_memory_usage, nodes),
        avg_latency: share(latency, sum.requests_per_second),
        error_rate: share(errors, sum.requests_per_second),
        requests_per_second: rounded(sum.requests_per_second),
    }
}

/// Three decimals: finer is noise.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_and_errors_are_weighted_by_requests() {
        let busy = NodeHealth {
            cpu_percent: 50.0,
            memory_percent: 20.0,
            requests_per_second: 90.0,
            error_percent: 1.0,
            samples: 900,
            latency_ms: 10.0,
        };
        let idle = NodeHealth {
            cpu_percent: 10.0,
            requests_per_second: 10.0,
            latency_ms: 20.0,
            error_percent: 11.0,
            ..busy
        };
        let metrics = average([busy, idle].into_iter());
        assert_eq!(
            metrics,
            ClusterMetrics {
                avg_cpu_usage: 30.0,
                avg_memory_usage: 20.0,
                avg_latency: 11.0,
                error_rate: 2.0,
                requests_per_second: 100.0
            }
        );
        assert_eq!(average(std::iter::empty()), ClusterMetrics::default());
    }
}
