//! Strategies as pure functions: environment, roster, policy → steps. There is no state machine here.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::policy::{CanaryBy, RolloutPolicy, Strategy};
use crate::rollout::{Gate, Step};
use crate::spec::WEIGHT_ALL;

/// The node label by which cohorts are stratified.
pub const STRATUM_LABEL: &str = "zone";
/// Below this many nodes a canary of a kind that routes goes by traffic: a cohort of one node in four
/// is no small share, and says nothing of the others.
pub const CANARY_NODES_MIN: usize = 5;

/// A seeded draw (SplitMix64, Steele, Lea, Flood 2014): the seed is an input and is recorded.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Draws from a recorded seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, by multiplication (the bias is below 2⁻³² for the rosters there are).
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.bits()) * bound as u128;
        usize::try_from(wide >> 64).expect("a product's high half is below the bound")
    }
}

/// Puts a roster in the drawn order: every prefix holds each stratum in about its share.
pub fn draw_order<'a>(nodes: impl IntoIterator<Item = (&'a NodeId, &'a str)>, seed: u64) -> Vec<NodeId> {
    let mut strata: BTreeMap<&str, Vec<&NodeId>> = BTreeMap::new();
    for (node, stratum) in nodes {
        strata.entry(stratum).or_default().push(node);
    }
    let mut draw = Draw::new(seed);
    let mut placed = Vec::new();
    for members in strata.values_mut() {
        for last in (1..members.len()).rev() {
            members.swap(last, draw.below(last + 1));
        }
        // The i-th of n comes at (i + ½)/n of the way; ties between strata are drawn too.
        let n = members.len() as u64;
        for (i, node) in members.iter().enumerate() {
            let place = ((2 * i as u64 + 1) << 32) / (2 * n);
            placed.push((place, draw.bits(), *node));
        }
    }
    placed.sort();
    placed.into_iter().map(|(_, _, node)| node.clone()).collect()
}

/// What a strategy's steps depend on.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Nodes of the roster.
    pub nodes: usize,
    /// Whether the kind answers requests that the ingress can share out.
    pub routes: bool,
    /// Whether there is a stable release to compare with and to go back to.
    pub has_base: bool,
    /// Limits and times.
    pub policy: &'a RolloutPolicy,
}

/// The steps of a strategy.
pub fn steps(strategy: &Strategy, setting: Setting<'_>) -> Vec<Step> {
    let all = count(setting.nodes);
    let step = |upto, gate| Step {
        upto,
        weight: WEIGHT_ALL,
        preview: false,
        gate,
    };
    match strategy {
        Strategy::Direct => vec![step(all, Gate::Settled)],
        Strategy::Rolling { batch } => {
            let batch = (*batch).max(1);
            (1..=all.div_ceil(batch))
                .map(|i| step((i * batch).min(all), Gate::Settled))
                .collect()
        }
        Strategy::BlueGreen => {
            let preview = Step {
                upto: all,
                weight: 0,
                preview: true,
                gate: Gate::Smoke,
            };
            vec![preview, step(all, Gate::Soak)]
        }
        Strategy::Canary { by, percents } => canary(*by, percents, setting),
    }
}

fn canary(by: CanaryBy, percents: &[u8], setting: Setting<'_>) -> Vec<Step> {
    let all = count(setting.nodes);
    let by_traffic = setting.routes && (by == CanaryBy::Traffic || setting.nodes < CANARY_NODES_MIN);
    let judged_weight = WEIGHT_ALL.saturating_sub(setting.policy.control_percent);
    let mut steps: Vec<Step> = Vec::new();
    for &percent in percents {
        let (upto, weight) = if by_traffic {
            (all, percent)
        } else {
            let share = (u64::from(all) * u64::from(percent)).div_ceil(100);
            let weight = if setting.routes { judged_weight } else { WEIGHT_ALL };
            (
                u32::try_from(share).expect("a share of the roster is no larger than it"),
                weight,
            )
        };
        let weight = if setting.has_base { weight } else { WEIGHT_ALL };
        let gate = if !setting.routes && !setting.has_base {
            // Neither a stable release to compare with nor requests to probe by: health and time.
            Gate::Soak
        } else if percent == 100 {
            Gate::JudgedSoak
        } else {
            Gate::Judge
        };
        match steps.last() {
            // Steps with equal cohorts merge; the stricter gate is the judge's pass, which came first.
            Some(last) if last.upto == upto && last.weight == weight => {}
            _ => steps.push(Step {
                upto,
                weight,
                preview: false,
                gate,
            }),
        }
    }
    steps
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).expect("nodes are bounded by NODES_MAX")
}
