//! Approvals: deployments that wait for a person.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hotswap_core::command::Command;
use hotswap_core::stage::{Deployment, DeploymentStatus, StageKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::Call;
use super::create::Form;
use super::deployments::find;
use super::params::{Params, deployment_id};
use super::{Api, ApiError, BASE, ErrorBody, Shared, commands};
use crate::views::deployment::version_of;
use crate::views::time::rfc3339;

/// Approvals of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Most approvals of a page.
const PAGE_MAX: usize = 1_000;
/// Longest reason of a decision, in characters.
const REASON_LEN_MAX: usize = 1_000;

/// An approval. Each deployment has at most one, under its own id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalView {
    /// Its identity.
    #[schema(format = "uuid")]
    pub approval_id: String,
    /// The deployment that waits.
    #[schema(format = "uuid")]
    pub deployment_execution_id: String,
    /// The module.
    pub module_name: String,
    /// The version.
    pub version: String,
    /// How far it goes.
    pub target_environment: String,
    /// Who asked for it.
    pub requester_email: String,
    /// Pending, AutoApproved (none was needed), Approved, Rejected or Expired.
    pub status: &'static str,
    /// When it was asked for.
    #[schema(format = "date-time")]
    pub requested_at: String,
    /// When it was decided.
    #[schema(format = "date-time")]
    pub responded_at: Option<String>,
    /// Who decided.
    pub responded_by: Option<String>,
    /// Why.
    pub response_reason: Option<String>,
    /// When it expires undecided.
    #[schema(format = "date-time")]
    pub timeout_at: Option<String>,
    /// The user who asked for it.
    pub requester: String,
    /// The users who approved so far.
    pub approved_by: Vec<String>,
    /// How many must.
    pub approvals_needed: u32,
    /// By environment on the way, where the module has values there: their number when this was asked for. Under others it
    /// can't be approved, and goes no further.
    pub values: BTreeMap<String, u64>,
}

/// A decision, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalDecision {
    /// Who decides.
    #[schema(format = "email")]
    pub approver_email: String,
    /// Why.
    #[schema(max_length = 1000)]
    pub reason: Option<String>,
}

/// Lists the approvals that wait, oldest first.
#[utoipa::path(
    get, path = "/approvals/pending", tag = "approvals", security(("bearer" = ["Viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses(
        (status = OK, body = Vec<ApprovalView>, headers(("Link" = String, description = "The next page, rel=\"next\"."))),
        (status = BAD_REQUEST, body = ErrorBody),
    )
)]
pub(super) async fn pending(
    State(api): Shared,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<ApprovalView>>), ApiError> {
    let mut faults = Vec::new();
    let limit = params.limit(PAGE_DEFAULT, PAGE_MAX, &mut faults);
    let cursor = params.get("cursor").map(str::parse::<u64>);
    if matches!(cursor, Some(Err(_))) {
        faults.push("cursor: take it from the Link header of the page before".to_owned());
    }
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    // Deployments are numbered in the order in which they were asked for.
    let after = cursor.and_then(Result::ok).unwrap_or(0);
    let state = api.world().state();
    let waiting = state.deployments_by_age().into_iter().filter(|deployment| {
        deployment.status == DeploymentStatus::PendingApproval && deployment.order > after
    });
    let page: Vec<&Deployment> = waiting.take(limit).collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        let next = format!(
            "<{BASE}/approvals/pending?limit={limit}&cursor={}>; rel=\"next\"",
            last.order
        );
        headers.insert(
            header::LINK,
            HeaderValue::from_str(&next).map_err(|error| ApiError::internal(&error))?,
        );
    }
    Ok((headers, Json(page.into_iter().map(view).collect())))
}

/// Tells a deployment's approval.
#[utoipa::path(
    get, path = "/approvals/deployments/{id}", tag = "approvals", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses((status = OK, body = ApprovalView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(State(api): Shared, Path(id): Path<String>) -> Result<Json<ApprovalView>, ApiError> {
    Ok(Json(view(&find(&api, deployment_id(&id)?).await?)))
}

/// Lets a deployment begin.
#[utoipa::path(
    post, path = "/approvals/deployments/{id}/approve", tag = "approvals", security(("bearer" = ["Admin"])), request_body = ApprovalDecision,
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses(
        (status = OK, body = ApprovalView), (status = BAD_REQUEST, body = ErrorBody), (status = FORBIDDEN, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody), (status = CONFLICT, body = ErrorBody),
    )
)]
pub(super) async fn approve(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    decide(&api, &id, &call, &body, true).await
}

/// Ends a deployment before it begins.
#[utoipa::path(
    post, path = "/approvals/deployments/{id}/reject", tag = "approvals", security(("bearer" = ["Admin"])), request_body = ApprovalDecision,
    params(("id" = String, Path, description = "The deployment's executionId.")),
    responses(
        (status = OK, body = ApprovalView), (status = BAD_REQUEST, body = ErrorBody), (status = FORBIDDEN, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody), (status = CONFLICT, body = ErrorBody),
    )
)]
pub(super) async fn reject(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    decide(&api, &id, &call, &body, false).await
}

async fn decide(
    api: &Api,
    id: &str,
    call: &Call,
    body: &JsonObject,
    approve: bool,
) -> Result<Response, ApiError> {
    call.actor.person()?;
    let found = find(api, deployment_id(id)?).await?;
    let given = api.access.me(&call.actor)?.password_given;
    if given.is_some_and(|given| given >= found.requested.wall) {
        let error = format!(
            "the account {} was made, or given a password, after this was asked for: whoever did so could be speaking; \
             another person must decide",
            call.actor.subject
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, "account_too_new", error));
    }
    let deployment = found.id;
    let mut form = Form::new(&body.fields);
    let email = form.email("approverEmail");
    let reason = form.text("reason").map(str::to_owned);
    if reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > REASON_LEN_MAX)
    {
        form.faults
            .push(format!("reason: must be at most {REASON_LEN_MAX} characters"));
    }
    let Some(email) = email.filter(|_| form.faults.is_empty()) else {
        return Err(ApiError::validation(form.faults));
    };
    let command = Command::Decide {
        deployment,
        approve,
        by: call.subject(),
        email,
        reason,
    };
    let trace_id = call.trace_id.clone();
    let answer = move |state: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match (
        outcome.result,
        state.deployment(&deployment),
    ) {
        (Err(refusal), _) => commands::refusal(refusal, &trace_id),
        (Ok(_), decided) => commands::answer(StatusCode::OK, None, &decided.map(view)),
    };
    commands::run(api, call, &body.bytes, command, Box::new(answer)).await
}

fn values_of(deployment: &Deployment) -> BTreeMap<String, u64> {
    let values = deployment.values.iter().flatten();
    let set = values.filter(|(_, number)| **number > 0);
    set.map(|(place, number)| (place.to_string(), *number)).collect()
}

fn view(deployment: &Deployment) -> ApprovalView {
    let needed = deployment.stage_index(&StageKind::Approval).is_some();
    let requested = rfc3339(deployment.requested.wall);
    let (status, responded_at) = match &deployment.approval {
        Some(approval) => (
            if approval.approved { "Approved" } else { "Rejected" },
            Some(rfc3339(approval.at)),
        ),
        None if !needed => ("AutoApproved", Some(requested.clone())),
        None if deployment.status == DeploymentStatus::PendingApproval => ("Pending", None),
        None => ("Expired", deployment.ended.map(|ended| rfc3339(ended.wall))),
    };
    let approval = deployment.approval.as_ref();
    let given = deployment.approvals.iter().chain(approval);
    let given = given.filter(|approval| approval.approved);
    ApprovalView {
        approval_id: deployment.id.to_string(),
        deployment_execution_id: deployment.id.to_string(),
        module_name: deployment.module.to_string(),
        version: version_of(deployment),
        target_environment: deployment.target.to_string(),
        requester_email: deployment.requester_email.clone(),
        status,
        requested_at: requested,
        responded_at,
        responded_by: approval.map(|approval| approval.email.clone()),
        response_reason: approval.and_then(|approval| approval.reason.clone()),
        timeout_at: deployment.approval_until.map(rfc3339),
        requester: deployment.requester.clone(),
        approved_by: given.map(|approval| approval.by.clone()).collect(),
        values: values_of(deployment),
        approvals_needed: if needed { deployment.approvers.needed } else { 0 },
    }
}
