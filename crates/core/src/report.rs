//! What a node tells the server. A full report comes first on every session; deltas name what changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::analysis::Block;
use crate::ids::{Digest, EnvName, Incarnation, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::spec::{Generation, SmokeRun};
use crate::time::Millis;

/// Longest reason a node gives for anything, in characters.
pub const REASON_LEN_MAX: usize = 512;
/// Longest account of why a release can't be loaded, in characters: the end of a verifier's log, where its verdict is,
/// and what comes before in short. A node's last report holds it, and one event of a rollout at most: what is recorded of
/// every node is no longer than [`REASON_LEN_MAX`].
pub const ACCOUNT_LEN_MAX: usize = 4_096;
/// Most labels of a node.
pub const LABELS_MAX: usize = 64;
/// Most releases whose load is reported.
pub const LOADS_MAX: usize = 1_024;
/// Most unacknowledged intervals of one module that a node keeps and resends.
pub const INTERVALS_KEPT_MAX: usize = 64;

/// The beginning of a text, of so many characters.
pub fn beginning(text: &str, len: usize) -> &str {
    match text.char_indices().nth(len) {
        None => text,
        Some((end, _)) => &text[..end],
    }
}

/// A text of at most [`ACCOUNT_LEN_MAX`] characters: a longer one keeps its beginning, as long as a reason may be, and
/// its end, and says how much of it is left out between them.
pub fn account(text: &str) -> String {
    let len = text.chars().count();
    if len <= ACCOUNT_LEN_MAX {
        return text.to_owned();
    }
    let first = beginning(text, REASON_LEN_MAX);
    // The words between are shorter than this, whatever the number.
    let last = ACCOUNT_LEN_MAX - REASON_LEN_MAX - 64;
    let left_out = len - REASON_LEN_MAX - last;
    let last = text
        .char_indices()
        .nth(len - last)
        .map_or("", |(at, _)| &text[at..]);
    format!("{first}\n[{left_out} characters are left out here]\n{last}")
}

/// One message of a node about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who reports.
    pub node: NodeId,
    /// Which run of its process.
    pub incarnation: Incarnation,
    /// Counts the reports of an incarnation; an older one than was seen is dropped.
    pub seq: u64,
    /// Present in a session's first report.
    pub hello: Option<Hello>,
    /// The newest spec it ever accepted.
    pub highest: Generation,
    /// All modules in a full report, those that changed in a delta; `None` says that a module is gone.
    pub modules: BTreeMap<ModuleName, Option<ModuleStatus>>,
    /// Vetoes not yet acknowledged by the server.
    pub vetoes: Vec<Veto>,
    /// Closed intervals not yet acknowledged by the server.
    pub intervals: Vec<Interval>,
    /// The machine's health, where it was measured since the last report.
    pub health: Option<NodeHealth>,
    /// What requests to each release came to over the same time; none where health is not said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<ReleaseLoad>,
}

/// Who a node is, said once a session. Its presence makes the report a full one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Host name, for people.
    pub hostname: String,
    /// The environment it wants to join; the server's record wins where there is one.
    pub environment: EnvName,
    /// Where its ingress listens, as `host:port`.
    pub ingress: String,
    /// Labels, such as a zone.
    pub labels: BTreeMap<String, String>,
    /// Version of its agent.
    pub agent_version: String,
    /// Kinds of module that it can run, and features that it has.
    pub capabilities: Vec<String>,
}

/// What a node runs of one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ModuleStatus {
    /// The rollout whose content it took over last.
    pub rollout: RolloutId,
    /// How far each release is that it holds, by its id, and each package that it prefetches, by its digest.
    pub releases: BTreeMap<Digest, ReleaseStatus>,
    /// Who really gets requests now.
    pub routes: Vec<(Digest, u8)>,
    /// Who is really reachable for smoke checks now.
    pub preview: Option<Digest>,
    /// The release it is trying, until it commits or vetoes.
    pub trial: Option<Digest>,
    /// The release it would return to after failed boots.
    pub committed: Option<Digest>,
    /// The last smoke run that ended.
    pub smoke: Option<SmokeOutcome>,
}

/// How far a release is on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum ReleaseStatus {
    /// Its package is being fetched and verified.
    Fetching,
    /// It is being compiled or loaded.
    Loading,
    /// Fetched, verified and compiled, not loaded.
    Prefetched,
    /// Loaded, warm, healthy.
    Ready {
        /// For how long.
        healthy_for: Millis,
    },
    /// Loaded but its own health is bad.
    Unhealthy {
        /// What is wrong.
        reason: String,
    },
    /// It could not be fetched, verified, compiled or loaded; tried again with backoff.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A node's own decision to leave a release under a rollout. Durable on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Veto {
    /// The module.
    pub module: ModuleName,
    /// The rollout under which it was tried.
    pub rollout: RolloutId,
    /// The release that was left.
    pub release: ReleaseRef,
    /// The release that was returned to, if any.
    pub base: Option<ReleaseRef>,
    /// What was wrong.
    pub reason: String,
}

/// How a smoke run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeOutcome {
    /// Which run.
    pub run: SmokeRun,
    /// How many checks passed.
    pub passed: u32,
    /// What failed, by check.
    pub failures: Vec<String>,
}

/// A closed interval of evidence from one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The module.
    pub module: ModuleName,
    /// The rollout that is judged.
    pub rollout: RolloutId,
    /// The step under which all of it was counted.
    pub step: u32,
    /// Counts the intervals of an incarnation under a rollout, from 1, without gaps.
    pub number: u32,
    /// What was counted.
    pub block: Block,
}

/// What users' requests to one release on one node came to, to be shown; the judge has intervals of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseLoad {
    /// The module.
    pub module: ModuleName,
    /// The release.
    pub digest: Digest,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Errors among them, in %.
    pub error_percent: f64,
    /// Their mean latency, in ms.
    pub latency_ms: f64,
}

/// A machine's health. To be shown and excused by, never a verdict on a release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct NodeHealth {
    /// CPU in use, in %.
    pub cpu_percent: f64,
    /// Memory in use, in %.
    pub memory_percent: f64,
    /// Requests a second over the last interval.
    pub requests_per_second: f64,
    /// Errors among them, in %.
    pub error_percent: f64,
    /// Requests that `error_percent` is of.
    pub samples: u64,
    /// Mean latency over the last interval, in ms.
    pub latency_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_account_keeps_its_beginning_and_its_end() {
        assert_eq!(account("short"), "short");
        let fits = "ä".repeat(ACCOUNT_LEN_MAX);
        assert_eq!(account(&fits), fits);
        let long = format!("refused: {}the verdict", "ä".repeat(100_000));
        let told = account(&long);
        assert!(told.starts_with("refused: ä") && told.ends_with("äthe verdict"));
        let len = told.chars().count();
        assert!(len <= ACCOUNT_LEN_MAX && len > ACCOUNT_LEN_MAX - 64, "{len}");
        let left_out: usize = told
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(' '))
            .map(|(number, _)| number.parse().unwrap())
            .unwrap();
        let words = told.lines().nth(1).unwrap().chars().count() + 2;
        assert_eq!(len - words + left_out, long.chars().count());
        assert_eq!(account(&told), told, "it is not shortened twice");
    }
}
