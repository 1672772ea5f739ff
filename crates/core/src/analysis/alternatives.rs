//! The rates that evidence for harm is looked for at.

use super::two_arm::{Bound, Pair};

/// e^δ for δ in {.3, .7, 1.4, 2.6}: from "odds a third above what is tolerated" to "13 times".
pub(super) const ODDS_RATIOS: [f64; 4] = [
    1.349_858_807_576_003,
    2.013_752_707_470_477,
    4.055_199_966_844_675,
    13.463_738_035_001_69,
];

/// How many there are.
pub(super) const ALTERNATIVES: usize = ODDS_RATIOS.len();

/// The control at its own past rate, the candidate beyond what is tolerated there, its odds by a ratio. Beginning at
/// the edge rather than at the control's rate leaves no alternative without effect, also where that rate is 0.
pub(super) fn beyond(control: f64, bound: Bound, odds_ratio: f64) -> Pair {
    let edge = bound.above(control).min(1.0);
    Pair::new(odds_ratio * edge / (1.0 + (odds_ratio - 1.0) * edge), control)
}
