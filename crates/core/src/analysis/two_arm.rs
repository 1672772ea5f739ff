//! E-values of one block of two Bernoulli arms against a convex null, after Turner, Ly, Grünwald, J. Stat. Plan.
//! Inference 230 (2024) 106116 (arXiv 2106.02693).
//!
//! For an alternative θ* that was fixed before the block, and its nearest point θ° in the null (by the arms' sizes
//! times Kullback–Leibler divergence), the likelihood ratio of θ* to θ° has an expectation of at most 1 under every
//! point of the null. Such factors multiply over blocks, whatever the rates and sizes do from one to the next.

/// Rates stay this far from 0 and 1, so that every logarithm is finite.
const RATE_MIN: f64 = 1e-9;

/// A pair of rates, candidate's and control's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The candidate's rate.
    pub candidate: f64,
    /// The control's rate.
    pub control: f64,
}

impl Pair {
    /// A pair of rates, kept away from 0 and 1.
    pub fn new(candidate: f64, control: f64) -> Self {
        let keep = |rate: f64| rate.clamp(RATE_MIN, 1.0 - RATE_MIN);
        Self {
            candidate: keep(candidate),
            control: keep(control),
        }
    }
}

/// One block: how many requests each arm had, and how many of them were bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// The candidate's requests.
    pub candidate: f64,
    /// Those that were bad.
    pub candidate_bad: f64,
    /// The control's requests.
    pub control: f64,
    /// Those that were bad.
    pub control_bad: f64,
}

impl Counts {
    /// Counts of one block; bad ones beyond all are cut.
    pub fn new(candidate: u64, candidate_bad: u64, control: u64, control_bad: u64) -> Self {
        Self {
            candidate: candidate as f64,
            candidate_bad: candidate_bad.min(candidate) as f64,
            control: control as f64,
            control_bad: control_bad.min(control) as f64,
        }
    }

    /// Whether there is nothing to compare: one arm is empty.
    pub fn one_sided(&self) -> bool {
        self.candidate == 0.0 || self.control == 0.0
    }

    fn candidate_share(&self) -> f64 {
        self.candidate / (self.candidate + self.control)
    }

    /// Natural logarithm of the likelihood ratio of two pairs of rates.
    pub fn log_ratio(&self, of: Pair, to: Pair) -> f64 {
        let arm =
            |n: f64, bad: f64, p: f64, q: f64| bad * (p / q).ln() + (n - bad) * ((1.0 - p) / (1.0 - q)).ln();
        arm(self.candidate, self.candidate_bad, of.candidate, to.candidate)
            + arm(self.control, self.control_bad, of.control, to.control)
    }

    /// Natural logarithm of the likelihood of a pair of rates.
    pub fn log_likelihood(&self, of: Pair) -> f64 {
        let arm = |n: f64, bad: f64, p: f64| bad * p.ln() + (n - bad) * (1.0 - p).ln();
        arm(self.candidate, self.candidate_bad, of.candidate)
            + arm(self.control, self.control_bad, of.control)
    }

    /// The weighted divergence of a pair from another: what [`Self::log_ratio`] is expected to be under `of`.
    pub fn divergence(&self, of: Pair, to: Pair) -> f64 {
        Self {
            candidate_bad: self.candidate * of.candidate,
            control_bad: self.control * of.control,
            ..*self
        }
        .log_ratio(of, to)
    }
}

/// How far above the control's rate the candidate's may be: by `points`, and by the share `relative` of it, the
/// larger of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Absolute, as a fraction; above −1 and below 1.
    pub points: f64,
    /// Relative; at least 0.
    pub relative: f64,
}

impl Bound {
    /// A part of this bound.
    #[must_use]
    pub fn times(self, share: f64) -> Self {
        Self {
            points: self.points * share,
            relative: self.relative * share,
        }
    }

    /// The candidate's rate at this bound.
    pub fn above(&self, control: f64) -> f64 {
        (control + self.points).max(control * (1.0 + self.relative))
    }
}

/// The point nearest to `theta` on the line `candidate = control + points`.
pub fn nearest_by_points(counts: &Counts, theta: Pair, points: f64) -> Pair {
    let (w, v) = (counts.candidate_share(), 1.0 - counts.candidate_share());
    let domain = ((-points).max(0.0), (1.0 - points).min(1.0));
    let (a, b) = (theta.candidate - points, theta.control);
    let (mut low, mut high) = (a.min(b).max(domain.0), a.max(b).min(domain.1));
    // The derivative of the weighted divergence along the line, times the positive p(1−p)(p+m)(1−p−m): a cubic
    // with one root between where either arm alone would have it.
    let value = |p: f64| {
        let q = p + points;
        (
            w * (p - a) * p * (1.0 - p) + v * (p - b) * q * (1.0 - q),
            w * (p * (1.0 - p) + (p - a) * (1.0 - 2.0 * p)) + v * (q * (1.0 - q) + (p - b) * (1.0 - 2.0 * q)),
        )
    };
    let mut p = (w * a + v * b).clamp(low, high);
    // Newton's steps, halving where they leave the bracket; 60 halvings exhaust a double.
    for _ in 0..60 {
        let (f, slope) = value(p);
        if f < 0.0 {
            low = p;
        } else {
            high = p;
        }
        let newton = p - f / slope;
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        let moved = (next - p).abs();
        p = next;
        // Newton doubles the digits: after a move so small there is nothing left to gain.
        if moved <= 1e-9 * p {
            break;
        }
    }
    Pair::new(p + points, p)
}

/// The point nearest to `theta` on the line `candidate = (1 + relative) · control`.
pub fn nearest_by_ratio(counts: &Counts, theta: Pair, relative: f64) -> Pair {
    let (w, v) = (counts.candidate_share(), 1.0 - counts.candidate_share());
    let r = 1.0 + relative;
    // As above; here the derivative times p(1−p)(1−rp) is a quadratic, whose smaller root is the one.
    let b = w * (r + theta.candidate) + v * (1.0 + r * theta.control);
    let c = w * theta.candidate + v * theta.control;
    let p = 2.0 * c / (b + (b * b - 4.0 * r * c).max(0.0).sqrt());
    Pair::new(r * p, p)
}

/// Natural logarithm of the factor by which a block speaks for harm beyond `bound`, against "at most the bound", a
/// union of two half-planes: the smaller of both factors, in each block, so that which of them holds may change
/// from block to block. 0 where the alternative is itself no harm.
pub fn log_for_harm(counts: &Counts, alternative: Pair, bound: Bound) -> f64 {
    if counts.one_sided() || alternative.candidate <= bound.above(alternative.control) {
        return 0.0;
    }
    let by_points = nearest_by_points(counts, alternative, bound.points);
    let log_points = counts.log_ratio(alternative, by_points);
    if bound.relative == 0.0 {
        return log_points;
    }
    let by_ratio = nearest_by_ratio(counts, alternative, bound.relative);
    log_points.min(counts.log_ratio(alternative, by_ratio))
}

/// The point of "at least the bound" that is nearest to a pair below it.
pub fn nearest_harm(counts: &Counts, theta: Pair, bound: Bound) -> Pair {
    // The edge follows the points where the control's rate is below the kink, the ratio above it. The divergence is
    // convex along the edge, so its minimum is that of the part where it lies, or the kink.
    let kink = if bound.relative > 0.0 {
        bound.points / bound.relative
    } else {
        f64::INFINITY
    };
    let by_points = nearest_by_points(counts, theta, bound.points);
    if by_points.control <= kink {
        return by_points;
    }
    let by_ratio = nearest_by_ratio(counts, theta, bound.relative);
    if by_ratio.control >= kink {
        return by_ratio;
    }
    Pair::new(kink + bound.points, kink)
}

/// Natural logarithm of the factor by which a block speaks against harm beyond `bound`, an intersection of two
/// half-planes. 0 where the alternative is itself harm.
pub fn log_against_harm(counts: &Counts, alternative: Pair, bound: Bound) -> f64 {
    if counts.one_sided() || alternative.candidate >= bound.above(alternative.control) {
        return 0.0;
    }
    counts.log_ratio(alternative, nearest_harm(counts, alternative, bound))
}
