//! The run's fleet: a small environment for each strategy, with short times.

use hotswap_core::policy::{CanaryBy, Environment, OnInconclusive, RolloutPolicy, Strategy};
use hotswap_core::time::Millis;

/// A node's place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) environment: &'static str,
    /// Whether it is the first of its environment.
    pub(crate) first: bool,
    /// Whether two releases may serve on it at once by design.
    pub(crate) shares: bool,
}

/// Environments, the nodes of each, and what its strategy is called.
pub(crate) const ENVIRONMENTS: [(&str, usize, &str); 4] = [
    ("Development", 1, "Direct"),
    ("QA", 3, "Rolling"),
    ("Staging", 2, "BlueGreen"),
    ("Production", 3, "Canary"),
];

pub(crate) fn places() -> Vec<Place> {
    let of = |(environment, nodes, strategy): (&'static str, usize, &'static str)| {
        (0..nodes).map(move |number| Place {
            node: format!("{}-{}", environment.to_lowercase(), number + 1),
            environment,
            first: number == 0,
            shares: strategy == "Canary",
        })
    };
    ENVIRONMENTS.into_iter().flat_map(of).collect()
}

/// The environments, as the server reads them from a file.
pub(crate) fn environments_json() -> String {
    let mut environments = Environment::defaults();
    for environment in &mut environments {
        environment.policy = RolloutPolicy {
            settle: Millis(300),
            step_deadline: Millis::from_secs(30),
            silence_max: Millis::from_secs(20),
            soak_min: Millis::from_secs(1),
            soak_max: Millis::from_secs(4),
            interval: Millis(500),
            probes_per_interval: 3,
            back_deadline: Millis::from_secs(20),
            hold_expiry: Millis::from_secs(10),
            pause_expiry: Millis::from_secs(8),
            // Traffic is thin here: what neither harms nor is proven goes on after the longest soak.
            on_inconclusive: OnInconclusive::Promote,
            ..RolloutPolicy::default()
        };
        // The machine is shared by a whole fleet under fault: latencies tell of it, not of the release.
        environment.policy.judge.judge_latency = false;
        if matches!(environment.strategy, Strategy::Canary { .. }) {
            environment.strategy = Strategy::Canary {
                by: CanaryBy::Traffic,
                percents: vec![30, 100],
            };
        }
    }
    serde_json::to_string_pretty(&environments).expect("environments are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_are_sound_and_the_servers() {
        let environments: Vec<Environment> = serde_json::from_str(&environments_json()).unwrap();
        assert_eq!(Environment::validate_all(&environments), Ok(()));
        let strategies: Vec<_> = environments
            .iter()
            .map(|environment| (environment.name.as_str(), environment.strategy.name()))
            .collect();
        assert_eq!(
            strategies,
            ENVIRONMENTS.map(|(name, _, strategy)| (name, strategy))
        );
    }
}
