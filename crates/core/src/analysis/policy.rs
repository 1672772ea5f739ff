//! What the judge is asked to show: margins, tolerance, and how sure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::histogram::{BINS, bin_of, edges_of_ratio};

/// Whether there is anything to compare the candidate with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Control {
    /// The stable release serves a share of the same nodes' requests. Where its counts are missing the verdict is
    /// inconclusive.
    #[default]
    SideBySide,
    /// There is no stable release (a first release): successful probes in a row stand for a comparison.
    Absent,
}

/// A rollout's policy, frozen at its start. Points are given as fractions: .005 is half a percentage point.
/// CPU and memory margins will join here; unknown fields are ignored and missing ones take their default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgePolicy {
    /// Whether there is a control.
    pub control: Control,
    /// Errors: harm is a rate above the control's by more than this (default .005) …
    pub error_margin_points: f64,
    /// … and by more than this share of it (default .5).
    pub error_margin_relative: f64,
    /// Whether latency is judged (default true). Without latency counts the verdict stays inconclusive then.
    pub judge_latency: bool,
    /// Latency: harm is a slowdown by more than this share (default 1.0, i.e. twice as slow), rounded to whole
    /// histogram edges …
    pub latency_margin_relative: f64,
    /// … of more than this share of requests (default .005).
    pub latency_margin_points: f64,
    /// Latencies below this are all the same, in µs (default 100): a slowdown counts where it goes beyond.
    pub latency_floor_us: u64,
    /// The part of each margin that is tolerated (default .5): a fail shows harm beyond it. Never 0, or harmless
    /// differences fail in the end; below 1.
    pub tolerance_share: f64,
    /// The chance, over a whole rollout, that a harmless candidate fails; and per step that a harmful one passes
    /// (default .01).
    pub alpha: f64,
    /// Candidate requests of users that a step needs at least before their evidence alone passes it (default 100).
    pub min_candidate_requests: u64,
    /// Probes count towards a pass in a step with fewer candidate requests than this (default 1,000).
    pub probes_below_requests: u64,
    /// The absolute margin where probes are alone, i.e. no user's request reached the candidate (default .05).
    pub probe_margin_points: f64,
    /// Candidate probes in a row that pass a step where there is no control (default 90: if 5 % failed, so many
    /// successes in a row had a chance below 1 %).
    pub no_control_probes: u64,
}

impl Default for JudgePolicy {
    fn default() -> Self {
        Self {
            control: Control::SideBySide,
            error_margin_points: 0.005,
            error_margin_relative: 0.5,
            judge_latency: true,
            latency_margin_relative: 1.0,
            latency_margin_points: 0.005,
            latency_floor_us: 100,
            tolerance_share: 0.5,
            alpha: 0.01,
            min_candidate_requests: 100,
            probes_below_requests: 1_000,
            probe_margin_points: 0.05,
            no_control_probes: 90,
        }
    }
}

/// One fault of a policy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PolicyFault {
    /// A number outside its range.
    #[error("{field} is {value}, must be {low} to {high}")]
    Range {
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: f64,
        /// The least that is allowed.
        low: f64,
        /// The most that is allowed.
        high: f64,
    },
    /// A latency floor above 10 s, or 0.
    #[error("latency_floor_us is {0}, must be 1 to {LATENCY_FLOOR_US_MAX}")]
    LatencyFloor(u64),
    /// No probes asked for where there is no control: a step would pass without evidence.
    #[error("no_control_probes is 0, must be at least 1")]
    NoProbes,
}

/// Why a policy was refused: all its faults.
#[derive(Clone, Debug, PartialEq)]
pub struct InvalidPolicy(
    /// At least one.
    pub Vec<PolicyFault>,
);

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidPolicy {}

/// The highest latency floor, in µs.
const LATENCY_FLOOR_US_MAX: u64 = 10_000_000;

/// Name, where it lives, and the range of each number.
type Range = (&'static str, fn(&mut JudgePolicy) -> &mut f64, f64, f64);

const RANGES: [Range; 7] = [
    (
        "error_margin_points",
        |p| &mut p.error_margin_points,
        0.000_01,
        0.5,
    ),
    (
        "error_margin_relative",
        |p| &mut p.error_margin_relative,
        0.0,
        100.0,
    ),
    // Half a tolerance of .13 is the least that makes one edge of 5.9 %.
    (
        "latency_margin_relative",
        |p| &mut p.latency_margin_relative,
        0.13,
        100.0,
    ),
    (
        "latency_margin_points",
        |p| &mut p.latency_margin_points,
        0.000_01,
        0.5,
    ),
    ("tolerance_share", |p| &mut p.tolerance_share, 0.05, 0.95),
    ("alpha", |p| &mut p.alpha, 1e-6, 0.1),
    (
        "probe_margin_points",
        |p| &mut p.probe_margin_points,
        0.000_01,
        0.5,
    ),
];

impl JudgePolicy {
    /// Checks every number.
    ///
    /// # Errors
    /// All faults at once.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let mut policy = self.clone();
        let mut faults: Vec<PolicyFault> = RANGES
            .iter()
            .filter_map(|(field, at, low, high)| {
                let value = *at(&mut policy);
                let fault = PolicyFault::Range {
                    field,
                    value,
                    low: *low,
                    high: *high,
                };
                (!(*low..=*high).contains(&value)).then_some(fault)
            })
            .collect();
        if !(1..=LATENCY_FLOOR_US_MAX).contains(&self.latency_floor_us) {
            faults.push(PolicyFault::LatencyFloor(self.latency_floor_us));
        }
        if self.no_control_probes == 0 {
            faults.push(PolicyFault::NoProbes);
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(InvalidPolicy(faults))
        }
    }

    /// The same policy with every faulty number replaced by its default, so that folding is total.
    pub(super) fn sound(mut self) -> Self {
        let mut standard = Self::default();
        for (_, at, low, high) in &RANGES {
            let value = at(&mut self);
            if !(*low..=*high).contains(value) {
                *value = *at(&mut standard);
            }
        }
        if !(1..=LATENCY_FLOOR_US_MAX).contains(&self.latency_floor_us) {
            self.latency_floor_us = standard.latency_floor_us;
        }
        self.no_control_probes = self.no_control_probes.max(1);
        self
    }

    /// How many signals share α: errors (users and probes together), and latency.
    pub fn signals(&self) -> u32 {
        1 + u32::from(self.judge_latency)
    }

    /// The evidence at which a signal shows harm: signals/α.
    pub fn fail_at(&self) -> f64 {
        f64::from(self.signals()) / self.alpha
    }

    /// The evidence at which harm is ruled out: 1/α. Every signal has to, so there is nothing to share.
    pub fn pass_at(&self) -> f64 {
        1.0 / self.alpha
    }

    /// The latency margin in histogram edges.
    pub(super) fn latency_margin_edges(&self) -> usize {
        edges_of_ratio(1.0 + self.latency_margin_relative)
    }

    /// The latency tolerance in histogram edges.
    pub(super) fn latency_tolerance_edges(&self) -> usize {
        edges_of_ratio(1.0 + self.latency_margin_relative * self.tolerance_share)
    }

    /// The bin of the latency floor.
    pub(super) fn latency_floor_bin(&self) -> usize {
        bin_of(self.latency_floor_us).min(BINS - 1)
    }
}
