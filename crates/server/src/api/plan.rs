//! `POST /deployments/plan`: what a deployment would do.

use axum::Json;
use axum::extract::State;
use tokio::sync::Semaphore;

use super::body::JsonObject;
use super::call::Call;
use super::create::{CreateDeployment, validate};
use super::{ApiError, ErrorBody, Shared};
use crate::views::plan::{PlanView, view};

/// Plans made at once; more wait. Each holds a copy of all that is known.
static PLANNING: Semaphore = Semaphore::const_new(2);

/// Tells what a deployment would do, without doing it: the same request, and the same refusals. A deployment with the
/// seed that the plan states, made while nothing else begins, draws the same nodes.
#[utoipa::path(
    post, path = "/deployments/plan", tag = "deployments", security(("bearer" = ["Viewer"])), request_body = CreateDeployment,
    responses(
        (status = OK, body = PlanView),
        (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody), (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn plan(
    State(api): Shared,
    call: Call,
    body: JsonObject,
) -> Result<Json<PlanView>, ApiError> {
    let request = validate(&api, &call, &body.fields)?;
    let (module, target) = (request.module.clone(), request.target.clone());
    let now = api.world().now();
    let _place = PLANNING
        .acquire()
        .await
        .map_err(|closed| ApiError::internal(&closed))?;
    // Planned on copies: commits and reports don't wait for it.
    let state = api.world().state().clone();
    let observations = api.world().observations().clone();
    let work = move || hotswap_core::plan::plan(&state, &observations, request, now);
    let planned = tokio::task::spawn_blocking(work).await;
    let planned = planned.map_err(|panic| ApiError::internal(&panic))?;
    let plan = planned.map_err(|refusal| ApiError::refused(&refusal))?;
    Ok(Json(view(&plan, &module, &target)))
}
