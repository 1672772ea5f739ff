//! What nodes count in one reporting interval, by arm.

use serde::{Deserialize, Serialize};

use super::Histogram;

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

/// One reporting interval: the candidate's and the control's counts, summed over the cohort's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// The release being rolled out.
    pub candidate: ArmCounts,
    /// The stable release on the same nodes at the same time.
    pub control: ArmCounts,
}

impl Block {
    /// Adds a later interval's counts, or another node's.
    pub fn merge(&mut self, later: &Self) {
        self.candidate.merge(&later.candidate);
        self.control.merge(&later.control);
    }
}
