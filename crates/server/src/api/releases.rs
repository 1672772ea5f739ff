//! What may be deployed of a module: revoking a version, and the oldest that is taken.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::{Command, Refusal};
use hotswap_core::ids::ModuleName;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::Call;
use super::versions::module_name;
use super::{Api, ApiError, ErrorBody, Shared, commands};
use crate::views::module::{ModuleView, view};

/// Longest reason, in characters.
const REASON_LEN_MAX: usize = 500;

/// Why a version is revoked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "describes the body in the API's document; the body is read field by field"
)]
pub(super) struct Revocation {
    /// For people.
    #[schema(example = "its signing key was stolen")]
    reason: String,
}

/// The oldest version that deployments take.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "describes the body in the API's document; the body is read field by field"
)]
pub(super) struct MinimumVersion {
    /// A version; null lets any be deployed.
    #[schema(example = "2.1.0")]
    version: Option<String>,
}

/// Revokes a version for good: no deployment and no rollback takes it again. Where it runs it stays until something
/// else is rolled out.
#[utoipa::path(
    post, path = "/modules/{name}/versions/{version}/revoke", tag = "modules", security(("bearer" = ["Admin"])), request_body = Revocation,
    params(("name" = String, Path, description = "The module."), ("version" = String, Path, description = "The version.")),
    responses(
        (status = OK, body = ModuleView), (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn revoke(
    State(api): Shared,
    Path((name, version)): Path<(String, String)>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let module = module_name(&name)?;
    let version = version
        .parse()
        .map_err(|error| ApiError::not_found("unknown_version", format!("no such version: {error}")))?;
    let reason = match body.fields.get("reason") {
        Some(Value::String(reason)) if (1..=REASON_LEN_MAX).contains(&reason.trim().chars().count()) => {
            reason.trim().to_owned()
        }
        _ => {
            let fault = format!("reason: give a sentence of 1 to {REASON_LEN_MAX} characters");
            return Err(ApiError::validation(vec![fault]));
        }
    };
    let command = Command::Revoke {
        module: module.clone(),
        version,
        reason,
        by: call.subject(),
    };
    run(&api, &call, &body, module, command).await
}

/// Sets the oldest version that deployments of a module take. A rollback, which is recorded, may go below it.
#[utoipa::path(
    put, path = "/modules/{name}/minimum-version", tag = "modules", security(("bearer" = ["Admin"])), request_body = MinimumVersion,
    params(("name" = String, Path, description = "The module.")),
    responses(
        (status = OK, body = ModuleView), (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn set_minimum(
    State(api): Shared,
    Path(name): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let module = module_name(&name)?;
    let version = match body.fields.get("version") {
        Some(Value::Null) => Ok(None),
        Some(Value::String(version)) => version.parse().map(Some).map_err(|_| ()),
        _ => Err(()),
    };
    let version = version.map_err(|()| {
        ApiError::validation(vec![
            "version: give a semantic version such as \"2.1.0\", or null".to_owned(),
        ])
    })?;
    let command = Command::SetMinimumVersion {
        module: module.clone(),
        version,
        by: call.subject(),
    };
    run(&api, &call, &body, module, command).await
}

async fn run(
    api: &Api,
    call: &Call,
    body: &JsonObject,
    module: ModuleName,
    command: Command,
) -> Result<Response, ApiError> {
    let trace_id = call.trace_id.clone();
    let answer = move |state: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match (
        outcome.result,
        state.modules.get(&module),
    ) {
        (Ok(_), Some(found)) => commands::answer(StatusCode::OK, None, &view(&module, found, state)),
        (Ok(_), None) => commands::refusal(
            &Refusal::UnknownModule {
                module: module.clone(),
                known: Vec::new(),
            },
            &trace_id,
        ),
        (Err(refusal), _) => commands::refusal(refusal, &trace_id),
    };
    commands::run(api, call, &body.bytes, command, Box::new(answer)).await
}
