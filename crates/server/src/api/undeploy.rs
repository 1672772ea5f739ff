//! `POST /modules/{name}/undeploy`: a module leaves an environment.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::Command;
use hotswap_core::ids::{DeploymentId, EnvName};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::JsonObject;
use super::call::Call;
use super::create::{Form, location};
use super::error::CommandRefused;
use super::params::environment;
use super::versions::{module_name, unknown_module};
use super::{Api, ApiError, Shared, commands};
use crate::access::Role;

/// Where from, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct Undeploy {
    /// An environment, in any case.
    #[schema(example = "Staging")]
    pub environment: String,
}

/// An unloading that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UndeployView {
    /// The deployment that does it; it can be watched.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// InProgress.
    pub status: &'static str,
    /// How many nodes it concerns.
    pub nodes_affected: u32,
}

/// Unloads a module from every node of an environment. A rollout that is under way there ends.
#[utoipa::path(
    post, path = "/modules/{name}/undeploy", tag = "modules", security(("bearer" = ["Deployer"])), request_body = Undeploy,
    params(
        ("name" = String, Path, description = "The module."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer."),
    ),
    responses(
        (status = ACCEPTED, body = UndeployView, headers(("Location" = String, description = "The deployment that does it."))),
        CommandRefused,
    )
)]
pub(super) async fn undeploy(
    State(api): Shared,
    Path(name): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let module = module_name(&name)?;
    let mut form = Form::new(&body.fields);
    let found = form.required("environment").and_then(|text| {
        let found = environment(&api.world().state(), text).map(|environment| environment.name.clone());
        form.check("environment", found)
    });
    let environment = form.read(found)?;
    {
        let state = api.world().state();
        if !state.modules.contains_key(&module) {
            return Err(unknown_module(&state, module));
        }
    }
    if call.actor.role < Role::Admin {
        guarded(&api, &environment)?;
    }
    let id = DeploymentId(Uuid::new_v4());
    let trace_id = call.trace_id.clone();
    let command = Command::Undeploy {
        id,
        trace_id: trace_id.clone(),
        module,
        environment,
        by: call.subject(),
    };
    let answer =
        move |_: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match outcome.result {
            Ok(reply) => {
                let view = UndeployView {
                    execution_id: id.to_string(),
                    status: "InProgress",
                    nodes_affected: reply.nodes_affected,
                };
                commands::answer(StatusCode::ACCEPTED, Some(location(id)), &view)
            }
            Err(refusal) => commands::refusal(refusal, &trace_id),
        };
    commands::run(&api, &call, &body.bytes, command, Box::new(answer)).await
}

/// Refuses what takes a module from every node at once, where an environment asks for more than one person's word or takes
/// no changes now.
fn guarded(api: &Api, environment: &EnvName) -> Result<(), ApiError> {
    let now = api.world().now().wall;
    let state = api.world().state();
    let Ok(found) = state.environment(environment) else {
        return Ok(());
    };
    let why = if found.approval_required {
        "deployments to it need an approval"
    } else if found.freezes.iter().any(|window| window.until(now).is_some()) {
        "it is frozen now"
    } else {
        return Ok(());
    };
    let error = format!("undeploying from {environment} needs the role Admin: {why}");
    Err(ApiError::new(StatusCode::FORBIDDEN, "role_required", error))
}
