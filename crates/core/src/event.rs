//! What happened. The log of these is the truth; State is its fold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::analysis::Block;
use crate::command::DeployRequest;
use crate::freeze::Frozen;
use crate::ids::{
    DeploymentId, Digest, EnvName, FleetId, Incarnation, ModuleName, NodeId, ReleaseRef, RolloutId,
};
use crate::policy::{Approvers, Environment};
use crate::release::Release;
use crate::rollout::{BackReason, Exclusion, Excuse, HoldReason, RolloutPlan, StepPass};
use crate::stage::{DeploymentStatus, StageStatus};
use crate::time::{CoreTime, Millis, WallTime};
use crate::values::Values;

/// An event as the log holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Its place in the log, from 1, without gaps.
    pub seq: u64,
    /// The leadership that wrote it.
    pub epoch: u64,
    /// Core time when it was decided.
    pub at: CoreTime,
    /// Wall time when it was decided.
    pub wall: WallTime,
    /// What happened.
    pub event: Event,
}

/// Where a rollout is: one unfinished rollout per environment and module, so this finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RolloutKey {
    /// The environment.
    pub environment: EnvName,
    /// The module.
    pub module: ModuleName,
    /// Which rollout; an event for one that has ended is a bug.
    pub rollout: RolloutId,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The store was made.
    FleetCreated {
        /// Its identity.
        fleet: FleetId,
    },
    /// The environments were configured.
    EnvironmentsConfigured {
        /// All of them, in order.
        environments: Vec<Environment>,
    },
    /// A leadership began.
    EpochStarted {
        /// Its number; they only grow.
        epoch: u64,
    },
    /// An operator took a fleet over whose nodes knew newer specs than this log: a leadership above all that they knew
    /// began.
    FleetAdopted {
        /// Its number.
        epoch: u64,
        /// Rollouts are numbered above this from now on: those of the lost part of the log had lower numbers.
        rollouts_above: u64,
        /// Who decided it.
        by: String,
    },
    /// A release was pushed.
    ReleasePushed {
        /// Its module.
        module: ModuleName,
        /// Its version.
        version: semver::Version,
        /// What it is.
        release: Release,
    },
    /// Promotions no longer take a release.
    ReleaseHeld {
        /// Its module.
        module: ModuleName,
        /// Which.
        release: ReleaseRef,
        /// Why.
        reason: String,
    },
    /// Promotions take it again.
    ReleaseHoldLifted {
        /// Its module.
        module: ModuleName,
        /// Which.
        digest: Digest,
        /// Who asked.
        by: String,
    },
    /// A release is never taken again: a hold that nobody can lift.
    ReleaseRevoked {
        /// Its module.
        module: ModuleName,
        /// Which.
        release: ReleaseRef,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// A version was withdrawn: nothing new takes it, and what runs it keeps it.
    ReleaseYanked {
        /// Its module.
        module: ModuleName,
        /// Which.
        version: semver::Version,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// Deployments of a module take no older version any more.
    MinimumVersionSet {
        /// The module.
        module: ModuleName,
        /// The oldest that is taken; `None`: any.
        version: Option<semver::Version>,
        /// Who asked.
        by: String,
    },
    /// A withdrawn version is offered again.
    ReleaseUnyanked {
        /// Its module.
        module: ModuleName,
        /// Which.
        version: semver::Version,
        /// Who asked.
        by: String,
    },
    /// A module has other values in an environment; a deployment makes them count.
    ValuesSet {
        /// The module.
        module: ModuleName,
        /// Where.
        environment: EnvName,
        /// Their number, counted by module.
        number: u64,
        /// All of them. Secrets are references.
        values: Values,
        /// Who asked.
        by: String,
    },
    /// A node was seen for the first time.
    NodeRegistered {
        /// Who.
        node: NodeId,
        /// Where it belongs.
        environment: EnvName,
        /// Host name.
        hostname: String,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
    /// A node said other labels or another host name than before.
    NodeDescribed {
        /// Who.
        node: NodeId,
        /// Host name.
        hostname: String,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
    /// A node belongs elsewhere now.
    NodeMoved {
        /// Who.
        node: NodeId,
        /// Where to.
        environment: EnvName,
        /// Who asked.
        by: String,
    },
    /// An operator set labels of a node.
    NodeLabelsSet {
        /// Who.
        node: NodeId,
        /// All that operators set, by key; reported labels with other keys still count.
        overrides: BTreeMap<String, String>,
        /// Who asked.
        by: String,
    },
    /// A node is to serve nothing, once its environment can spare it.
    NodeDrainRequested {
        /// Who.
        node: NodeId,
        /// Until when that is waited for; then it is drained all the same.
        until: WallTime,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// A node serves nothing from now on, and is in no roster.
    NodeDrained {
        /// Who.
        node: NodeId,
    },
    /// A node serves again, or its drain is no longer wanted.
    NodeUndrained {
        /// Who.
        node: NodeId,
        /// Who asked.
        by: String,
    },
    /// A node is forgotten.
    NodeRemoved {
        /// Who.
        node: NodeId,
        /// Who asked.
        by: String,
    },
    /// A deployment was asked for.
    DeploymentRequested {
        /// All that was asked.
        request: Box<DeployRequest>,
        /// The release it names.
        release: ReleaseRef,
        /// Whether a person must approve.
        approval: bool,
        /// Who may, and how many must.
        #[serde(default)]
        approvers: Approvers,
    },
    /// Another kind of deployment: the undoing of one, or an unloading.
    ReversalRequested {
        /// Its identity.
        deployment: DeploymentId,
        /// Its trace.
        trace_id: String,
        /// The deployment that it undoes; `None` for an unloading.
        of: Option<DeploymentId>,
        /// The module.
        module: ModuleName,
        /// Where.
        environment: EnvName,
        /// The release that is left.
        from: Option<ReleaseRef>,
        /// The release that is returned to; `None` unloads.
        to: Option<ReleaseRef>,
        /// Who asked.
        by: String,
    },
    /// A person decided an approval.
    ApprovalDecided {
        /// Which deployment's.
        deployment: DeploymentId,
        /// Yes or no.
        approved: bool,
        /// Who.
        by: String,
        /// An annotation.
        email: String,
        /// Why.
        reason: Option<String>,
    },
    /// A person approved, and more must.
    ApprovalGiven {
        /// Which deployment's.
        deployment: DeploymentId,
        /// Who.
        by: String,
        /// An annotation.
        email: String,
        /// Why.
        reason: Option<String>,
    },
    /// Nobody decided an approval in time.
    ApprovalExpired {
        /// Which deployment's.
        deployment: DeploymentId,
    },
    /// A stage began, or a check of it began anew.
    StageStarted {
        /// Which deployment.
        deployment: DeploymentId,
        /// Which of its stages.
        stage: u32,
        /// Counts the attempts at it, from 1.
        attempt: u32,
    },
    /// A deployment met a freeze: it waits until that ends.
    DeploymentFrozen {
        /// Which.
        deployment: DeploymentId,
        /// What it met.
        frozen: Frozen,
    },
    /// A stage ended.
    StageFinished {
        /// Which deployment.
        deployment: DeploymentId,
        /// Which of its stages.
        stage: u32,
        /// How.
        status: StageStatus,
        /// Why, for people.
        message: String,
        /// Nodes that run the release.
        nodes_deployed: u32,
        /// Nodes that failed.
        nodes_failed: u32,
    },
    /// A deployment ended.
    DeploymentFinished {
        /// Which.
        deployment: DeploymentId,
        /// How.
        status: DeploymentStatus,
        /// Why, for people.
        message: String,
    },
    /// A finished deployment was undone.
    DeploymentRolledBack {
        /// Which.
        deployment: DeploymentId,
        /// By which deployment.
        by: DeploymentId,
    },
    /// A rollout began; everything it may do is frozen here.
    RolloutStarted {
        /// The whole plan.
        plan: Box<RolloutPlan>,
    },
    /// A step began.
    StepStarted {
        /// Which rollout.
        key: RolloutKey,
        /// Which step, from 0.
        step: u32,
        /// The nodes that join the cohort with it.
        joins: Vec<NodeId>,
    },
    /// A step met its gate.
    StepCompleted {
        /// Which rollout.
        key: RolloutKey,
        /// Which step.
        step: u32,
        /// By what.
        pass: StepPass,
    },
    /// A node entered the last step's cohort late.
    NodeEntered {
        /// Which rollout.
        key: RolloutKey,
        /// Who.
        node: NodeId,
    },
    /// A node counts as failed.
    NodeExcluded {
        /// Which rollout.
        key: RolloutKey,
        /// Who.
        node: NodeId,
        /// Why.
        reason: Exclusion,
    },
    /// A node doesn't count.
    NodeExcused {
        /// Which rollout.
        key: RolloutKey,
        /// Who.
        node: NodeId,
        /// Why.
        reason: Excuse,
    },
    /// An interval's evidence, or soak alone.
    EvidenceRecorded {
        /// Which rollout.
        key: RolloutKey,
        /// The running step.
        step: u32,
        /// Soak that the interval adds.
        soak: Millis,
        /// What its nodes counted in the running step.
        block: Option<Box<Block>>,
        /// What came late, by its step: towards fail only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        late: Vec<(u32, Block)>,
        /// Which intervals of which nodes are in it.
        folded: Folded,
    },
    /// The rollout waits for something that people or machines must mend.
    RolloutHeld {
        /// Which rollout.
        key: RolloutKey,
        /// For what.
        reason: HoldReason,
        /// When it gives up and goes back.
        until: WallTime,
    },
    /// What it held for is mended, or a person said so.
    RolloutReleased {
        /// Which rollout.
        key: RolloutKey,
    },
    /// A person stopped it from moving forward.
    RolloutPaused {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who.
        by: String,
        /// When it gives up and goes back.
        until: WallTime,
    },
    /// A person let it move forward.
    RolloutResumed {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who.
        by: String,
    },
    /// All gates up to the last step are passed by a person's word.
    RolloutPromoted {
        /// Which rollout.
        key: RolloutKey,
        /// Who.
        by: String,
    },
    /// The target's last step is done; its Validation begins.
    ValidationStarted {
        /// Which rollout.
        key: RolloutKey,
    },
    /// The rollout goes back. It never turns again.
    BackStarted {
        /// Which rollout.
        key: RolloutKey,
        /// Why.
        reason: BackReason,
    },
    /// An environment's stable release of a module.
    StableSet {
        /// The rollout that made it so.
        key: RolloutKey,
        /// The deployment that made it so.
        deployment: DeploymentId,
        /// What is stable now; `None`: nothing.
        release: Option<ReleaseRef>,
    },
    /// A rollout ended.
    RolloutEnded {
        /// Which.
        key: RolloutKey,
        /// Whether its release stayed.
        kept: bool,
        /// Nodes that were not reached; they converge when they return.
        missing: Vec<NodeId>,
    },
    /// A node left a release by itself; it gets its base until a later rollout includes it.
    ExceptionRecorded {
        /// Where.
        environment: EnvName,
        /// Which module.
        module: ModuleName,
        /// Who.
        node: NodeId,
        /// Under which rollout.
        rollout: RolloutId,
        /// Which release.
        release: ReleaseRef,
        /// What it returned to.
        base: Option<ReleaseRef>,
        /// Why.
        reason: String,
    },
}

/// Which intervals an evidence event holds, by the node's place in the rollout's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Folded {
    /// A set bit: that node's next interval of the incarnation last folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<u64>,
    /// All others: place, incarnation, number of the last interval folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jumps: Vec<(u32, Incarnation, u32)>,
}
