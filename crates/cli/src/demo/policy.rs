//! The demo's environments: the default ones, with their times compressed.

use hotswap_core::policy::{Environment, RolloutPolicy};
use hotswap_core::time::Millis;

use std::time::Duration;

/// How often the demo's nodes report at least.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// The environment that has customers who pay in yen.
pub(crate) const PRODUCTION: &str = "Production";

/// Nodes of each environment, and the requests that each gets a second.
pub(crate) const FLEET: [(&str, usize, f64); 4] = [
    ("Development", 3, 8.0),
    ("QA", 5, 8.0),
    ("Staging", 10, 8.0),
    (PRODUCTION, 20, 200.0),
];

/// Development, QA, Staging and Production, with their default strategies and short times.
pub(crate) fn environments() -> Vec<Environment> {
    let mut environments = Environment::defaults();
    for environment in &mut environments {
        let standard = environment.policy.clone();
        environment.policy = RolloutPolicy {
            settle: Millis::from_secs(1),
            step_deadline: Millis::from_secs(20),
            silence_max: Millis::from_secs(10),
            soak_min: Millis::from_secs(3),
            soak_max: Millis::from_secs(60),
            interval: Millis(500),
            // Where there are no customers a step's verdict rests on probes: enough for one within seconds.
            probes_per_interval: 5,
            back_deadline: Millis::from_secs(20),
            ..standard
        };
        // A whole fleet and its customers share this machine, perhaps with a build: a payment's latency tells of that first.
        // So a release is slow where it makes one in thirty payments slow, not one in two hundred.
        environment.policy.judge.latency_floor_us = 5_000;
        environment.policy.judge.latency_margin_points = 0.03;
        // Where there are customers it rests on them, and on their latency, too.
        environment.policy.judge.probes_below_requests = environment.policy.judge.min_candidate_requests;
    }
    environments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_and_its_environments_are_sound() {
        let environments = environments();
        assert_eq!(Environment::validate_all(&environments), Ok(()));
        let names: Vec<&str> = environments
            .iter()
            .map(|environment| environment.name.as_str())
            .collect();
        assert_eq!(names, FLEET.map(|(name, ..)| name));
        assert_eq!(FLEET.iter().map(|(_, nodes, _)| nodes).sum::<usize>(), 38);
    }
}
