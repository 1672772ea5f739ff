//! Environments' measurements over time, in memory: what nodes reported, averaged every ten seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::EnvName;
use hotswap_core::time::{Millis, WallTime};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::driver::World;
use crate::views::cluster::{ClusterMetrics, metrics, rounded};

/// Time between two samples.
pub const RESOLUTION: Millis = Millis::from_secs(10);
/// Samples kept of each environment: a day's.
const SAMPLES_MAX: usize = 8_640;

/// What an environment's nodes reported at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: WallTime,
    metrics: ClusterMetrics,
}

/// Averages over one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where the stretch begins.
    pub at: WallTime,
    /// Averages of its samples; latency and errors weighted by requests.
    pub metrics: ClusterMetrics,
}

/// All environments' samples.
#[derive(Debug, Default)]
pub struct Series {
    by_environment: RwLock<BTreeMap<EnvName, VecDeque<Sample>>>,
}

impl Series {
    /// Samples until the server ends.
    pub async fn keep(self: Arc<Self>, world: Arc<World>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_millis(RESOLUTION.0));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.sample(&world),
            }
        }
    }

    fn sample(&self, world: &World) {
        let at = world.now().wall;
        let sampled: Vec<(EnvName, ClusterMetrics)> = {
            let (state, obs) = (world.state(), world.observations());
            let known = |name: &EnvName| state.envs.get(name).is_some_and(|env| !env.nodes.is_empty());
            let names = state
                .environments
                .iter()
                .map(|environment| &environment.name)
                .filter(|name| known(name));
            names
                .map(|name| (name.clone(), metrics(name, &state, &obs)))
                .collect()
        };
        let mut by_environment = self.by_environment.write();
        for (name, metrics) in sampled {
            let samples = by_environment.entry(name).or_default();
            samples.push_back(Sample { at, metrics });
            if samples.len() > SAMPLES_MAX {
                samples.pop_front();
            }
        }
    }

    /// Averages over each interval from `from` to before `to` that has samples, oldest first.
    pub fn points(
        &self,
        environment: &EnvName,
        from: WallTime,
        to: WallTime,
        interval: Millis,
    ) -> Vec<Point> {
        let by_environment = self.by_environment.read();
        let samples = by_environment.get(environment).into_iter().flatten();
        let mut stretches: BTreeMap<u64, Vec<ClusterMetrics>> = BTreeMap::new();
        for sample in samples.filter(|sample| (from..to).contains(&sample.at)) {
            stretches
                .entry(sample.at.0 / interval.0 * interval.0)
                .or_default()
                .push(sample.metrics);
        }
        stretches
            .into_iter()
            .map(|(at, metrics)| Point {
                at: WallTime(at),
                metrics: average(&metrics),
            })
            .collect()
    }
}

fn average(samples: &[ClusterMetrics]) -> ClusterMetrics {
    let count = samples.len() as f64;
    let sum = |value: fn(&ClusterMetrics) -> f64| samples.iter().map(value).sum::<f64>();
    let requests = sum(|sample| sample.requests_per_second);
    let weighted = |sum: f64| {
        if requests > 0.0 {
            rounded(sum / requests)
        } else {
            0.0
        }
    };
    ClusterMetrics {
        avg_cpu_usage: rounded(sum(|sample| sample.avg_cpu_usage) / count),
        avg_memory_usage: rounded(sum(|sample| sample.avg_memory_usage) / count),
        avg_latency: weighted(sum(|sample| sample.avg_latency * sample.requests_per_second)),
        error_rate: weighted(sum(|sample| sample.error_rate * sample.requests_per_second)),
        requests_per_second: rounded(requests / count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_averaged_by_interval() {
        let series = Series::default();
        let name: EnvName = "QA".parse().unwrap();
        let sample = |at, cpu| Sample {
            at: WallTime(at),
            metrics: ClusterMetrics {
                avg_cpu_usage: cpu,
                ..ClusterMetrics::default()
            },
        };
        let samples = [
            sample(60_000, 10.0),
            sample(70_000, 30.0),
            sample(130_000, 50.0),
            sample(190_000, 9.0),
        ];
        series.by_environment.write().insert(name.clone(), samples.into());
        let points = series.points(&name, WallTime(60_000), WallTime(190_000), Millis(60_000));
        let cpu: Vec<(u64, f64)> = points
            .iter()
            .map(|point| (point.at.0, point.metrics.avg_cpu_usage))
            .collect();
        assert_eq!(cpu, [(60_000, 20.0), (120_000, 50.0)]);
    }
}
