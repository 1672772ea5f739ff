//! A module's values in an environment, read and set.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::Command;
use hotswap_core::ids::{EnvName, ModuleName};
use hotswap_core::state::State as CoreState;
use hotswap_core::values::Values;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::Call;
use super::create::Form;
use super::error::CommandRefused;
use super::params::{environment, shown};
use super::versions::{module_name, unknown_module};
use super::{Api, ApiError, ErrorBody, Shared, commands};

/// All values of a module in an environment, as the document describes them.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct SetValues {
    /// By variable's name: at most 64, of at most 4096 bytes each and 16384 together. `env:NAME` and `file:NAME` are
    /// secrets that nodes put in.
    pub values: BTreeMap<String, String>,
    /// The number of the values that these replace, 0 for none; a 409 if there are others by now.
    pub expected: Option<u64>,
}

/// A module's values in an environment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ValuesView {
    /// The module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// The environment.
    #[schema(example = "Production")]
    pub environment: String,
    /// The number of these values, counted by module; 0 where none were ever set.
    pub number: u64,
    /// All of them.
    pub values: BTreeMap<String, String>,
    /// The number that the stable release runs under; null where nothing is stable. Where it is another, a deployment
    /// of the same version makes these count.
    #[schema(required)]
    pub running_number: Option<u64>,
    /// The version that is stable; null where none is.
    #[schema(required)]
    pub running_version: Option<String>,
}

/// Tells the values that an environment gives a module.
#[utoipa::path(
    get, path = "/modules/{name}/config/{environment}", tag = "modules", security(("bearer" = ["Viewer"])),
    params(
        ("name" = String, Path, description = "The module."),
        ("environment" = String, Path, description = "The environment, in any case."),
    ),
    responses((status = OK, body = ValuesView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(
    State(api): Shared,
    Path((name, env)): Path<(String, String)>,
) -> Result<Json<ValuesView>, ApiError> {
    let (module, environment) = named(&api, &name, &env)?;
    Ok(Json(view(&api.world().state(), &module, &environment)))
}

/// Gives a module other values in an environment: all of them, so that what is left out is gone. Each change has a
/// number. It takes effect by a deployment: of the same version, it rolls out nothing but the values.
#[utoipa::path(
    put, path = "/modules/{name}/config/{environment}", tag = "modules", security(("bearer" = ["Deployer"])),
    request_body = SetValues,
    params(
        ("name" = String, Path, description = "The module."),
        ("environment" = String, Path, description = "The environment, in any case."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer."),
    ),
    responses(
        (status = OK, body = ValuesView), (status = CONFLICT, body = ErrorBody), CommandRefused,
    )
)]
pub(super) async fn set(
    State(api): Shared,
    Path((name, env)): Path<(String, String)>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let (module, environment) = named(&api, &name, &env)?;
    let mut form = Form::new(&body.fields);
    let expected = form.number("expected");
    let values = values(&mut form);
    let values = form.read(values)?;
    let trace_id = call.trace_id.clone();
    let command = Command::SetValues {
        module: module.clone(),
        environment: environment.clone(),
        values,
        expected,
        by: call.subject(),
    };
    let answer = move |state: &CoreState, outcome: crate::driver::Outcome<'_>| match outcome.result {
        Ok(_) => commands::answer(StatusCode::OK, None, &view(state, &module, &environment)),
        Err(refusal) => commands::refusal(refusal, &trace_id),
    };
    commands::run(&api, &call, &body.bytes, command, Box::new(answer)).await
}

fn named(api: &Api, module: &str, env: &str) -> Result<(ModuleName, EnvName), ApiError> {
    let module = module_name(module)?;
    let state = api.world().state();
    if !state.modules.contains_key(&module) {
        return Err(unknown_module(&state, module));
    }
    let environment =
        environment(&state, env).map_err(|error| ApiError::not_found("unknown_environment", error))?;
    Ok((module, environment.name.clone()))
}

/// The values, whose faults tell which; the core knows the limits.
fn values(form: &mut Form<'_>) -> Option<Values> {
    let Some(Value::Object(entries)) = form.fields.get("values") else {
        form.fault("values", "is required, and must be an object of strings");
        return None;
    };
    let mut values = Values::new();
    for (key, value) in entries {
        match value {
            Value::String(text) => drop(values.insert(key.clone(), text.clone())),
            _ => {
                let key = shown(key);
                form.fault("values", format!("the value of {key:?} must be a string"));
            }
        }
    }
    for fault in hotswap_core::values::faults(&values) {
        form.faults.push(fault);
    }
    Some(values)
}

fn view(state: &CoreState, module: &ModuleName, environment: &EnvName) -> ValuesView {
    let here = state.env_module(environment, module);
    let values = here.map(|here| &here.values);
    let stable = here
        .and_then(|here| here.stable.as_ref())
        .map(|stable| &stable.release);
    ValuesView {
        module_name: module.to_string(),
        environment: environment.to_string(),
        number: values.map_or(0, |values| values.newest),
        values: values
            .and_then(|values| values.current())
            .cloned()
            .unwrap_or_default(),
        running_number: stable.map(|stable| stable.config),
        running_version: stable.map(|stable| stable.version.to_string()),
    }
}
