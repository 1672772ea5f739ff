//! Makes a failing run small: what can be left out while the same invariant fails is left out.

use std::collections::BTreeSet;

use hotswap_core::invariants::Invariant;

use crate::faults::{Fault, FaultSet};
use crate::many::one;
use crate::scenario::Scenario;
use crate::shape::Shape;

/// Most runs that are spent on one seed.
const RUNS_MAX: u32 = 400;

/// The smallest run of a seed that was found to break the same invariant. A seed that doesn't fail stays as it is.
pub fn smallest(seed: u64, shape: Shape) -> Shape {
    let first = one(seed, &shape, false);
    let Some(violation) = first.violation else {
        return shape;
    };
    let mut shrinker = Shrinker {
        seed,
        invariant: violation.invariant,
        runs: 0,
        best: shape,
    };
    // What ends early needs nothing of what came later.
    shrinker.tries(|shape| shape.until = Some(first.lasted));
    loop {
        let before = shrinker.best.clone();
        shrinker.round();
        if shrinker.best == before || shrinker.runs >= RUNS_MAX {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    seed: u64,
    invariant: Invariant,
    runs: u32,
    best: Shape,
}

impl Shrinker {
    /// Keeps a change if the run still breaks the same invariant.
    fn tries(&mut self, change: impl FnOnce(&mut Shape)) -> bool {
        let mut shape = self.best.clone();
        change(&mut shape);
        if shape == self.best || self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let violation = one(self.seed, &shape, false).violation;
        let same = violation.is_some_and(|violation| violation.invariant == self.invariant);
        if same {
            self.best = shape;
        }
        same
    }

    fn round(&mut self) {
        self.tries(|shape| shape.no_commands = true);
        self.tries(|shape| shape.good = true);
        self.without_kinds();
        self.without_moments();
        let scenario = Scenario::draw(self.seed, &self.best);
        self.fewer(scenario.nodes.len() as u64, |shape, most| {
            shape.nodes = Some(usize::try_from(most).unwrap_or(usize::MAX));
        });
        self.fewer(scenario.deployments, |shape, most| shape.deployments = Some(most));
        self.fewer(scenario.ends_at, |shape, most| shape.until = Some(most));
    }

    /// Kinds of fault, one after the other.
    fn without_kinds(&mut self) {
        self.tries(|shape| shape.without = Fault::ALL.iter().copied().collect());
        let there = Scenario::draw(self.seed, &self.best).faults;
        for fault in there.iter() {
            self.tries(|shape| shape.without = shape.without.with(fault));
        }
        // Those that the run doesn't have need not be told.
        let drawn = Scenario::draw(self.seed, &Shape::default()).faults;
        let all: FaultSet = Fault::ALL.iter().copied().collect();
        self.best.without = self.best.without.without(all.without(drawn));
    }

    /// Single faults: first halves, then one by one.
    fn without_moments(&mut self) {
        let seed = self.seed;
        let places = |shape: &Shape| -> BTreeSet<usize> {
            let planned = Scenario::draw(seed, shape).planned;
            planned.iter().map(|(place, _)| *place).collect()
        };
        let all = places(&self.best);
        let half = all.iter().copied().nth(all.len() / 2).unwrap_or(0);
        let (early, late): (BTreeSet<usize>, BTreeSet<usize>) = all.iter().partition(|place| **place < half);
        if !self.tries(|shape| shape.planned = Some(early)) {
            self.tries(|shape| shape.planned = Some(late));
        }
        for place in places(&self.best) {
            let mut kept = places(&self.best);
            kept.remove(&place);
            self.tries(|shape| shape.planned = Some(kept));
        }
    }

    /// A number made smaller: by halves, then by one.
    fn fewer(&mut self, from: u64, set: impl Fn(&mut Shape, u64)) {
        let (mut low, mut high) = (0, from);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.tries(|shape| set(shape, middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
            if high.saturating_sub(low) * 50 < from && from > 100 {
                return;
            }
        }
    }
}
