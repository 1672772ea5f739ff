//! Other judges, as they are commonly used: asked after every interval.

use hotswap_core::analysis::Rate;

/// Mann-Whitney on one value an interval, as common canary analysis does it: the candidate is bad where the lower end of
/// the 98 % confidence interval of the shift is above a quarter of its estimate (Hodges-Lehmann).
#[derive(Default)]
pub(crate) struct MannWhitney {
    candidate: Vec<f64>,
    control: Vec<f64>,
}

/// Two-sided 98 %.
const Z_98: f64 = 2.326_347_874;
const TOLERANCE: f64 = 0.25;

impl MannWhitney {
    /// Takes an interval's values; whether it fails the candidate now.
    pub(crate) fn look(&mut self, candidate: f64, control: f64) -> bool {
        self.candidate.push(candidate);
        self.control.push(control);
        let n = self.candidate.len() as f64;
        let mut shifts: Vec<f64> = self
            .candidate
            .iter()
            .flat_map(|a| self.control.iter().map(move |b| a - b))
            .collect();
        let below = n * n / 2.0 - Z_98 * (n * n * (2.0 * n + 1.0) / 12.0).sqrt();
        if below < 0.0 {
            return false;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let low_at = below as usize;
        let middle = shifts.len() / 2;
        let estimate = *shifts.select_nth_unstable_by(middle, f64::total_cmp).1;
        let low = *shifts.select_nth_unstable_by(low_at, f64::total_cmp).1;
        low > TOLERANCE * estimate && low > 0.0
    }
}

/// Fisher's exact test on all counts so far: whether it fails the candidate, one-sided.
pub(crate) fn fisher(candidate: Rate, control: Rate, alpha: f64) -> bool {
    if candidate.share() <= control.share() {
        return false;
    }
    let (all, bad) = (candidate.of + control.of, candidate.bad + control.bad);
    // P(candidate's errors ≥ seen), from the largest possible down to what was seen.
    let top = bad.min(candidate.of);
    let log_choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let whole = log_choose(all, bad);
    let chance = |y: u64| (log_choose(candidate.of, y) + log_choose(control.of, bad - y) - whole).exp();
    let mut tail = 0.0;
    for y in candidate.bad..=top {
        if bad - y > control.of {
            continue;
        }
        let more = chance(y);
        tail += more;
        if tail > alpha {
            return false;
        }
        // The chances only fall from here on.
        if more < 1e-12 {
            break;
        }
    }
    tail <= alpha
}

/// Candidate requests before the plain thresholds say anything.
const THRESHOLD_REQUESTS_MIN: u64 = 100;

/// The plain threshold: half as many errors again as the control.
pub(crate) fn threshold(candidate: Rate, control: Rate) -> bool {
    candidate.of >= THRESHOLD_REQUESTS_MIN && candidate.share() > 1.5 * control.share()
}

fn ln_factorial(n: u64) -> f64 {
    let x = n as f64 + 1.0;
    if n < 16 {
        return (1..=n).map(|i| (i as f64).ln()).sum();
    }
    (x - 0.5) * x.ln() - x + 0.918_938_533_204_672_8 + (1.0 / 12.0 - 1.0 / (360.0 * x * x)) / x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fishers_test_knows_the_tea() {
        // Eight cups, four each: all right by chance once in 70.
        let (a, b) = (Rate { of: 4, bad: 4 }, Rate { of: 4, bad: 0 });
        assert!(fisher(a, b, 0.0143) && !fisher(a, b, 0.0142));
    }

    #[test]
    fn mann_whitney_sees_what_is_plain() {
        let mut judge = MannWhitney::default();
        assert!((0..20).any(|i| judge.look(10.0 + f64::from(i), f64::from(i) / 10.0)));
    }
}
