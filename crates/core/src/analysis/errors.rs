//! One kind of request (users', or probes): its errors, candidate against control.

use serde::{Deserialize, Serialize};

use super::alternatives::{ALTERNATIVES, ODDS_RATIOS, beyond};
use super::evidence::Exact;
use super::two_arm::{Bound, Counts, Pair, log_against_harm, log_for_harm, nearest_harm};
use super::verdict::Rate;

/// Imagined requests, half an error among them, that the past starts with.
const PRIOR_REQUESTS: f64 = 50.0;
const PRIOR_ERRORS: f64 = 0.5;

/// The most requests that the stable release's own history counts for: enough to be sure of a rate of .1 %, few
/// enough to be outweighed when the rate changes.
pub(super) const HISTORY_REQUESTS_MAX: u64 = 100_000;

/// Evidence about errors of one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ErrorEvidence {
    /// Both arms so far, history included: what a block of equal arms is expected to hold.
    past: Rate,
    /// The control alone, history included: what the alternatives of harm are made of. A candidate that does harm
    /// must not raise the rate that it is compared with.
    control_past: Rate,
    /// For each alternative, Σ over steps k of 2⁻ᵏ E^(k), E^(k) begun at step k: since all E^(k) take the same
    /// factors, the sum takes them too, and a step adds its weight.
    harm: [Exact; ALTERNATIVES],
    /// Against harm beyond the margin; begins anew at each step.
    no_harm: Exact,
    /// The same with a second, wider margin.
    no_harm_wide: Exact,
}

/// What is asked of one kind of request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Fails beyond this.
    pub(super) tolerance: Bound,
    /// Passes when harm beyond this is ruled out.
    pub(super) margin: Bound,
    /// Or beyond this, where one is asked for.
    pub(super) wide_margin: Option<Bound>,
}

impl ErrorEvidence {
    pub(super) fn new() -> Self {
        Self {
            past: Rate::default(),
            control_past: Rate::default(),
            harm: [Exact::ZERO; ALTERNATIVES],
            no_harm: Exact::ONE,
            no_harm_wide: Exact::ONE,
        }
    }

    /// Takes a history into the past, scaled down to at most [`HISTORY_REQUESTS_MAX`] requests.
    pub(super) fn remember(&mut self, history: Rate) {
        let history = if history.of > HISTORY_REQUESTS_MAX {
            let bad = u128::from(history.bad) * u128::from(HISTORY_REQUESTS_MAX) / u128::from(history.of);
            Rate {
                of: HISTORY_REQUESTS_MAX,
                bad: u64::try_from(bad).unwrap_or(HISTORY_REQUESTS_MAX),
            }
        } else {
            history
        };
        self.past.add(history.of, history.bad);
        self.control_past.add(history.of, history.bad);
    }

    /// Begins a step that weighs so much in the evidence for harm.
    pub(super) fn begin_step(&mut self, weight: f64) {
        for e in &mut self.harm {
            e.add(weight);
        }
        self.no_harm = Exact::ONE;
        self.no_harm_wide = Exact::ONE;
    }

    /// Folds a block; a late one towards harm only.
    pub(super) fn fold(&mut self, candidate: Rate, control: Rate, question: &Question, late: bool) {
        let counts = Counts::new(candidate.of, candidate.bad, control.of, control.bad);
        if !counts.one_sided() {
            let control_rate = rate(self.control_past);
            for (e, odds_ratio) in self.harm.iter_mut().zip(ODDS_RATIOS) {
                let alternative = beyond(control_rate, question.tolerance, odds_ratio);
                e.multiply(log_for_harm(&counts, alternative, question.tolerance));
            }
            if !late {
                let rate = self.past_rate();
                let equal = Pair::new(rate, rate);
                self.no_harm
                    .multiply(log_against_harm(&counts, equal, question.margin));
                if let Some(wide) = question.wide_margin {
                    self.no_harm_wide.multiply(log_against_harm(&counts, equal, wide));
                }
            }
        }
        self.past.add(candidate.of, candidate.bad);
        self.past.add(control.of, control.bad);
        self.control_past.add(control.of, control.bad);
    }

    /// Evidence for harm, as an e-value.
    pub(super) fn for_harm(&self) -> f64 {
        self.harm.iter().map(|e| e.get()).sum::<f64>() / ALTERNATIVES as f64
    }

    /// Evidence against harm beyond the margin, as an e-value.
    pub(super) fn against_harm(&self) -> f64 {
        self.no_harm.get()
    }

    /// Evidence against harm beyond the wide margin.
    pub(super) fn against_wide_harm(&self) -> f64 {
        self.no_harm_wide.get()
    }

    /// The rate that the next block is expected to have.
    pub(super) fn past_rate(&self) -> f64 {
        rate(self.past)
    }

    /// How much the logarithm of the evidence against harm grows per candidate request, if both arms go on at the
    /// past rate and share traffic so: candidate's requests for each of the control's.
    pub(super) fn growth(&self, margin: Bound, candidate: u64, control: u64) -> f64 {
        let counts = Counts::new(candidate, 0, control, 0);
        let equal = Pair::new(self.past_rate(), self.past_rate());
        counts.divergence(equal, nearest_harm(&counts, equal, margin)) / counts.candidate
    }
}

/// A past rate, with what is imagined before it.
fn rate(past: Rate) -> f64 {
    (past.bad as f64 + PRIOR_ERRORS) / (past.of as f64 + PRIOR_REQUESTS)
}

/// The rate that a release with such a history is expected to have.
pub(super) fn forecast_rate(history: Rate) -> f64 {
    rate(history)
}
