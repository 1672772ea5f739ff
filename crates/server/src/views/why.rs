//! Why a deployment stands as it does: its decisions from the log, and what it waits for now.

use hotswap_core::event::{Event, Logged};
use hotswap_core::explain::{Wait, waits};
use hotswap_core::observe::Observations;
use hotswap_core::stage::{Deployment, StageKind};
use hotswap_core::state::State;
use hotswap_core::time::Now;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::deployment::status_name;
use super::sentence::{environment, sentence};
use super::time::rfc3339;

/// Why a deployment stands as it does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhyView {
    /// Which deployment.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// How it stands.
    pub status: &'static str,
    /// What it waits for now; empty where it moves or has ended.
    pub waits: Vec<WaitView>,
    /// What was decided, oldest first.
    pub decisions: Vec<DecisionView>,
}

/// Something that a deployment waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitView {
    /// As a sentence.
    pub message: String,
    /// As data.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// A decision.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionView {
    /// Its number in the log.
    pub seq: u64,
    /// When.
    #[schema(format = "date-time")]
    pub time: String,
    /// In which stage.
    pub stage: String,
    /// As a sentence.
    pub message: String,
    /// The event.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Why a deployment stands as it does, from its events in the log.
pub fn view(
    deployment: &Deployment,
    events: &[Logged],
    state: &State,
    obs: &Observations,
    now: Now,
) -> WhyView {
    let waiting = |wait: Wait| WaitView {
        message: wait.to_string(),
        data: data(&wait),
    };
    WhyView {
        execution_id: deployment.id.to_string(),
        status: status_name(deployment.status),
        waits: waits(state, obs, &deployment.id, now)
            .into_iter()
            .map(waiting)
            .collect(),
        decisions: decisions(deployment, events),
    }
}

fn decisions(deployment: &Deployment, events: &[Logged]) -> Vec<DecisionView> {
    let decision = |logged: &Logged| {
        Some(DecisionView {
            seq: logged.seq,
            time: rfc3339(logged.wall),
            stage: stage_of(deployment, &logged.event),
            message: sentence(&logged.event)?,
            data: data(&logged.event),
        })
    };
    events.iter().filter_map(decision).collect()
}

fn data(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn stage_of(deployment: &Deployment, event: &Event) -> String {
    let by_place = |place: u32| {
        deployment
            .stages
            .get(place as usize)
            .map(|stage| stage.kind.name())
    };
    let named = match event {
        Event::StageStarted { stage, .. } | Event::StageFinished { stage, .. } => by_place(*stage),
        Event::ApprovalGiven { .. } | Event::ApprovalDecided { .. } | Event::ApprovalExpired { .. } => {
            Some(StageKind::Approval.name())
        }
        Event::DeploymentFrozen { frozen, .. } => Some(StageKind::Deploy(frozen.environment.clone()).name()),
        Event::ValidationStarted { .. } => Some(StageKind::Validation.name()),
        event => environment(event).map(|name| StageKind::Deploy(name.clone()).name()),
    };
    named.unwrap_or_default()
}
