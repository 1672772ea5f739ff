//! Deployments and their stages, as State holds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::freeze::Frozen;
use crate::ids::{DeploymentId, EnvName, ModuleName, ReleaseRef};
use crate::policy::Approvers;
use crate::time::{CoreTime, Now, WallTime};

/// How a deployment stands, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeploymentStatus {
    /// Under way, or queued.
    Running,
    /// Waits for a person.
    PendingApproval,
    /// Stopped from moving forward by a person.
    Paused,
    /// Its release is stable in its target.
    Succeeded,
    /// It is not, for a reason that its stages tell.
    Failed,
    /// A person ended it.
    Cancelled,
    /// It succeeded and was undone later.
    RolledBack,
}

impl DeploymentStatus {
    /// Whether it can't change by itself any more.
    pub fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::RolledBack
        )
    }
}

/// How a stage stands, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StageStatus {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Not done, for the reason in its message.
    Failed,
    /// Not needed, or never reached.
    Skipped,
    /// Waits for a person.
    WaitingForApproval,
}

impl StageStatus {
    /// Whether it can't change any more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

/// What a stage is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StageKind {
    /// A person's yes.
    Approval,
    /// Admission of the artifact.
    Build,
    /// Smoke checks in the server's sandbox.
    Test,
    /// Signature, capabilities, held and revoked digests.
    SecurityScan,
    /// The strategy of an environment.
    Deploy(EnvName),
    /// Smoke checks through the target's ingress, and every node reporting the release.
    Validation,
}

impl StageKind {
    /// The contract's name.
    pub fn name(&self) -> String {
        match self {
            Self::Approval => "Approval".to_owned(),
            Self::Build => "Build".to_owned(),
            Self::Test => "Test".to_owned(),
            Self::SecurityScan => "Security Scan".to_owned(),
            Self::Deploy(environment) => format!("Deploy to {environment}"),
            Self::Validation => "Validation".to_owned(),
        }
    }

    /// Whether it is work of the server's own that the driver carries out and answers with a result.
    pub fn is_check(&self) -> bool {
        matches!(self, Self::Build | Self::Test | Self::SecurityScan)
    }
}

/// One stage of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What it is.
    pub kind: StageKind,
    /// How it stands.
    pub status: StageStatus,
    /// Counts the attempts at it; a result of an older one is dropped.
    pub attempt: u32,
    /// When it began.
    pub started: Option<Now>,
    /// When it ended.
    pub ended: Option<Now>,
    /// The strategy's name, for Deploy stages.
    pub strategy: Option<String>,
    /// Nodes that run the release.
    pub nodes_deployed: u32,
    /// Nodes that failed.
    pub nodes_failed: u32,
    /// Why it stands so, for people.
    pub message: String,
}

impl Stage {
    /// A stage that has not begun.
    pub fn pending(kind: StageKind) -> Self {
        Self {
            kind,
            status: StageStatus::Pending,
            attempt: 0,
            started: None,
            ended: None,
            strategy: None,
            nodes_deployed: 0,
            nodes_failed: 0,
            message: String::new(),
        }
    }
}

/// What a deployment is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Purpose {
    /// Roll a release out.
    Deploy,
    /// Undo a finished deployment, or unload: return `to`.
    Reverse {
        /// The deployment that is undone; `None` for an unloading.
        of: Option<DeploymentId>,
        /// The release that is returned to; `None` unloads.
        to: Option<ReleaseRef>,
    },
}

/// How an approval was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Yes or no.
    pub approved: bool,
    /// Who.
    pub by: String,
    /// An annotation.
    pub email: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: WallTime,
}

/// One run of the whole pipeline for a release, up to a target environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The contract's `executionId`.
    pub id: DeploymentId,
    /// The W3C trace id.
    pub trace_id: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Seed of its draws.
    pub seed: u64,
    /// Its place among all: the log's number of its request. Locks go to the oldest.
    pub order: u64,
    /// The module.
    pub module: ModuleName,
    /// The release it rolls out, or, for a reversal, leaves.
    pub release: Option<ReleaseRef>,
    /// How far it goes.
    pub target: EnvName,
    /// The subject that asked.
    pub requester: String,
    /// An annotation.
    pub requester_email: String,
    /// For people.
    pub description: String,
    /// For machines.
    pub metadata: BTreeMap<String, String>,
    /// Whether an older version may replace a newer one.
    pub allow_downgrade: bool,
    /// Whether a held rollout in its way is ended.
    pub supersede: bool,
    /// When it was asked for.
    pub requested: Now,
    /// When an undecided approval expires.
    pub approval_until: Option<WallTime>,
    /// How the approval was decided.
    pub approval: Option<Approval>,
    /// Who may approve, and how many must.
    #[serde(default)]
    pub approvers: Approvers,
    /// Approvals so far, where more are needed.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// Where it needs an approval: the numbers of the module's values on the way, as they were when it was asked for.
    /// What is approved is the release under these.
    #[serde(default)]
    pub values: Option<BTreeMap<EnvName, u64>>,
    /// The freeze that it met last.
    #[serde(default)]
    pub frozen: Option<Frozen>,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// How it stands.
    pub status: DeploymentStatus,
    /// Why, once it ended.
    pub message: String,
    /// When it ended.
    pub ended: Option<Now>,
    /// Set while a person has stopped it from moving forward.
    pub paused: Option<Pause>,
}

/// A person's stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: String,
    /// When it gives up and goes back.
    pub until: WallTime,
    /// Since when, by core time.
    pub since: CoreTime,
}

impl Deployment {
    /// The stage that is under way or next, with its place; `None` once all have ended.
    pub fn current(&self) -> Option<(u32, &Stage)> {
        let index = self.stages.iter().position(|stage| !stage.status.is_finished())?;
        Some((
            u32::try_from(index).expect("stages are bounded by ENVIRONMENTS_MAX"),
            &self.stages[index],
        ))
    }

    /// The place of a stage.
    pub fn stage_index(&self, kind: &StageKind) -> Option<u32> {
        let index = self.stages.iter().position(|stage| stage.kind == *kind)?;
        u32::try_from(index).ok()
    }
}
