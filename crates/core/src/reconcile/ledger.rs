//! What a node must know after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use crate::report::Veto;
use crate::spec::{Generation, ModuleSpec, NodeSpec};
use crate::values::Values;

/// Everything durable of a node, written whole. Small: it names packages, it holds none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ledger {
    /// Counts its changes; what the agent confirms by it.
    pub version: u64,
    /// The fleet that the node belongs to, since its first spec.
    pub fleet: Option<FleetId>,
    /// The newest spec that it accepted.
    pub spec: Option<Arc<NodeSpec>>,
    /// What it serves, by module.
    pub modules: BTreeMap<ModuleName, Entry>,
    /// Its own decisions.
    pub vetoes: Vec<KeptVeto>,
    /// Whether its process was asked to stop: then the next boot is no failed one.
    pub orderly: bool,
}

/// What a node serves of one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Entry {
    /// Who is to get requests, also after a boot without a server.
    pub serving: Vec<Share>,
    /// The release to return to.
    pub committed: Option<ReleaseRef>,
    /// The release that is served but not committed.
    pub trial: Option<Trial>,
    /// The values of these releases' configurations, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<u64, Values>,
}

/// A release's share of a module's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which.
    pub release: ReleaseRef,
    /// In %.
    pub weight: u8,
}

/// A node's first time with a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Under which rollout.
    pub rollout: RolloutId,
    /// The release.
    pub release: ReleaseRef,
    /// Boots in a row, without an orderly shutdown before, since it was last healthy for the settle time.
    pub boots: u32,
}

/// A veto, kept until a later rollout of its module arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptVeto {
    /// What was decided.
    pub veto: Veto,
    /// Whether the server knows it for good.
    pub acked: bool,
}

impl Ledger {
    /// The age of the newest accepted spec.
    pub fn highest(&self) -> Generation {
        self.spec
            .as_ref()
            .map_or_else(Generation::default, |spec| spec.generation)
    }

    /// Every package that the node may need without a server. The agent's cache must keep them.
    pub fn packages(&self) -> BTreeSet<Digest> {
        let mut packages = BTreeSet::new();
        for entry in self.modules.values() {
            packages.extend(entry.serving.iter().map(|share| share.release.digest));
            packages.extend(entry.committed.iter().map(|release| release.digest));
            packages.extend(entry.trial.iter().map(|trial| trial.release.digest));
        }
        for module in self.spec.iter().flat_map(|spec| spec.modules.values()) {
            packages.extend(module.releases.iter().map(|release| release.digest));
            packages.extend(module.prefetch.iter());
        }
        packages
    }
}

impl Entry {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.serving.is_empty() && self.committed.is_none() && self.trial.is_none()
    }

    /// Keeps the values of the releases that it names, and takes those that the spec has.
    pub(super) fn keep_values(&mut self, spec: Option<&ModuleSpec>) {
        let mut named = BTreeSet::new();
        named.extend(self.serving.iter().map(|share| share.release.config));
        named.extend(self.committed.iter().map(|release| release.config));
        named.extend(self.trial.iter().map(|trial| trial.release.config));
        self.values.retain(|number, _| named.contains(number));
        for (number, values) in spec.iter().flat_map(|spec| &spec.values) {
            if named.contains(number) {
                self.values.entry(*number).or_insert_with(|| values.clone());
            }
        }
    }

    /// The routes it asks for.
    pub(super) fn routes(&self) -> Vec<(Digest, u8)> {
        self.serving
            .iter()
            .map(|share| (share.release.id(), share.weight))
            .collect()
    }

    /// Whom a trial's release gives its requests to when it is left.
    pub(super) fn base(&self, left: &Digest) -> Option<ReleaseRef> {
        let other = || {
            self.serving
                .iter()
                .map(|share| &share.release)
                .find(|release| release.id() != *left)
        };
        self.committed
            .as_ref()
            .filter(|committed| committed.id() != *left)
            .or_else(other)
            .cloned()
    }
}
