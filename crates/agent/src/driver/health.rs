//! The machine's health: to be shown and to be excused by, never a verdict on a release.

use std::collections::BTreeMap;

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_core::report::{LOADS_MAX, NodeHealth, ReleaseLoad};
use hotswap_core::time::CoreTime;

use super::totals::Totals;
use crate::meter::os::Sampler;

/// Measures from one report to the next.
pub(crate) struct HealthMeter {
    totals: Totals,
    sampler: Sampler,
    before: crate::Stats,
    /// Of each release: requests, errors, and the sum of latencies in µs.
    releases: BTreeMap<(ModuleName, Digest), [u64; 3]>,
    at: CoreTime,
}

impl HealthMeter {
    pub(crate) fn new(totals: Totals) -> Self {
        let before = totals.stats();
        Self {
            totals,
            sampler: Sampler::new(),
            before,
            releases: BTreeMap::new(),
            at: CoreTime(0),
        }
    }

    /// What was since the last call: of the machine, and of each release that had requests.
    pub(crate) fn measure(&mut self, now: CoreTime) -> (NodeHealth, Vec<ReleaseLoad>) {
        let machine = self.sampler.sample().unwrap_or_else(|error| {
            tracing::debug!(%error, "the machine's CPU and memory can't be read");
            crate::meter::os::Sample::default()
        });
        let stats = self.totals.stats();
        let before = std::mem::replace(&mut self.before, stats);
        let seconds = now.since(self.at).0.max(1) as f64 / 1_000.0;
        self.at = now;
        let loads = self.loads(seconds);
        let requests = stats.requests.saturating_sub(before.requests);
        let errors = stats.errors.saturating_sub(before.errors).min(requests);
        let latency_us = stats.latency_us.saturating_sub(before.latency_us);
        let of_requests = |sum: u64| {
            if requests == 0 {
                0.0
            } else {
                sum as f64 / requests as f64
            }
        };
        let health = NodeHealth {
            cpu_percent: machine.cpu_percent,
            memory_percent: machine.memory_percent,
            requests_per_second: requests as f64 / seconds,
            error_percent: 100.0 * of_requests(errors),
            samples: requests,
            latency_ms: of_requests(latency_us) / 1_000.0,
        };
        (health, loads)
    }

    fn loads(&mut self, seconds: f64) -> Vec<ReleaseLoad> {
        let mut loads = Vec::new();
        let mut counted = BTreeMap::new();
        for reading in self.totals.readings() {
            let now = [
                reading.counters.requests(),
                reading.counters.errors,
                reading.counters.latency_us,
            ];
            let key = (reading.module, reading.digest);
            let before = self.releases.get(&key).copied().unwrap_or_default();
            let since = |at: usize| now[at].saturating_sub(before[at]) as f64;
            let requests = since(0);
            if requests > 0.0 && loads.len() < LOADS_MAX {
                loads.push(ReleaseLoad {
                    module: key.0.clone(),
                    digest: key.1,
                    requests_per_second: requests / seconds,
                    error_percent: 100.0 * (since(1) / requests).min(1.0),
                    latency_ms: since(2) / requests / 1_000.0,
                });
            }
            counted.insert(key, now);
        }
        self.releases = counted;
        loads
    }
}
