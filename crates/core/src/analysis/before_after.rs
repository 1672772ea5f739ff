//! Before against after, for kinds whose requests can't be shared out: universal inference (Wasserman, Ramdas,
//! Balakrishnan, PNAS 117(29) 2020) with a Bayes mixture, which may be looked at any time.
//!
//! The likelihood of what was counted, averaged over all pairs of rates (Beta(½, ½) each), over its maximum within the
//! null. Under any point of the null that maximum is at least the true likelihood, and the average over the true
//! likelihood is a martingale: so the ratio ever reaches 1/α with chance at most α.
//!
//! It compares two stretches of time. What else changed between them counts as the release's doing; where other nodes
//! keep the stable release, count the cohort's share of all nodes' errors before and after instead (`of`: all errors,
//! `bad`: those of the cohort), which drops out what befalls all.

use super::two_arm::{Bound, Counts, Pair, nearest_by_points, nearest_by_ratio, nearest_harm};
use super::verdict::Rate;

/// Natural logarithm of the e-value for "after is beyond the bound above before", against every pair of rates within it.
/// At most 0 where what was counted is itself within the bound.
pub fn log_for_harm(after: Rate, before: Rate, bound: Bound) -> f64 {
    let counts = Counts::new(after.of, after.bad, before.of, before.bad);
    if counts.one_sided() {
        return 0.0;
    }
    let seen = Pair::new(after.share(), before.share());
    let nearest = if seen.candidate <= bound.above(seen.control) {
        seen
    } else {
        // The null is a union of two half-planes: its likeliest point is that of one of them.
        let by_points = nearest_by_points(&counts, seen, bound.points);
        let by_ratio = nearest_by_ratio(&counts, seen, bound.relative);
        if counts.log_ratio(by_points, by_ratio) >= 0.0 {
            by_points
        } else {
            by_ratio
        }
    };
    log_e(&counts, after, before, nearest)
}

/// Natural logarithm of the e-value for "after is not beyond the bound", against every pair of rates beyond it.
pub fn log_against_harm(after: Rate, before: Rate, bound: Bound) -> f64 {
    let counts = Counts::new(after.of, after.bad, before.of, before.bad);
    if counts.one_sided() {
        return 0.0;
    }
    let seen = Pair::new(after.share(), before.share());
    let nearest = if seen.candidate >= bound.above(seen.control) {
        seen
    } else {
        nearest_harm(&counts, seen, bound)
    };
    log_e(&counts, after, before, nearest)
}

fn log_e(counts: &Counts, after: Rate, before: Rate, null: Pair) -> f64 {
    log_mixture(after) + log_mixture(before) - counts.log_likelihood(null)
}

/// ln ∫ p^bad (1−p)^good dBeta(½, ½).
fn log_mixture(rate: Rate) -> f64 {
    let (bad, of) = (rate.bad.min(rate.of) as f64, rate.of as f64);
    ln_gamma(bad + 0.5) + ln_gamma(of - bad + 0.5) - ln_gamma(of + 1.0) - std::f64::consts::PI.ln()
}

/// ln Γ(x) for x ≥ ½, to 12 digits: Stirling's series above 10, and the recurrence up to there.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - inverse
            * (1.0 / 360.0 - inverse * (1.0 / 1_260.0 - inverse * (1.0 / 1_680.0 - inverse / 1_188.0))))
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - f64::ln(product)
}
