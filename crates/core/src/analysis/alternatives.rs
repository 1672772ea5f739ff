//! The shifts of a rate that evidence for harm is looked for at.

use super::two_arm::Pair;

/// e^δ for δ in {.1, .25, .5, .8, 1.2, 1.8, 2.5, 3.5}: from "odds a tenth higher" to "33 times".
pub(super) const ODDS_RATIOS: [f64; 8] = [
    1.105_170_918_075_647_7,
    1.284_025_416_687_741_4,
    1.648_721_270_700_128_2,
    2.225_540_928_492_468,
    3.320_116_922_736_547_2,
    6.049_647_464_412_947,
    12.182_493_960_703_473,
    33.115_451_958_692_31,
];

/// How many there are.
pub(super) const ALTERNATIVES: usize = ODDS_RATIOS.len();

/// The control at a rate, the candidate at its odds times a ratio.
pub(super) fn shifted(rate: f64, odds_ratio: f64) -> Pair {
    Pair::new(odds_ratio * rate / (1.0 + (odds_ratio - 1.0) * rate), rate)
}
