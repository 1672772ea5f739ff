//! Why a deployment stands as it does, and what the judge saw.

use axum::Json;
use axum::extract::{Path, State};
use hotswap_core::event::Logged;
use hotswap_core::ids::DeploymentId;

use super::deployments::find;
use super::params::deployment_id;
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
    Ok(Json(analysis::view(deployment.id.to_string(), &events)))
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
