//! What single nodes of the sample came to, for telling where harm is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::Exact;
use super::nodes::{NODES_APART_MAX, NodeCounts};

/// How many times the tolerated ratio the candidate's error rate may be in the alternatives.
const RATIOS: [f64; 3] = [2.0, 5.0, 20.0];

/// Evidence node by node, over the whole rollout.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct NodeTable {
    sums: Vec<NodeCounts>,
    /// For each node with errors, and each alternative.
    errors: BTreeMap<u32, [Exact; RATIOS.len()]>,
}

/// What one node of the sample came to over the rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeEvidence {
    /// Its counts; their `place` says which it is.
    pub counts: NodeCounts,
    /// Evidence that the candidate's error rate on it is above the tolerated ratio to the control's, as the natural
    /// logarithm of an e-value: it may be looked at any time, and multiplies over nodes.
    pub errors_log_e: f64,
}

impl NodeTable {
    /// Folds an interval's nodes; `tolerated` is the ratio of error rates that is no harm.
    ///
    /// Each error is the candidate's with chance θ(r) = r n_c / (r n_c + n_b) where the rates' ratio is r. With
    /// A = θ(m r₀)/θ(r₀) for each of the candidate's errors and B = (1 − θ(m r₀))/(1 − θ(r₀)) for each of the
    /// control's, the expectation (1 + p_c (A − 1))^n_c (1 + p_b (B − 1))^n_b is at most exp(n_c p_c (A − 1) + n_b p_b
    /// (B − 1)), which is at most e⁰ wherever p_c ≤ r₀ p_b. Intervals without errors change nothing and cost nothing.
    pub(super) fn fold(&mut self, nodes: &[NodeCounts], tolerated: f64) {
        for node in nodes.iter().filter(|node| node.place < NODES_APART_MAX) {
            match self.sums.binary_search_by_key(&node.place, |other| other.place) {
                Ok(at) => self.sums[at].merge(node),
                Err(at) => self.sums.insert(at, *node),
            }
            let (a, b) = (&node.candidate, &node.control);
            if (a.errors == 0 && b.errors == 0) || a.requests == 0 || b.requests == 0 {
                continue;
            }
            let theta = |ratio: f64| {
                let weighted = ratio * a.requests as f64;
                weighted / (weighted + b.requests as f64)
            };
            let null = theta(tolerated);
            let e = self
                .errors
                .entry(node.place)
                .or_insert([Exact::ONE; RATIOS.len()]);
            for (e, ratio) in e.iter_mut().zip(RATIOS) {
                let alternative = theta(tolerated * ratio);
                let log = a.errors as f64 * (alternative / null).ln()
                    + b.errors as f64 * ((1.0 - alternative) / (1.0 - null)).ln();
                e.multiply(log);
            }
        }
    }

    pub(super) fn evidence(&self) -> impl Iterator<Item = NodeEvidence> + '_ {
        self.sums.iter().map(|counts| {
            let e = self.errors.get(&counts.place);
            let mean = e.map_or(1.0, |e| {
                e.iter().map(|e| e.get()).sum::<f64>() / RATIOS.len() as f64
            });
            NodeEvidence {
                counts: *counts,
                errors_log_e: mean.max(1e-280).ln(),
            }
        })
    }
}
