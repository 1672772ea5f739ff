//! Steering deployments: rollback, abort, pause, resume, skip, promote.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::{Command, Refusal};
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::{Deployment, DeploymentStatus, Purpose};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::MaybeJson;
use super::call::Call;
use super::create::location;
use super::deployments::acknowledged;
use super::params::deployment_id;
use super::{Api, ApiError, ErrorBody, Shared, commands};
use crate::views::deployment::{status_name, version_of};

/// A rollback that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RollbackView {
    /// The deployment that does it; it can be watched.
    #[schema(format = "uuid")]
    pub rollback_id: String,
    /// InProgress.
    pub status: &'static str,
    /// How many nodes it concerns.
    pub nodes_affected: u32,
}

/// A word of an operator that was taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AcknowledgedView {
    /// The deployment.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// How it stands now.
    pub status: String,
}

/// Undoes a finished deployment whose release is its target's stable one.
#[utoipa::path(
    post, path = "/deployments/{id}/rollback", tag = "deployments", security(("bearer" = ["Deployer"])),
    params(("id" = String, Path, description = "The deployment's executionId."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = ACCEPTED, body = RollbackView, headers(("Location" = String, description = "The deployment that does it."))),
        (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn rollback(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let of = deployment_id(&id)?;
    let archived = archived(&api, of).await?;
    let trace_id = call.trace_id.clone();
    let rollback = DeploymentId(Uuid::new_v4());
    let command = Command::RollBack {
        deployment: of,
        id: rollback,
        trace_id: trace_id.clone(),
        by: call.subject(),
    };
    let answer =
        move |_: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match outcome.result {
            Ok(reply) => {
                let view = RollbackView {
                    rollback_id: rollback.to_string(),
                    status: "InProgress",
                    nodes_affected: reply.nodes_affected,
                };
                commands::answer(StatusCode::ACCEPTED, Some(location(rollback)), &view)
            }
            // State has forgotten it, so the core can't tell why: its record can.
            Err(Refusal::UnknownDeployment(_)) if archived.is_some() => {
                let reason = archived.as_ref().map(why_not).unwrap_or_default();
                commands::refusal(&Refusal::NotNow(reason), &trace_id)
            }
            Err(refusal) => commands::refusal(refusal, &trace_id),
        };
    commands::run(&api, &call, &body.bytes, command, Box::new(answer)).await
}

/// The record of a deployment that State no longer holds.
async fn archived(api: &Api, id: DeploymentId) -> Result<Option<Deployment>, ApiError> {
    if api.world().state().deployment(&id).is_some() {
        return Ok(None);
    }
    Ok(api.store.deployment(id).await?)
}

/// Why a deployment that State has forgotten can't be rolled back: were its release still its target's stable one,
/// State would know it.
fn why_not(record: &Deployment) -> String {
    let (id, module, target) = (record.id, &record.module, &record.target);
    match (&record.purpose, record.status) {
        (Purpose::Reverse { .. }, _) => {
            format!("deployment {id} is itself a rollback; deploy the version that you want instead")
        }
        (Purpose::Deploy, DeploymentStatus::Succeeded) => {
            format!(
                "{module} {} of deployment {id} is no longer stable in {target}",
                version_of(record)
            )
        }
        (Purpose::Deploy, status) => {
            format!(
                "deployment {id} is {}: there is nothing of it to roll back",
                status_name(status)
            )
        }
    }
}

macro_rules! control {
    ($(#[$doc:meta])* $name:ident, $path:literal, $command:ident) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "deployments", security(("bearer" = ["Deployer"])),
            params(("id" = String, Path, description = "The deployment's executionId."),
                ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
            responses(
                (status = ACCEPTED, body = AcknowledgedView),
                (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
            )
        )]
        pub(super) async fn $name(
            State(api): Shared,
            Path(id): Path<String>,
            call: Call,
            MaybeJson(body): MaybeJson,
        ) -> Result<Response, ApiError> {
            let deployment = deployment_id(&id)?;
            let command = Command::$command { deployment, by: call.subject() };
            steer(&api, &call, deployment, &body.bytes, command).await
        }
    };
}

control!(
    /// Ends a running deployment and takes it back where it is under way.
    abort, "/deployments/{id}/abort", Abort
);
control!(
    /// Stops a deployment from moving forward; harm is still detected.
    pause, "/deployments/{id}/pause", Pause
);
control!(
    /// Lets a paused or held deployment move forward again.
    resume, "/deployments/{id}/resume", Resume
);
control!(
    /// Passes the current step's gate by a person's word.
    skip, "/deployments/{id}/skip", SkipStep
);
control!(
    /// Passes all gates of the running rollout by a person's word; nodes must still be healthy.
    promote, "/deployments/{id}/promote", Promote
);

async fn steer(
    api: &Api,
    call: &Call,
    id: DeploymentId,
    body: &[u8],
    command: Command,
) -> Result<Response, ApiError> {
    let archived = archived(api, id).await?.map(|record| status_name(record.status));
    let trace_id = call.trace_id.clone();
    let answer = move |state: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match (
        outcome.result,
        archived,
    ) {
        (Ok(_), _) => commands::answer(StatusCode::ACCEPTED, Some(location(id)), &acknowledged(id, state)),
        (Err(Refusal::UnknownDeployment(_)), Some(status)) => {
            let reason = format!("deployment {id} has ended: it is {status}");
            commands::refusal(&Refusal::NotNow(reason), &trace_id)
        }
        (Err(refusal), _) => commands::refusal(refusal, &trace_id),
    };
    commands::run(api, call, body, command, Box::new(answer)).await
}
