//! A confidence sequence for the difference of error rates: valid at every look.
//!
//! By a fixed grid of differences d, each with an e-process against "at most d" and one against "at least d". The
//! alternative is each arm at its own past. What is rejected at α/2 on either side bounds the difference; the bounds
//! are grid points, so the true sequence is a little narrower. Where rates drift, "the difference is above d" reads
//! "it was not at most d in every block".

use serde::{Deserialize, Serialize};

use super::evidence::Exact;
use super::two_arm::{Counts, Pair, nearest_by_points};
use super::verdict::Rate;

/// Differences tested, in hundredths of a percentage point; and their negatives, and 0.
const GRID: [u16; 19] = [
    5, 10, 15, 20, 25, 35, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1_000, 2_000, 3_000, 5_000,
];
const SIZE: usize = 2 * GRID.len() + 1;

/// The imagined past of each arm, as for the judge's other questions.
const PRIOR_REQUESTS: f64 = 50.0;
const PRIOR_ERRORS: f64 = 0.5;

/// Bounds of the candidate's error rate minus the control's at this step, in percentage points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confidence {
    /// 100 · (1 − α).
    pub percent: f64,
    /// The candidate is worse by at least this (negative: better by at most so much); absent where nothing is shown.
    pub at_least_points: Option<f64>,
    /// The candidate is worse by at most this.
    pub at_most_points: Option<f64>,
}

/// The e-processes of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DifferenceGrid {
    /// Against "at most d", ascending in d.
    at_most: Vec<Exact>,
    /// Against "at least d", ascending in d.
    at_least: Vec<Exact>,
    candidate: Rate,
    control: Rate,
    /// Index of the largest d such that "at most d" was rejected, and the smallest such that "at least d" was.
    low: Option<u8>,
    high: Option<u8>,
}

fn difference(index: usize) -> f64 {
    let middle = GRID.len();
    if index < middle {
        -f64::from(GRID[middle - 1 - index]) / 1e4
    } else if index == middle {
        0.0
    } else {
        f64::from(GRID[index - middle - 1]) / 1e4
    }
}

impl DifferenceGrid {
    pub(super) fn new() -> Self {
        Self {
            at_most: vec![Exact::ONE; SIZE],
            at_least: vec![Exact::ONE; SIZE],
            candidate: Rate::default(),
            control: Rate::default(),
            low: None,
            high: None,
        }
    }

    pub(super) fn fold(&mut self, candidate: Rate, control: Rate, alpha: f64) {
        let counts = Counts::new(candidate.of, candidate.bad, control.of, control.bad);
        if counts.one_sided() {
            return;
        }
        let own = |past: Rate| (past.bad as f64 + PRIOR_ERRORS) / (past.of as f64 + PRIOR_REQUESTS);
        let theta = Pair::new(own(self.candidate), own(self.control));
        let reject = 2.0 / alpha;
        for (index, (at_most, at_least)) in self.at_most.iter_mut().zip(&mut self.at_least).enumerate() {
            let d = difference(index);
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            // The alternative lies on one side of d and speaks against the other, unless that is rejected already.
            let above = theta.candidate - theta.control > d;
            if above && self.low.is_some_and(|low| index <= low)
                || !above && self.high.is_some_and(|high| index >= high)
            {
                continue;
            }
            let log = counts.log_ratio(theta, nearest_by_points(&counts, theta, d));
            if above {
                at_most.multiply(log);
                if at_most.get() >= reject {
                    self.low = self.low.max(Some(index));
                }
            } else {
                at_least.multiply(log);
                if at_least.get() >= reject {
                    self.high = Some(self.high.map_or(index, |high| high.min(index)));
                }
            }
        }
        self.candidate.add(candidate.of, candidate.bad);
        self.control.add(control.of, control.bad);
    }

    pub(super) fn confidence(&self, alpha: f64) -> Confidence {
        let points = |index: u8| super::evidence::rounded(difference(usize::from(index)) * 100.0);
        Confidence {
            percent: super::evidence::rounded(100.0 * (1.0 - alpha)),
            at_least_points: self.low.map(points),
            at_most_points: self.high.map(points),
        }
    }
}
