//! Counts of single nodes: what resources are compared by, and where harm is looked for.
//!
//! The rollout's order is drawn at random and stratified by label, and cohorts are its prefixes. So its first places
//! are a fair sample of any cohort, and an event stays small however large the fleet is.

use serde::{Deserialize, Serialize};

use super::counts::{ArmCounts, Block};
use super::histogram::edge_us;

/// Nodes at places below this are kept apart. In an event a node takes some 40 bytes.
pub const NODES_APART_MAX: u32 = 64;

/// One node's counts in both arms. Serialised as a row of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "[u64; 15]", into = "[u64; 15]")]
pub struct NodeCounts {
    /// Its place in the rollout's order.
    pub place: u32,
    /// The candidate's counts on it.
    pub candidate: NodeArm,
    /// The control's.
    pub control: NodeArm,
}

/// One arm's counts on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NodeArm {
    /// Users' requests.
    pub requests: u64,
    /// Those of them that were errors.
    pub errors: u64,
    /// Sum of users' latencies in µs, to within a bin's width.
    pub latency_us: u64,
    /// Probes.
    pub probes: u64,
    /// Time on the processor for both, in µs.
    pub cpu_us: u64,
    /// Sum of the readings of the memory of one instance, in KiB.
    pub memory_kib: u64,
    /// How many readings that is the sum of.
    pub memory_readings: u64,
}

impl NodeArm {
    fn of(arm: &ArmCounts) -> Self {
        let latency_us = arm.latency.iter().fold(0_u64, |sum, (bin, count)| {
            let middle = (edge_us(bin) + edge_us(bin + 1)) / 2;
            sum.saturating_add(middle.saturating_mul(count))
        });
        Self {
            requests: arm.requests,
            errors: arm.errors.min(arm.requests),
            latency_us,
            probes: arm.probes,
            cpu_us: arm.cpu_us,
            memory_kib: arm.memory_kib,
            memory_readings: arm.memory_readings,
        }
    }

    fn merge(&mut self, later: &Self) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.requests, later.requests);
        add(&mut self.errors, later.errors);
        add(&mut self.latency_us, later.latency_us);
        add(&mut self.probes, later.probes);
        add(&mut self.cpu_us, later.cpu_us);
        add(&mut self.memory_kib, later.memory_kib);
        add(&mut self.memory_readings, later.memory_readings);
    }

    /// Processor time of a request or probe, in µs; `None` where nothing was metered.
    pub fn cpu_per_request_us(&self) -> Option<f64> {
        let served = self.requests.saturating_add(self.probes);
        (served > 0 && self.cpu_us > 0).then(|| self.cpu_us as f64 / served as f64)
    }

    /// Mean memory of an instance, in KiB.
    pub fn memory_per_instance_kib(&self) -> Option<f64> {
        (self.memory_readings > 0 && self.memory_kib > 0)
            .then(|| self.memory_kib as f64 / self.memory_readings as f64)
    }

    /// The probes' share of what was served.
    pub(super) fn probe_share(&self) -> f64 {
        self.probes as f64 / (self.requests.saturating_add(self.probes)).max(1) as f64
    }
}

impl NodeCounts {
    /// One node's counts of an interval; `None` for a place that isn't kept apart.
    pub(super) fn of(place: u32, block: &Block) -> Option<Self> {
        (place < NODES_APART_MAX).then(|| Self {
            place,
            candidate: NodeArm::of(&block.candidate),
            control: NodeArm::of(&block.control),
        })
    }

    /// Adds a later interval's counts of the same node.
    pub(super) fn merge(&mut self, later: &Self) {
        self.candidate.merge(&later.candidate);
        self.control.merge(&later.control);
    }
}

impl From<[u64; 15]> for NodeCounts {
    fn from([place, row @ ..]: [u64; 15]) -> Self {
        let arm = |row: &[u64]| NodeArm {
            requests: row[0],
            errors: row[1].min(row[0]),
            latency_us: row[2],
            probes: row[3],
            cpu_us: row[4],
            memory_kib: row[5],
            memory_readings: row[6],
        };
        Self {
            place: u32::try_from(place).unwrap_or(u32::MAX),
            candidate: arm(&row[..7]),
            control: arm(&row[7..]),
        }
    }
}

impl From<NodeCounts> for [u64; 15] {
    fn from(node: NodeCounts) -> Self {
        let (a, b) = (node.candidate, node.control);
        [
            u64::from(node.place),
            a.requests,
            a.errors,
            a.latency_us,
            a.probes,
            a.cpu_us,
            a.memory_kib,
            a.memory_readings,
            b.requests,
            b.errors,
            b.latency_us,
            b.probes,
            b.cpu_us,
            b.memory_kib,
            b.memory_readings,
        ]
    }
}
