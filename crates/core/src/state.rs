//! The fold of the log.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::command::Refusal;
use crate::ids::{DeploymentId, Digest, EnvName, FleetId, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::policy::Environment;
use crate::release::{Release, ReleaseHold, Yank};
use crate::rollout::Rollout;
use crate::stage::Deployment;
use crate::time::{CoreTime, WallTime};
use crate::values::Numbered;

/// Successes of a module in an environment that are remembered to go back to.
pub const SUCCESSES_KEPT_MAX: usize = 32;
/// Finished deployments that State still holds; older ones are in the read tables only.
pub const FINISHED_KEPT_MAX: usize = 64;
/// Leaderships whose start is remembered.
pub const EPOCH_STARTS_KEPT_MAX: usize = 1_024;
/// Most nodes of a fleet.
pub const NODES_MAX: usize = 100_000;

/// Everything that decisions are made from, besides Observations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct State {
    /// The last event's place in the log.
    pub seq: u64,
    /// The leadership.
    pub epoch: u64,
    /// Where in the log leaderships began, the newest [`EPOCH_STARTS_KEPT_MAX`]: an earlier one's events lie before the
    /// next one's start.
    #[serde(default)]
    pub epoch_starts: BTreeMap<u64, u64>,
    /// The leadership under which the fleet was last adopted; 0 where it never was.
    #[serde(default)]
    pub adopted: u64,
    /// The last event's core time.
    pub at: CoreTime,
    /// The last event's wall time.
    pub wall: WallTime,
    /// Whose log it is; `None` before the first event.
    pub fleet: Option<FleetId>,
    /// The environments, in order.
    pub environments: Vec<Environment>,
    /// What each environment runs.
    pub envs: BTreeMap<EnvName, EnvState>,
    /// What was pushed.
    pub modules: BTreeMap<ModuleName, Module>,
    /// The fleet.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Unfinished deployments.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// The newest finished ones.
    pub finished: BTreeMap<DeploymentId, Deployment>,
    /// Their order, oldest first.
    pub finished_order: Vec<DeploymentId>,
    /// Rollouts so far.
    pub rollouts: u64,
    /// Nodes whose drain waits for their environment to be able to spare them.
    #[serde(default)]
    pub draining: BTreeSet<NodeId>,
}

/// A module's releases and holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct Module {
    /// By version.
    pub releases: BTreeMap<semver::Version, Release>,
    /// Releases that no promotion takes, by digest; those that are revoked among them.
    pub holds: BTreeMap<Digest, ReleaseHold>,
    /// No deployment takes an older version; only a rollback may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<semver::Version>,
    /// Versions that are withdrawn: nothing new takes them, and what runs them keeps them.
    #[serde(default)]
    pub yanks: BTreeMap<semver::Version, Yank>,
    /// How often values were set, in all environments: the newest one's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub values_numbered: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl EnvModule {
    /// The numbers of values that something here names.
    pub fn named_values(&self) -> BTreeSet<u64> {
        let stable = self.stable.iter().chain(&self.successes);
        let plan = self.rollout.iter().map(|rollout| &rollout.plan);
        let exceptions = self.exceptions.values();
        stable
            .map(|success| &success.release)
            .chain(&self.standby)
            .chain(plan.flat_map(|plan| plan.candidate.iter().chain(&plan.base)))
            .chain(
                exceptions.flat_map(|exception| std::iter::once(&exception.release).chain(&exception.base)),
            )
            .map(|release| release.config)
            .collect()
    }
}

/// A node, as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where it belongs.
    pub environment: EnvName,
    /// Host name.
    pub hostname: String,
    /// Labels, as it reports them.
    pub labels: BTreeMap<String, String>,
    /// Labels that an operator set: they win over reported ones.
    #[serde(default)]
    pub overrides: BTreeMap<String, String>,
    /// Set while it is to serve nothing.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// The newest event that changed an input of its spec.
    pub touched: u64,
    /// When it was first seen.
    pub registered: WallTime,
}

impl Node {
    /// A label: the operator's where one is set, else the reported one.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.overrides
            .get(key)
            .or_else(|| self.labels.get(key))
            .map(String::as_str)
    }

    /// All labels that count, by key.
    pub fn effective_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(self.overrides.clone());
        labels
    }

    /// Whether it is told to serve nothing, and is in no roster.
    pub fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.taken)
    }
}

/// An operator's wish that a node serve nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Until when it waits for its environment to be able to spare the node; then it is drained all the same.
    pub until: WallTime,
    /// Whether its traffic is taken away, not only wished to be.
    pub taken: bool,
}

/// What an environment runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct EnvState {
    /// The newest event that changed an input of its nodes' specs.
    pub touched: u64,
    /// Its modules.
    pub modules: BTreeMap<ModuleName, EnvModule>,
    /// Its nodes.
    pub nodes: BTreeSet<NodeId>,
}

/// What an environment runs of one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct EnvModule {
    /// The release that it runs.
    pub stable: Option<Success>,
    /// The release that it ran before: held as standby.
    pub standby: Option<ReleaseRef>,
    /// The rollout that last touched its nodes: what they run carries its name.
    pub rollout_of_stable: RolloutId,
    /// Nodes that left a release by themselves.
    pub exceptions: BTreeMap<NodeId, Exception>,
    /// The unfinished rollout.
    pub rollout: Option<Box<Rollout>>,
    /// What succeeded here, oldest first; the last is stable, if anything is.
    pub successes: Vec<Success>,
    /// What it is given here.
    #[serde(default, skip_serializing_if = "Numbered::is_empty")]
    pub values: Numbered,
}

/// A release that became stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The release.
    pub release: ReleaseRef,
    /// The deployment that made it stable.
    pub deployment: DeploymentId,
    /// Whether this environment was that deployment's target.
    #[serde(default)]
    pub target: bool,
}

/// A node's own decision, kept until a later rollout includes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Under which rollout.
    pub rollout: RolloutId,
    /// The release it left.
    pub release: ReleaseRef,
    /// The release it returned to.
    pub base: Option<ReleaseRef>,
    /// Why.
    pub reason: String,
}

impl State {
    /// An environment by its name, in any case.
    pub fn environment(&self, name: &EnvName) -> Result<&Environment, Refusal> {
        self.environments
            .iter()
            .find(|environment| environment.name.as_str().eq_ignore_ascii_case(name.as_str()))
            .ok_or_else(|| Refusal::UnknownEnvironment {
                environment: name.clone(),
                known: self
                    .environments
                    .iter()
                    .map(|environment| environment.name.to_string())
                    .collect(),
            })
    }

    /// The environments that a deployment to one passes through, in order, the target being the last.
    pub fn environments_to(&self, target: &EnvName) -> &[Environment] {
        let mut environments = self.environments.iter();
        let last = environments.position(|environment| environment.name == *target);
        let end = last.map_or(self.environments.len(), |last| last + 1);
        &self.environments[..end]
    }

    /// A pushed release by module and version.
    pub fn release(&self, module: &ModuleName, version: &semver::Version) -> Result<&Release, Refusal> {
        let found = self.modules.get(module).ok_or_else(|| Refusal::UnknownModule {
            module: module.clone(),
            known: self.modules.keys().map(ToString::to_string).collect(),
        })?;
        found
            .releases
            .get(version)
            .ok_or_else(|| Refusal::UnknownVersion {
                module: module.clone(),
                version: version.clone(),
                known: found.releases.keys().map(ToString::to_string).collect(),
            })
    }

    /// A deployment that State still holds, unfinished or finished lately.
    pub fn deployment(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.deployments.get(id).or_else(|| self.finished.get(id))
    }

    /// What an environment runs of a module, if it ever ran it.
    pub fn env_module(&self, environment: &EnvName, module: &ModuleName) -> Option<&EnvModule> {
        self.envs.get(environment)?.modules.get(module)
    }

    /// The number of the values that an environment gives a module; 0 for none.
    pub fn values_in(&self, environment: &EnvName, module: &ModuleName) -> u64 {
        self.env_module(environment, module)
            .map_or(0, |module| module.values.newest)
    }

    /// All unfinished rollouts.
    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.envs
            .values()
            .flat_map(|env| env.modules.values())
            .filter_map(|module| module.rollout.as_deref())
    }

    /// The unfinished rollout of a deployment, if one runs.
    pub fn rollout_of(&self, deployment: &Deployment) -> Option<&Rollout> {
        self.environments
            .iter()
            .filter_map(|environment| {
                self.env_module(&environment.name, &deployment.module)?
                    .rollout
                    .as_deref()
            })
            .find(|rollout| rollout.plan.deployment == deployment.id)
    }

    /// Unfinished deployments, oldest first.
    pub fn deployments_by_age(&self) -> Vec<&Deployment> {
        let mut all: Vec<_> = self.deployments.values().collect();
        all.sort_by_key(|deployment| deployment.order);
        all
    }

    /// The oldest version of a module that deployments may take, where there is one.
    pub fn minimum(&self, module: &ModuleName) -> Option<&semver::Version> {
        self.modules.get(module)?.minimum.as_ref()
    }

    /// Why a version is withdrawn, if it is.
    pub fn yank(&self, module: &ModuleName, version: &semver::Version) -> Option<&Yank> {
        self.modules.get(module)?.yanks.get(version)
    }

    /// Why nothing new takes a release: it is revoked, on hold, or withdrawn.
    pub fn barred(&self, module: &ModuleName, release: &ReleaseRef) -> Option<String> {
        let hold = self.hold(module, &release.digest);
        let hold = hold.filter(|hold| hold.bars(release)).map(|hold| {
            let how = if hold.revoked { "revoked" } else { "on hold" };
            format!("{how}: {}", hold.reason)
        });
        hold.or_else(|| {
            let yank = self.yank(module, &release.version)?;
            Some(format!("withdrawn: {}", yank.reason))
        })
    }

    /// Why a release is on hold, if it is.
    pub fn hold(&self, module: &ModuleName, digest: &Digest) -> Option<&ReleaseHold> {
        self.modules.get(module)?.holds.get(digest)
    }
}
