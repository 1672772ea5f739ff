//! What the judge is asked to show: margins, tolerance, and how sure.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::histogram::{BINS, bin_of, edges_of_ratio};
use super::resources::{LevelBound, LevelQuestion};
use super::two_arm::Bound;
use super::verdict::Signal;

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
    /// Requests can't be shared out: the control's counts are the stable release's on the same nodes before the
    /// switch. Only errors are judged then.
    BeforeAfter,
}

/// A rollout's policy, frozen at its start. Points are given as fractions: .005 is half a percentage point.
/// Unknown fields are ignored and missing ones take their default.
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
    /// Whether processor time is judged, where nodes meter it (default true).
    pub judge_cpu: bool,
    /// Processor time of a request: harm is more by this share (default .3) …
    pub cpu_margin_relative: f64,
    /// … and by this many µs (default 50).
    pub cpu_margin_us: f64,
    /// Whether memory is judged, where nodes meter it (default true). It may fail a rollout; a pass doesn't wait for
    /// it, since a level needs many nodes to show anything.
    pub judge_memory: bool,
    /// Memory of an instance: harm is more by this share (default .3) …
    pub memory_margin_relative: f64,
    /// … and by this many KiB (default 4,096).
    pub memory_margin_kib: f64,
    /// Signals that are judged and shown, but never acted on (default none).
    pub dry_run: BTreeSet<Signal>,
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
            judge_cpu: true,
            cpu_margin_relative: 0.3,
            cpu_margin_us: 50.0,
            judge_memory: true,
            memory_margin_relative: 0.3,
            memory_margin_kib: 4_096.0,
            dry_run: BTreeSet::new(),
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
    /// Neither errors nor latency are acted on: every candidate would pass.
    #[error("dry_run holds both errors and latency (or latency is not judged): one of them has to act")]
    NothingActs,
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

/// The parts of the evidence for harm: a weighted mean of e-values is an e-value whatever they have to do with each other
/// (Vovk, Wang, Ann. Stat. 49(3) 2021). Most faults show as errors or latency.
const WEIGHTS: [(Signal, f64); 4] = [
    (Signal::Errors, 0.5),
    (Signal::Latency, 0.3),
    (Signal::Cpu, 0.1),
    (Signal::Memory, 0.1),
];

/// The highest latency floor, in µs.
const LATENCY_FLOOR_US_MAX: u64 = 10_000_000;

/// Name, where it lives, and the range of each number.
type Range = (&'static str, fn(&mut JudgePolicy) -> &mut f64, f64, f64);

const RANGES: [Range; 11] = [
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
    ("cpu_margin_relative", |p| &mut p.cpu_margin_relative, 0.01, 100.0),
    ("cpu_margin_us", |p| &mut p.cpu_margin_us, 0.0, 1e9),
    (
        "memory_margin_relative",
        |p| &mut p.memory_margin_relative,
        0.01,
        100.0,
    ),
    ("memory_margin_kib", |p| &mut p.memory_margin_kib, 0.0, 1e9),
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
        if !self.acts(Signal::Errors) && !self.acts(Signal::Latency) {
            faults.push(PolicyFault::NothingActs);
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
        if !self.acts(Signal::Errors) && !self.acts(Signal::Latency) {
            self.dry_run.clear();
        }
        self
    }

    /// Whether a signal is judged at all; probes go with errors.
    pub fn is_judged(&self, signal: Signal) -> bool {
        let alone = self.control == Control::BeforeAfter;
        match signal {
            Signal::Errors | Signal::Probes => true,
            Signal::Latency => self.judge_latency && !alone,
            Signal::Cpu => self.judge_cpu && !alone,
            Signal::Memory => self.judge_memory && !alone,
        }
    }

    /// Whether a signal is acted on.
    pub fn acts(&self, signal: Signal) -> bool {
        let signal = if signal == Signal::Probes {
            Signal::Errors
        } else {
            signal
        };
        self.is_judged(signal) && !self.dry_run.contains(&signal)
    }

    /// A signal's part in the evidence for harm: the parts of those that act sum to 1. One in a dry run stands alone.
    pub fn weight(&self, signal: Signal) -> f64 {
        if !self.acts(signal) {
            return 1.0;
        }
        let acting = WEIGHTS.iter().filter(|(signal, _)| self.acts(*signal));
        let all: f64 = acting.map(|(_, weight)| weight).sum();
        let signal = if signal == Signal::Probes {
            Signal::Errors
        } else {
            signal
        };
        let own = WEIGHTS.iter().find(|(other, _)| *other == signal);
        own.map_or(1.0, |(_, weight)| weight / all)
    }

    /// The evidence at which a signal alone shows harm: 1/(weight · α).
    pub fn fail_at(&self, signal: Signal) -> f64 {
        1.0 / (self.weight(signal) * self.alpha)
    }

    /// The evidence at which harm is ruled out: 1/α. Every signal has to, so there is nothing to share.
    pub fn pass_at(&self) -> f64 {
        1.0 / self.alpha
    }

    /// The bound of errors that is tolerated.
    pub(super) fn errors_tolerance(&self) -> Bound {
        self.errors_margin().times(self.tolerance_share)
    }

    /// The bound of errors that a pass rules out.
    pub(super) fn errors_margin(&self) -> Bound {
        Bound {
            points: self.error_margin_points,
            relative: self.error_margin_relative,
        }
    }

    /// The bound of probes' errors that probes alone rule out.
    pub(super) fn probes_margin(&self) -> Bound {
        Bound {
            points: self.probe_margin_points,
            relative: self.error_margin_relative,
        }
    }

    /// What is asked of processor time, in µs of a request.
    pub(super) fn cpu_question(&self) -> LevelQuestion {
        self.level_question(self.cpu_margin_relative, self.cpu_margin_us)
    }

    /// What is asked of memory, in KiB of an instance.
    pub(super) fn memory_question(&self) -> LevelQuestion {
        self.level_question(self.memory_margin_relative, self.memory_margin_kib)
    }

    fn level_question(&self, relative: f64, floor: f64) -> LevelQuestion {
        let share = self.tolerance_share;
        LevelQuestion {
            tolerance: LevelBound {
                relative: relative * share,
                floor: floor * share,
            },
            margin: LevelBound { relative, floor },
        }
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
