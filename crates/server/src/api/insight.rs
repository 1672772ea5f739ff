//! Why a deployment stands as it does, and what the judge saw.

use axum::Json;
use axum::extract::{Path, State};
use hotswap_core::analysis::{JudgePolicy, Settings, parse_setting};
use hotswap_core::event::Logged;
use hotswap_core::ids::DeploymentId;

use super::deployments::find;
use super::params::{Params, deployment_id};
use super::{Api, ApiError, ErrorBody, Shared};
use crate::store::EVENTS_READ_MAX;
use crate::views::analysis::{self, AnalysisView};
use crate::views::why::{self, WhyView};

/// Most events of a deployment that are told; a day of evidence every 10 s stays far below.
const EVENTS_TOLD_MAX: usize = 100_000;

/// Tells a deployment's decisions, and what it waits for.
#[utoipa::path(
    get, path = "/deployments/{id}/why", tag = "deployments", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses((status = OK, body = WhyView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn why(State(api): Shared, Path(id): Path<String>) -> Result<Json<WhyView>, ApiError> {
    let deployment = find(&api, deployment_id(&id)?).await?;
    let events = events_of(&api, deployment.id).await?;
    let now = api.world().now();
    let (state, observations) = (api.world().state(), api.world().observations());
    Ok(Json(why::view(&deployment, &events, &state, &observations, now)))
}

/// Tells the candidate-versus-control evidence of a deployment, and the verdict on it.
#[utoipa::path(
    get, path = "/deployments/{id}/analysis", tag = "deployments", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses((status = OK, body = AnalysisView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn analysis(
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<Json<AnalysisView>, ApiError> {
    let deployment = find(&api, deployment_id(&id)?).await?;
    let events = events_of(&api, deployment.id).await?;
    let state = api.world().state();
    let id = deployment.id.to_string();
    Ok(Json(analysis::view(id, &events, &state, &Settings::new())))
}

/// Tells the same under another policy: when would it have stopped?
#[utoipa::path(
    get, path = "/deployments/{id}/replay", tag = "deployments", security(("bearer" = ["Viewer"])),
    params(
        ("id" = String, Path, description = "The deployment's executionId."),
        ("set" = Option<String>, Query, description = "Settings of the judge as name=value, with commas between them: \
            judge.alpha=0.05,judge.dry_run=cpu|memory"),
    ),
    responses(
        (status = OK, body = AnalysisView),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody)
    )
)]
pub(super) async fn replay(
    State(api): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<AnalysisView>, ApiError> {
    let settings = settings(params.get("set").unwrap_or_default())?;
    let deployment = find(&api, deployment_id(&id)?).await?;
    let events = events_of(&api, deployment.id).await?;
    let state = api.world().state();
    Ok(Json(analysis::view(
        deployment.id.to_string(),
        &events,
        &state,
        &settings,
    )))
}

/// `name=value,name=value` as settings, with all that is wrong with them.
fn settings(text: &str) -> Result<Settings, ApiError> {
    let mut settings = Settings::new();
    let mut faults = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match parse_setting(part) {
            Ok((key, setting)) => {
                settings.insert(key, setting);
            }
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    let mut policy = JudgePolicy::default();
    match policy.set_all(&settings) {
        Err(refused) => faults.extend(refused.iter().map(ToString::to_string)),
        Ok(()) => faults.extend(policy.validate().err().map(|fault| fault.to_string())),
    }
    if faults.is_empty() {
        Ok(settings)
    } else {
        Err(ApiError::validation(faults))
    }
}

async fn events_of(api: &Api, id: DeploymentId) -> Result<Vec<Logged>, ApiError> {
    let mut events: Vec<Logged> = Vec::new();
    while events.len() < EVENTS_TOLD_MAX {
        let more = api
            .store
            .events_of(id, events.last().map_or(0, |last| last.seq))
            .await?;
        let last_page = more.len() < EVENTS_READ_MAX;
        events.extend(more);
        if last_page {
            break;
        }
    }
    Ok(events)
}
