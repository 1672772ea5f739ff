//! What nodes count in one reporting interval, by arm.

use serde::{Deserialize, Serialize};

use super::Histogram;
use super::nodes::NodeCounts;

/// One arm's counts. Users' requests and probes are apart: a probe counts in `probes` only, and its latency in no
/// histogram.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmCounts {
    /// Users' requests that ended in the interval.
    pub requests: u64,
    /// Those of them that were errors.
    pub errors: u64,
    /// Latency of users' requests.
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub latency: Histogram,
    /// Probes (the manifest's smoke checks) sent to this arm.
    pub probes: u64,
    /// Those of them that failed.
    pub probe_errors: u64,
    /// Probes that succeeded since the last failed one in the interval. Means nothing where none failed: then all
    /// did succeed.
    pub probe_streak: u64,
    /// Time on the processor for users' requests and probes, in µs; 0 where it is not metered.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_us: u64,
    /// Sum of the readings of the memory of one instance, in KiB.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_kib: u64,
    /// How many readings that is the sum of: one a node and interval; 0 where memory is not metered.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_readings: u64,
}

pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ArmCounts {
    /// Adds the counts of a later interval, or of another node in the same one (then the streak is as strict as
    /// the order of merging).
    pub fn merge(&mut self, later: &Self) {
        self.probe_streak = later.streak_after(self.streak_after(0));
        let (before, after) = (self.failed_probes(), later.failed_probes());
        self.requests = self.requests.saturating_add(later.requests);
        self.errors = self.errors.saturating_add(later.errors);
        self.latency.merge(&later.latency);
        self.probes = self.probes.saturating_add(later.probes);
        self.probe_errors = before.saturating_add(after);
        self.cpu_us = self.cpu_us.saturating_add(later.cpu_us);
        self.memory_kib = self.memory_kib.saturating_add(later.memory_kib);
        self.memory_readings = self.memory_readings.saturating_add(later.memory_readings);
    }

    /// Probes that have succeeded in a row after these counts, given how many had before them.
    pub fn streak_after(&self, before: u64) -> u64 {
        match self.failed_probes() {
            0 => before.saturating_add(self.probes),
            failed => self.probe_streak.min(self.probes - failed),
        }
    }

    /// Failed probes, never more than there were probes.
    fn failed_probes(&self) -> u64 {
        self.probe_errors.min(self.probes)
    }
}

/// One reporting interval: the candidate's and the control's counts, summed over the cohort's nodes, and apart for a
/// sample of them.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// The release being rolled out.
    pub candidate: ArmCounts,
    /// The stable release on the same nodes at the same time.
    pub control: ArmCounts,
    /// The same node by node, ordered by place, for those of the first [`super::NODES_APART_MAX`] places of the
    /// rollout's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeCounts>,
}

impl Block {
    /// Adds one node's interval; `place` is the node's in the rollout's order.
    pub fn merge_node(&mut self, place: u32, interval: &Self) {
        self.merge(interval);
        if let Some(node) = NodeCounts::of(place, interval) {
            self.merge_apart(&node);
        }
    }

    /// Adds a later interval's counts, or another node's.
    pub fn merge(&mut self, later: &Self) {
        self.candidate.merge(&later.candidate);
        self.control.merge(&later.control);
        for node in &later.nodes {
            self.merge_apart(node);
        }
    }

    fn merge_apart(&mut self, node: &NodeCounts) {
        // What was logged may hold anything: the bound is kept here, too.
        if node.place >= super::NODES_APART_MAX {
            return;
        }
        match self.nodes.binary_search_by_key(&node.place, |other| other.place) {
            Ok(at) => self.nodes[at].merge(node),
            Err(at) => self.nodes.insert(at, *node),
        }
    }
}
