//! Latency, candidate against control: at each edge x of a histogram, the share of the candidate's requests above
//! (1 + r) x against the share of the control's above x.

use serde::{Deserialize, Serialize};

use super::alternatives::{ALTERNATIVES, ODDS_RATIOS, beyond};
use super::evidence::Exact;
use super::histogram::{BINS, Histogram};
use super::policy::JudgePolicy;
use super::two_arm::{Bound, Counts, Pair, log_against_harm, log_for_harm, nearest_harm};

/// Harm is looked for at every fourth edge (ratio 1.26): a slowdown shows at several of them anyway.
const EDGE_STRIDE: usize = 4;

/// What a block keeps of the past's weight: the past reaches about ten blocks back, so that it follows the day.
const PAST_KEPT: f64 = 0.9;

/// Up to so many requests the past forgets nothing: where intervals are small, ten of them are no past.
const PAST_WEIGHT_FULL: f64 = 500.0;

/// Requests that the past holds at least before it predicts anything.
const PAST_WEIGHT_MIN: f64 = 50.0;

/// The quantiles of the control at which a slowdown is ruled out.
const QUANTILES: [f64; 3] = [0.50, 0.95, 0.99];

/// The exponentially weighted past of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Past {
    /// Weight by bin, up to the highest that was ever seen.
    bins: Vec<Exact>,
}

impl Past {
    fn new() -> Self {
        Self { bins: Vec::new() }
    }

    fn fold(&mut self, latency: &Histogram) {
        let total: f64 = self.bins.iter().map(|weight| weight.get()).sum();
        if total > PAST_WEIGHT_FULL {
            for weight in &mut self.bins {
                *weight = Exact::new(weight.get() * PAST_KEPT);
            }
        }
        for (bin, count) in latency.iter() {
            if bin >= self.bins.len() {
                self.bins.resize(bin + 1, Exact::ZERO);
            }
            self.bins[bin] = Exact::new(self.bins[bin].get() + count as f64);
        }
    }

    fn tails(&self) -> Tails {
        tails(self.bins.iter().map(|weight| weight.get()).enumerate())
    }
}

/// How much lies at or above each bin.
type Tails = [f64; BINS + 1];

fn tails(weights: impl Iterator<Item = (usize, f64)>) -> Tails {
    let mut tails = [0.0; BINS + 1];
    for (bin, weight) in weights {
        tails[bin.min(BINS - 1)] += weight;
    }
    for bin in (0..BINS).rev() {
        tails[bin] += tails[bin + 1];
    }
    tails
}

/// Both arms' past, as tails.
struct Pasts {
    candidate: Tails,
    control: Tails,
}

impl Pasts {
    /// The past share of the candidate's above one bin and the control's above another, together.
    fn pooled(&self, candidate_bin: usize, control_bin: usize) -> f64 {
        let above = self.candidate[candidate_bin.min(BINS)] + self.control[control_bin.min(BINS)];
        (above + 0.5) / (self.candidate[0] + self.control[0] + 1.0)
    }

    /// The past share of the control's above a bin.
    fn control_above(&self, bin: usize) -> f64 {
        (self.control[bin.min(BINS)] + 0.5) / (self.control[0] + 1.0)
    }

    /// The first bin that at most a share 1 − q of the control's past lies at or above.
    fn control_quantile(&self, q: f64) -> usize {
        let left = (1.0 - q) * self.control[0];
        (0..BINS)
            .find(|bin| self.control[*bin] <= left)
            .unwrap_or(BINS - 1)
    }
}

/// Evidence about latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LatencyEvidence {
    candidate_past: Past,
    control_past: Past,
    /// For each judged edge and alternative the sum over steps, as for errors.
    harm: Vec<[Exact; ALTERNATIVES]>,
    /// Against a slowdown at each quantile; begins anew at each step.
    no_harm: [Exact; QUANTILES.len()],
}

/// The bins whose lower edges are judged.
fn judged(policy: &JudgePolicy) -> impl Iterator<Item = usize> {
    (policy.latency_floor_bin()..BINS - policy.latency_tolerance_edges().min(BINS)).step_by(EDGE_STRIDE)
}

impl LatencyEvidence {
    pub(super) fn new(policy: &JudgePolicy) -> Self {
        Self {
            candidate_past: Past::new(),
            control_past: Past::new(),
            harm: judged(policy).map(|_| [Exact::ZERO; ALTERNATIVES]).collect(),
            no_harm: [Exact::ONE; QUANTILES.len()],
        }
    }

    pub(super) fn begin_step(&mut self, weight: f64) {
        for e in self.harm.iter_mut().flatten() {
            e.add(weight);
        }
        self.no_harm = [Exact::ONE; QUANTILES.len()];
    }

    pub(super) fn fold(
        &mut self,
        candidate: &Histogram,
        control: &Histogram,
        policy: &JudgePolicy,
        late: bool,
    ) {
        if candidate.is_empty() && control.is_empty() {
            return;
        }
        let pasts = self.pasts();
        if !candidate.is_empty() && !control.is_empty() && pasts.control[0] >= PAST_WEIGHT_MIN {
            let candidate_now = tails(candidate.iter().map(|(bin, count)| (bin, count as f64)));
            let control_now = tails(control.iter().map(|(bin, count)| (bin, count as f64)));
            let counts = |candidate_bin: usize, control_bin: usize| Counts {
                candidate: candidate_now[0],
                candidate_bad: candidate_now[candidate_bin.min(BINS)],
                control: control_now[0],
                control_bad: control_now[control_bin],
            };
            self.fold_harm(&pasts, counts, policy);
            if !late {
                self.fold_no_harm(&pasts, counts, policy);
            }
        }
        self.candidate_past.fold(candidate);
        self.control_past.fold(control);
    }

    fn fold_harm(&mut self, pasts: &Pasts, counts: impl Fn(usize, usize) -> Counts, policy: &JudgePolicy) {
        let shift = policy.latency_tolerance_edges();
        let tolerance = tolerance(policy);
        for (edge, harm) in judged(policy).zip(&mut self.harm) {
            let rate = pasts.control_above(edge);
            let counts = counts(edge + shift, edge);
            for (e, odds_ratio) in harm.iter_mut().zip(ODDS_RATIOS) {
                e.multiply(log_for_harm(
                    &counts,
                    beyond(rate, tolerance, odds_ratio),
                    tolerance,
                ));
            }
        }
    }

    fn fold_no_harm(&mut self, pasts: &Pasts, counts: impl Fn(usize, usize) -> Counts, policy: &JudgePolicy) {
        let shift = policy.latency_margin_edges();
        for (e, q) in self.no_harm.iter_mut().zip(QUANTILES) {
            let edge = pasts.control_quantile(q).max(policy.latency_floor_bin());
            let equal = Pair::new(pasts.pooled(edge + shift, edge + shift), pasts.pooled(edge, edge));
            e.multiply(log_against_harm(
                &counts(edge + shift, edge),
                equal,
                margin(policy),
            ));
        }
    }

    /// Evidence for a slowdown beyond the tolerance, as an e-value: the mean over edges and alternatives.
    pub(super) fn for_harm(&self) -> f64 {
        let sum: f64 = self.harm.iter().flatten().map(|e| e.get()).sum();
        sum / (self.harm.len().max(1) * ALTERNATIVES) as f64
    }

    /// The judged edge where the evidence for a slowdown is strongest, as bins of the candidate and the control.
    pub(super) fn worst_edge(&self, policy: &JudgePolicy) -> (usize, usize) {
        let strength = |harm: &[Exact; ALTERNATIVES]| harm.iter().map(|e| e.get()).sum::<f64>();
        let mut worst = (policy.latency_floor_bin(), 0.0);
        for (edge, harm) in judged(policy).zip(&self.harm) {
            if strength(harm) > worst.1 {
                worst = (edge, strength(harm));
            }
        }
        (worst.0 + policy.latency_tolerance_edges(), worst.0)
    }

    /// Evidence against a slowdown beyond the margin: the weakest of the quantiles', since each has to be shown.
    pub(super) fn against_harm(&self) -> [f64; QUANTILES.len()] {
        self.no_harm.map(Exact::get)
    }

    /// How much the logarithm of each quantile's evidence grows per candidate request, if both arms go on as in
    /// the past.
    pub(super) fn growth(
        &self,
        policy: &JudgePolicy,
        candidate: u64,
        control: u64,
    ) -> [f64; QUANTILES.len()] {
        let pasts = self.pasts();
        let counts = Counts::new(candidate, 0, control, 0);
        let shift = policy.latency_margin_edges();
        QUANTILES.map(|q| {
            let edge = pasts.control_quantile(q).max(policy.latency_floor_bin());
            let equal = Pair::new(pasts.pooled(edge + shift, edge + shift), pasts.pooled(edge, edge));
            let nearest = nearest_harm(&counts, equal, margin(policy));
            counts.divergence(equal, nearest) / counts.candidate
        })
    }

    fn pasts(&self) -> Pasts {
        Pasts {
            candidate: self.candidate_past.tails(),
            control: self.control_past.tails(),
        }
    }
}

fn margin(policy: &JudgePolicy) -> Bound {
    Bound {
        points: policy.latency_margin_points,
        relative: 0.0,
    }
}

fn tolerance(policy: &JudgePolicy) -> Bound {
    Bound {
        points: policy.latency_margin_points * policy.tolerance_share,
        relative: 0.0,
    }
}

/// Edges in a slowdown by 2.
const DOUBLED: usize = super::histogram::EDGES_PER_DOUBLING;

/// How much the logarithm of the weakest quantile's evidence against a slowdown grows per candidate request, if the
/// candidate's latencies are as the control's.
pub(super) fn forecast_pass(latency: &Histogram, unit: &Counts, policy: &JudgePolicy) -> f64 {
    let pasts = forecast_pasts(latency);
    let shift = policy.latency_margin_edges();
    let growths = QUANTILES.map(|q| {
        let edge = pasts.control_quantile(q).max(policy.latency_floor_bin());
        let equal = Pair::new(pasts.pooled(edge + shift, edge + shift), pasts.pooled(edge, edge));
        unit.divergence(equal, nearest_harm(unit, equal, margin(policy)))
    });
    growths.into_iter().fold(f64::INFINITY, f64::min)
}

/// The same for a slowdown by 2 at the edge where it shows best, and among how many processes that one is.
pub(super) fn forecast_fail(latency: &Histogram, unit: &Counts, policy: &JudgePolicy) -> (f64, f64) {
    let pasts = forecast_pasts(latency);
    let (shift, tolerance) = (policy.latency_tolerance_edges(), tolerance(policy));
    let (mut most, mut processes) = (0.0_f64, 0);
    for edge in judged(policy) {
        let share = |bin: usize| pasts.control[bin.min(BINS)] / pasts.control[0];
        let counts = Counts {
            // Twice as slow: what lies above an edge is what lay above the edge of half.
            candidate_bad: share((edge + shift).saturating_sub(DOUBLED)) * unit.candidate,
            control_bad: share(edge) * unit.control,
            ..*unit
        };
        for ratio in ODDS_RATIOS {
            let alternative = beyond(pasts.control_above(edge), tolerance, ratio);
            most = most.max(log_for_harm(&counts, alternative, tolerance));
            processes += 1;
        }
    }
    (most, f64::from(processes))
}

fn forecast_pasts(latency: &Histogram) -> Pasts {
    let tails = tails(latency.iter().map(|(bin, count)| (bin, count as f64)));
    Pasts {
        candidate: tails,
        control: tails,
    }
}
