//! What a node is told to run. Derived from State, never stored; a node compares and converges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use crate::time::Millis;
use crate::trace::TraceParent;
use crate::values::Values;

/// Most modules a node is told to run.
pub const MODULES_PER_NODE_MAX: usize = 256;
/// All of a module's requests, as weights count them.
pub const WEIGHT_ALL: u8 = 100;

/// The age of a spec: specs are ordered by it, per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Generation {
    /// The leadership under which the spec was made.
    pub epoch: u64,
    /// The newest event that changed an input of the spec.
    pub seq: u64,
}

/// Everything a node is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Whose spec this is; a node refuses another fleet's.
    pub fleet: FleetId,
    /// How new it is.
    pub generation: Generation,
    /// The modules, by name. What isn't named is unloaded.
    pub modules: BTreeMap<ModuleName, ModuleSpec>,
    /// The deployments that the modules' content is the work of, as places in their traces. It says nothing about what
    /// to run: specs that differ in it alone are the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traces: BTreeMap<ModuleName, TraceParent>,
}

/// What a node is to run of one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSpec {
    /// The rollout that put this content here; a veto names it.
    pub rollout: RolloutId,
    /// Whether that rollout is not committed yet.
    pub trial: bool,
    /// Releases to hold loaded: those that serve, then standby.
    pub releases: Vec<ReleaseRef>,
    /// The values of the releases' configurations, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<u64, Values>,
    /// Packages to fetch, verify and compile, not to serve.
    pub prefetch: Vec<Digest>,
    /// Who gets the requests, by [`ReleaseRef::id`]: weights sum to 100, or it is empty and nobody does.
    pub routes: Vec<(Digest, u8)>,
    /// A release that is reachable for smoke checks only, by its id.
    pub preview: Option<Digest>,
    /// How long a release must be healthy to count as settled.
    pub settle: Millis,
    /// Smoke checks to run once what this spec asks for stands.
    pub smoke: Option<SmokeRun>,
    /// Arms to count apart, in intervals.
    pub observe: Option<Observe>,
}

impl ModuleSpec {
    /// The release that a rollout is putting here, if it serves or is previewed: the first of `releases`.
    pub fn primary(&self) -> Option<&ReleaseRef> {
        self.releases.first()
    }
}

/// One run of a release's smoke checks on a node. Equal runs are run once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SmokeRun {
    /// The rollout that asks.
    pub rollout: RolloutId,
    /// Its step, or one past the last for Validation.
    pub step: u32,
    /// The release to check, by its id.
    pub digest: Digest,
    /// By which door.
    pub via: SmokeVia,
}

/// By which door smoke checks reach a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SmokeVia {
    /// The preview, inside the node.
    Preview,
    /// The node's real ingress, as a user's request would come.
    Ingress,
}

/// Evidence that a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observe {
    /// The rollout that is judged.
    pub rollout: RolloutId,
    /// Its step: evidence is labelled with it.
    pub step: u32,
    /// The release on trial, by its id.
    pub candidate: Digest,
    /// The release it is compared with.
    pub control: Option<Digest>,
    /// How long an interval lasts.
    pub interval: Millis,
    /// Probes of each arm in an interval.
    pub probes: u32,
}
