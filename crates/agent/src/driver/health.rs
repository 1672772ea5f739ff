//! The machine's health: to be shown and to be excused by, never a verdict on a release.

use hotswap_core::report::NodeHealth;
use hotswap_core::time::CoreTime;

use super::totals::Totals;
use crate::meter::os::Sampler;

/// Measures from one report to the next.
pub(super) struct HealthMeter {
    totals: Totals,
    sampler: Sampler,
    before: crate::Stats,
    at: CoreTime,
}

impl HealthMeter {
    pub(super) fn new(totals: Totals) -> Self {
        let before = totals.stats();
        Self {
            totals,
            sampler: Sampler::new(),
            before,
            at: CoreTime(0),
        }
    }

    /// What was since the last call.
    pub(super) fn measure(&mut self, now: CoreTime) -> NodeHealth {
        let machine = self.sampler.sample().unwrap_or_else(|error| {
            tracing::debug!(%error, "the machine's CPU and memory can't be read");
            crate::meter::os::Sample::default()
        });
        let stats = self.totals.stats();
        let before = std::mem::replace(&mut self.before, stats);
        let seconds = now.since(self.at).0.max(1) as f64 / 1_000.0;
        self.at = now;
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
        NodeHealth {
            cpu_percent: machine.cpu_percent,
            memory_percent: machine.memory_percent,
            requests_per_second: requests as f64 / seconds,
            error_percent: 100.0 * of_requests(errors),
            samples: requests,
            latency_ms: of_requests(latency_us) / 1_000.0,
        }
    }
}
