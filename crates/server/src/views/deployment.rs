//! Deployments as the API shows them.

use hotswap_core::explain::waits;
use hotswap_core::observe::Observations;
use hotswap_core::rollout::Rollout;
use hotswap_core::stage::{Deployment, DeploymentStatus, Purpose, Stage, StageKind, StageStatus};
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now, WallTime};
use serde::Serialize;
use utoipa::ToSchema;

use super::time::{iso8601, rfc3339};
use crate::store::DeploymentRow;

/// A deployment in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentItem {
    /// Its identity.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// The module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// The version; for a rollback the one it returns to.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// How far it goes.
    #[schema(example = "Production")]
    pub target_environment: String,
    /// Running, PendingApproval, Paused, Succeeded, Failed, Cancelled or RolledBack.
    pub status: &'static str,
    /// When it was asked for.
    #[schema(format = "date-time")]
    pub start_time: String,
    /// How long it took, or takes so far; ISO 8601.
    #[schema(example = "PT5M23S")]
    pub duration: String,
}

/// A deployment with its stages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentView {
    /// Its identity.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// The module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// The version; for a rollback the one it returns to, empty where that unloads.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// How far it goes.
    #[schema(example = "Production")]
    pub target_environment: String,
    /// Running, PendingApproval, Paused, Succeeded, Failed, Cancelled or RolledBack.
    pub status: &'static str,
    /// When it was asked for.
    #[schema(format = "date-time")]
    pub start_time: String,
    /// When it ended; null while it runs.
    #[schema(format = "date-time")]
    pub end_time: Option<String>,
    /// How long it took, or takes so far; ISO 8601.
    #[schema(example = "PT5M23S")]
    pub duration: String,
    /// Its stages, in order.
    pub stages: Vec<StageView>,
    /// The W3C trace id of its trace.
    pub trace_id: String,
    /// Why it ended so; empty while it runs.
    pub message: String,
    /// Who asked.
    pub requester_email: String,
    /// For people.
    pub description: String,
    /// For machines.
    pub metadata: std::collections::BTreeMap<String, String>,
    /// The deployment that it undoes, for a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uuid")]
    pub rollback_of: Option<String>,
}

/// A stage of a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageView {
    /// Approval, Build, Test, Security Scan, Deploy to an environment, or Validation.
    #[schema(example = "Deploy to QA")]
    pub name: String,
    /// Pending, Running, Succeeded, Failed, Skipped or WaitingForApproval.
    pub status: &'static str,
    /// When it began; null before.
    #[schema(format = "date-time")]
    pub start_time: Option<String>,
    /// How long it took, or takes so far; ISO 8601.
    #[schema(example = "PT12.5S")]
    pub duration: String,
    /// Direct, Rolling, BlueGreen or Canary, for Deploy stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Nodes that run the release, for Deploy stages and Validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_deployed: Option<u32>,
    /// Nodes that failed, for Deploy stages and Validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_failed: Option<u32>,
    /// Why it stands so, or what it waits for.
    pub message: String,
}

/// The contract's word for a status.
pub fn status_name(status: DeploymentStatus) -> &'static str {
    match status {
        DeploymentStatus::Running => "Running",
        DeploymentStatus::PendingApproval => "PendingApproval",
        DeploymentStatus::Paused => "Paused",
        DeploymentStatus::Succeeded => "Succeeded",
        DeploymentStatus::Failed => "Failed",
        DeploymentStatus::Cancelled => "Cancelled",
        DeploymentStatus::RolledBack => "RolledBack",
    }
}

/// The contract's word for a stage's status.
pub fn stage_status_name(status: StageStatus) -> &'static str {
    match status {
        StageStatus::Pending => "Pending",
        StageStatus::Running => "Running",
        StageStatus::Succeeded => "Succeeded",
        StageStatus::Failed => "Failed",
        StageStatus::Skipped => "Skipped",
        StageStatus::WaitingForApproval => "WaitingForApproval",
    }
}

/// The version that a deployment puts where it goes; empty where it unloads.
pub fn version_of(deployment: &Deployment) -> String {
    let release = match &deployment.purpose {
        Purpose::Deploy => deployment.release.as_ref(),
        Purpose::Reverse { to, .. } => to.as_ref(),
    };
    release
        .map(|release| release.version.to_string())
        .unwrap_or_default()
}

/// A deployment of the store's list.
pub fn item(row: DeploymentRow, now: WallTime) -> DeploymentItem {
    DeploymentItem {
        execution_id: row.id.to_string(),
        module_name: row.module,
        version: row.version,
        target_environment: row.environment,
        status: status_name(row.status),
        start_time: rfc3339(row.started),
        duration: iso8601(row.ended.unwrap_or(now).since(row.started)),
    }
}

/// A deployment as it stands, with what it waits for. One that State no longer holds has nothing to wait for.
pub fn view(deployment: &Deployment, state: &State, obs: &Observations, now: Now) -> DeploymentView {
    let rollout = state.rollout_of(deployment);
    let current = deployment.current().map(|(place, _)| place);
    let waiting = waiting(deployment, state, obs, now);
    let stage = |(place, stage): (usize, &Stage)| {
        let is_current = current.is_some_and(|current| current as usize == place);
        let rollout = rollout.filter(|rollout| is_current && concerns(&stage.kind, rollout));
        let message = if is_current && !waiting.is_empty() {
            &waiting
        } else {
            &stage.message
        };
        stage_view(
            stage,
            rollout.map(|rollout| progress(rollout, obs, now)),
            message.clone(),
            now,
        )
    };
    let rollback_of = match &deployment.purpose {
        Purpose::Reverse { of, .. } => of.map(|of| of.to_string()),
        Purpose::Deploy => None,
    };
    DeploymentView {
        execution_id: deployment.id.to_string(),
        module_name: deployment.module.to_string(),
        version: version_of(deployment),
        target_environment: deployment.target.to_string(),
        status: status_name(deployment.status),
        start_time: rfc3339(deployment.requested.wall),
        end_time: deployment.ended.map(|ended| rfc3339(ended.wall)),
        duration: iso8601(spent(Some(deployment.requested), deployment.ended, now)),
        stages: deployment.stages.iter().enumerate().map(stage).collect(),
        trace_id: deployment.trace_id.clone(),
        message: deployment.message.clone(),
        requester_email: deployment.requester_email.clone(),
        description: deployment.description.clone(),
        metadata: deployment.metadata.clone(),
        rollback_of,
    }
}

fn waiting(deployment: &Deployment, state: &State, obs: &Observations, now: Now) -> String {
    if deployment.status.is_finished() {
        return String::new();
    }
    let waits = waits(state, obs, &deployment.id, now);
    waits
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn concerns(kind: &StageKind, rollout: &Rollout) -> bool {
    match kind {
        StageKind::Deploy(environment) => *environment == rollout.plan.environment,
        StageKind::Validation => rollout.plan.validates,
        StageKind::Approval | StageKind::Build | StageKind::Test | StageKind::SecurityScan => false,
    }
}

/// Nodes that run the candidate by their own report, and nodes that failed.
fn progress(rollout: &Rollout, obs: &Observations, now: Now) -> (u32, u32) {
    let module = &rollout.plan.module;
    let wanted = if rollout.is_back() {
        rollout.base()
    } else {
        rollout.plan.candidate.as_ref()
    };
    let runs = |node: &&_| {
        let Some(seen) = obs.module(node, module, now.core) else {
            return wanted.is_none();
        };
        match wanted {
            Some(release) => seen
                .status
                .routes
                .iter()
                .any(|(digest, _)| *digest == release.id()),
            None => seen.status.routes.is_empty(),
        }
    };
    let deployed = rollout.cohort.iter().filter(runs).count();
    (count(deployed), count(rollout.excluded.len()))
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn stage_view(stage: &Stage, live: Option<(u32, u32)>, message: String, now: Now) -> StageView {
    let has_nodes = matches!(stage.kind, StageKind::Deploy(_) | StageKind::Validation);
    let (deployed, failed) = live.unwrap_or((stage.nodes_deployed, stage.nodes_failed));
    StageView {
        name: stage.kind.name(),
        status: stage_status_name(stage.status),
        start_time: stage.started.map(|started| rfc3339(started.wall)),
        duration: iso8601(spent(stage.started, stage.ended, now)),
        strategy: stage.strategy.clone(),
        nodes_deployed: has_nodes.then_some(deployed),
        nodes_failed: has_nodes.then_some(failed),
        message,
    }
}

fn spent(started: Option<Now>, ended: Option<Now>, now: Now) -> Millis {
    started.map_or(Millis(0), |started| ended.unwrap_or(now).wall.since(started.wall))
}
