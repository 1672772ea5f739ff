//! Processor time and memory, candidate against control on the same node.
//!
//! These aren't counts of independent requests, so nothing is assumed about how they scatter: only which of two arms
//! on one node is beyond a bound. A bet on that sign wins or loses a share λ of the evidence. Under the null "beyond the
//! bound at most half of the time" no bet is expected to win (Shafer, J. R. Stat. Soc. A 184(2) 2021; a sign test that
//! may be looked at any time).
//!
//! - *Processor time* of a request is new in each interval. One bet an interval, on the mean sign of its nodes: what
//!   befalls all nodes at once, such as cold caches after a switch, counts once.
//! - *Memory* is a level that lasts: a second reading of a node says what the first said. One bet a node, once in a
//!   rollout, when it has given [`READINGS_MIN`] readings of both arms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::Block;
use super::evidence::Exact;
use super::nodes::{NODES_APART_MAX, NodeCounts};
use super::verdict::Rate;

/// The shares of the evidence that are bet; the evidence is their mean. The boldest nearly doubles with each sign that
/// fits, the others survive some that don't.
const BETS: [f64; 3] = [0.5, 0.8, 0.97];

/// The largest difference of the probes' shares of two arms at which their processor time compares: probes are other
/// requests than users'.
const PROBE_SHARE_GAP_MAX: f64 = 0.1;

/// Readings of each arm before a node's memory is compared.
pub(super) const READINGS_MIN: u64 = 3;

/// By how much a level may be above another: by a share of it and by an amount, the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LevelBound {
    /// Share, at least 0.
    pub(super) relative: f64,
    /// Amount, in the level's unit.
    pub(super) floor: f64,
}

impl LevelBound {
    fn is_exceeded(&self, candidate: f64, control: f64) -> bool {
        candidate > (control * (1.0 + self.relative)).max(control + self.floor)
    }
}

/// What is asked of a level.
#[derive(Clone, Copy, Debug)]
pub(super) struct LevelQuestion {
    /// Fails beyond this.
    pub(super) tolerance: LevelBound,
    /// Passes when harm beyond this is ruled out.
    pub(super) margin: LevelBound,
}

/// The product of bets on signs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bets([Exact; BETS.len()]);

impl Bets {
    /// `sign` from −1 to 1: how far the bet came true.
    fn bet(&mut self, sign: f64) {
        for (e, share) in self.0.iter_mut().zip(BETS) {
            e.multiply((share * sign).ln_1p());
        }
    }

    fn add(&mut self, weight: f64) {
        for e in &mut self.0 {
            e.add(weight);
        }
    }

    fn mean(&self) -> f64 {
        self.0.iter().map(|e| e.get()).sum::<f64>() / BETS.len() as f64
    }
}

/// Evidence about one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LevelEvidence {
    /// Σ over steps k of weight · E^(k), as for errors; for memory one process, since a node counts once.
    harm: Bets,
    /// Against harm beyond the margin; for processor time it begins anew at each step.
    no_harm: Bets,
    /// Bets so far (at this step, for processor time), and those of them in which most nodes were beyond the tolerance.
    bets: Rate,
    /// Memory: nodes that were compared, or have given readings (KiB and number, candidate then control).
    nodes: BTreeMap<u32, Option<[u64; 4]>>,
}

impl LevelEvidence {
    pub(super) fn new() -> Self {
        Self {
            harm: Bets([Exact::ZERO; BETS.len()]),
            no_harm: Bets([Exact::ONE; BETS.len()]),
            bets: Rate::default(),
            nodes: BTreeMap::new(),
        }
    }

    /// Begins a step whose evidence for harm weighs so much.
    pub(super) fn begin_step(&mut self, weight: f64) {
        self.harm.add(weight);
        self.no_harm = Bets([Exact::ONE; BETS.len()]);
        self.bets = Rate::default();
    }

    /// Begins the only process there is.
    pub(super) fn begin_once(&mut self) {
        if self.harm.mean() == 0.0 {
            self.harm.add(1.0);
        }
    }

    /// Folds an interval's processor time; a late one towards harm only.
    pub(super) fn fold_cpu(&mut self, block: &Block, question: &LevelQuestion, late: bool) {
        let pairs = block.nodes.iter().filter(|node| probes_compare(node));
        let mut signs = Signs::default();
        for node in pairs {
            if let Some(candidate) = node.candidate.cpu_per_request_us()
                && let Some(control) = node.control.cpu_per_request_us()
            {
                signs.add(candidate, control, question);
            }
        }
        if signs.nodes == 0.0 {
            return;
        }
        self.harm.bet(signs.harm / signs.nodes);
        if !late {
            self.no_harm.bet(signs.no_harm / signs.nodes);
        }
        self.bets.add(1, u64::from(signs.harm > 0.0));
    }

    /// Folds an interval's memory.
    pub(super) fn fold_memory(&mut self, block: &Block, question: &LevelQuestion) {
        for node in &block.nodes {
            let (a, b) = (&node.candidate, &node.control);
            if node.place >= NODES_APART_MAX || a.memory_readings == 0 || b.memory_readings == 0 {
                continue;
            }
            let seen = self.nodes.entry(node.place).or_insert(Some([0; 4]));
            let Some(sums) = seen else { continue };
            for (sum, more) in
                sums.iter_mut()
                    .zip([a.memory_kib, a.memory_readings, b.memory_kib, b.memory_readings])
            {
                *sum = sum.saturating_add(more);
            }
            if sums[1].min(sums[3]) < READINGS_MIN {
                continue;
            }
            let mut sign = Signs::default();
            sign.add(
                sums[0] as f64 / sums[1] as f64,
                sums[2] as f64 / sums[3] as f64,
                question,
            );
            *seen = None;
            self.harm.bet(sign.harm);
            self.no_harm.bet(sign.no_harm);
            self.bets.add(1, u64::from(sign.harm > 0.0));
        }
    }

    /// Evidence for harm beyond the tolerance, as an e-value.
    pub(super) fn for_harm(&self) -> f64 {
        self.harm.mean()
    }

    /// Evidence against harm beyond the margin, as an e-value.
    pub(super) fn against_harm(&self) -> f64 {
        self.no_harm.mean()
    }

    /// Bets, and how many of them found most nodes beyond the tolerance.
    pub(super) fn bets(&self) -> Rate {
        self.bets
    }

    /// About how many more bets take the evidence against harm to a threshold, if all come true.
    pub(super) fn bets_left(&self, threshold: f64) -> u64 {
        let mut bets = self.no_harm.clone();
        // Even from the smallest number the boldest bet needs fewer.
        (0..1_000)
            .find(|_| {
                let enough = bets.mean() >= threshold;
                bets.bet(1.0);
                enough
            })
            .unwrap_or(1_000)
    }
}

/// Signs of nodes, summed.
#[derive(Default)]
struct Signs {
    harm: f64,
    no_harm: f64,
    nodes: f64,
}

impl Signs {
    fn add(&mut self, candidate: f64, control: f64, question: &LevelQuestion) {
        let sign = |holds: bool| if holds { 1.0 } else { -1.0 };
        self.harm += sign(question.tolerance.is_exceeded(candidate, control));
        self.no_harm += sign(!question.margin.is_exceeded(candidate, control));
        self.nodes += 1.0;
    }
}

fn probes_compare(node: &NodeCounts) -> bool {
    (node.candidate.probe_share() - node.control.probe_share()).abs() <= PROBE_SHARE_GAP_MAX
}

/// How many bets take the evidence from nothing to a threshold, if all come true.
pub(super) fn bets_to(threshold: f64) -> u64 {
    LevelEvidence::new().bets_left(threshold)
}
