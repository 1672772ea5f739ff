//! Deployments, read.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::{Deployment, DeploymentStatus};
use serde_json::Value;

use super::params::{Params, deployment_id, environment, unknown_deployment};
use super::{Api, ApiError, BASE, ErrorBody, Shared};
use crate::store::{DEPLOYMENTS_PAGE_MAX, DeploymentQuery};
use crate::views::deployment::{DeploymentItem, DeploymentView, item, view};

/// Deployments of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Statuses as the contract writes them.
const STATUSES: &str = "Running, PendingApproval, Paused, Succeeded, Failed, Cancelled, RolledBack";

/// Lists deployments, newest first.
#[utoipa::path(
    get, path = "/deployments", tag = "deployments", security(("bearer" = ["Viewer"])),
    params(
        ("status" = Option<String>, Query, description = "Only with this status."),
        ("module" = Option<String>, Query, description = "Only of this module."),
        ("environment" = Option<String>, Query, description = "Only with this target, in any case."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses(
        (status = OK, body = Vec<DeploymentItem>, headers(("Link" = String, description = "The next page, rel=\"next\"."))),
        (status = BAD_REQUEST, body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(api): Shared,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<DeploymentItem>>), ApiError> {
    let query = query(&api, &params)?;
    let limit = query.limit;
    let rows = api.store.deployments(query).await?;
    let mut headers = HeaderMap::new();
    if let Some(last) = rows.last().filter(|_| rows.len() == limit) {
        headers.insert(header::LINK, next_page(&params, limit, last.order)?);
    }
    let now = api.world().now().wall;
    Ok((
        headers,
        Json(rows.into_iter().map(|row| item(row, now)).collect()),
    ))
}

fn query(api: &Api, params: &Params) -> Result<DeploymentQuery, ApiError> {
    let mut faults = Vec::new();
    let mut query = DeploymentQuery {
        limit: params.limit(PAGE_DEFAULT, DEPLOYMENTS_PAGE_MAX, &mut faults),
        ..DeploymentQuery::default()
    };
    if let Some(status) = params.get("status") {
        query.status = status_of(status);
        if query.status.is_none() {
            faults.push(format!("status: must be one of {STATUSES}"));
        }
    }
    if let Some(module) = params.get("module") {
        match module.parse() {
            Ok(module) => query.module = Some(module),
            Err(fault) => faults.push(format!("module: {fault}")),
        }
    }
    if let Some(name) = params.get("environment") {
        match environment(&api.world().state(), name) {
            Ok(environment) => query.environment = Some(environment.name.clone()),
            Err(fault) => faults.push(format!("environment: {fault}")),
        }
    }
    if let Some(cursor) = params.get("cursor") {
        match u64::from_str_radix(cursor, 16) {
            Ok(order) => query.before = Some(order),
            Err(_) => faults.push("cursor: take it from the Link header of the page before".to_owned()),
        }
    }
    if faults.is_empty() {
        Ok(query)
    } else {
        Err(ApiError::validation(faults))
    }
}

fn status_of(text: &str) -> Option<DeploymentStatus> {
    use DeploymentStatus as S;
    let all = [
        S::Running,
        S::PendingApproval,
        S::Paused,
        S::Succeeded,
        S::Failed,
        S::Cancelled,
        S::RolledBack,
    ];
    all.into_iter()
        .find(|status| crate::views::deployment::status_name(*status).eq_ignore_ascii_case(text))
}

/// `Link: <…>; rel="next"`. Filters were checked before, so that they need no escaping.
fn next_page(params: &Params, limit: usize, last: u64) -> Result<HeaderValue, ApiError> {
    let mut next = format!("{BASE}/deployments?limit={limit}&cursor={last:x}");
    for name in ["status", "module", "environment"] {
        if let Some(value) = params.get(name) {
            next.push_str(&format!("&{name}={value}"));
        }
    }
    HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).map_err(|error| ApiError::internal(&error))
}

/// Tells how a deployment stands.
#[utoipa::path(
    get, path = "/deployments/{id}", tag = "deployments", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses((status = OK, body = DeploymentView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<Json<DeploymentView>, ApiError> {
    let id = deployment_id(&id)?;
    let now = api.world().now();
    {
        let state = api.world().state();
        if let Some(deployment) = state.deployment(&id) {
            return Ok(Json(view(deployment, &state, &api.world().observations(), now)));
        }
    }
    let deployment = archived(&api, id).await?;
    Ok(Json(view(
        &deployment,
        &api.world().state(),
        &api.world().observations(),
        now,
    )))
}

/// A deployment wherever it is kept.
pub(super) async fn find(api: &Api, id: DeploymentId) -> Result<Deployment, ApiError> {
    let held = api.world().state().deployment(&id).cloned();
    match held {
        Some(deployment) => Ok(deployment),
        None => archived(api, id).await,
    }
}

/// A deployment that State no longer holds.
async fn archived(api: &Api, id: DeploymentId) -> Result<Deployment, ApiError> {
    api.store
        .deployment(id)
        .await?
        .ok_or_else(|| unknown_deployment(&id.to_string()))
}

/// What a command that concerns a deployment answers.
pub(super) fn acknowledged(id: DeploymentId, state: &hotswap_core::state::State) -> Value {
    let status = state
        .deployment(&id)
        .map(|deployment| crate::views::deployment::status_name(deployment.status));
    serde_json::json!({ "executionId": id.to_string(), "status": status })
}
