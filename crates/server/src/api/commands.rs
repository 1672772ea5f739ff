//! From a command to its answer.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hotswap_core::command::{Command, Refusal};
use hotswap_core::ids::{EnvName, ModuleName};
use hotswap_core::state::State;
use serde::Serialize;

use super::call::Call;
use super::error::retry_later;
use super::{Api, ApiError};
use crate::access::Once;
use crate::clock::wall_now;
use crate::driver::{Answerer, SubmitError};
use crate::store::{Answer, FirstAnswer, IdempotencyKey};

/// Says that an answer is the first one to the same request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Has a command decided, once: a retry under the same key gets the first answer.
pub(super) async fn run(
    api: &Api,
    call: &Call,
    body: &[u8],
    command: Command,
    answer: Answerer,
) -> Result<Response, ApiError> {
    within_scope(api, call, &command)?;
    let idempotency = call.idempotency(body);
    if let Some(first) = replay(api, idempotency.as_ref()).await? {
        return Ok(first);
    }
    Ok(into_response(
        api.driver
            .submit(call.origin(), command, idempotency, answer)
            .await?,
    ))
}

/// The first answer under a key, if there is one.
async fn replay(api: &Api, key: Option<&IdempotencyKey>) -> Result<Option<Response>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let Some(first) = api.store.first_answer(key.scope.clone(), key.key.clone()).await? else {
        return Ok(None);
    };
    if first.key.fingerprint != key.fingerprint {
        return Err(SubmitError::KeyReused.into());
    }
    let mut response = into_response(first.answer);
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Some(response))
}

/// Something is made that is no command, once: a retry under the same key gets the first answer, without what was told
/// only once.
pub(super) enum Making<'a> {
    /// It was made before: this is the first answer.
    Replayed(Response),
    /// It is to be made, under this key.
    First(First<'a>),
}

/// A making's turn: two retries at once are one after the other.
pub(super) struct First<'a> {
    key: Option<IdempotencyKey>,
    _turn: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl<'a> Making<'a> {
    pub(super) async fn begin(api: &'a Api, call: &Call, body: &[u8]) -> Result<Self, ApiError> {
        let key = call.idempotency(body);
        let turn = match &key {
            Some(_) => Some(api.making.lock().await),
            None => None,
        };
        Ok(match replay(api, key.as_ref()).await? {
            Some(first) => Self::Replayed(first),
            None => Self::First(First { key, _turn: turn }),
        })
    }
}

impl First<'_> {
    /// What keeps the answer with what is made.
    pub(super) fn once<T, V: Serialize>(
        &mut self,
        status: StatusCode,
        kept: impl FnOnce(&T) -> V + Send + 'static,
    ) -> Option<Once<T>> {
        let key = self.key.take()?;
        Some(Box::new(move |made| FirstAnswer {
            key,
            wall: wall_now(),
            answer: answer(status, None, &kept(made)),
        }))
    }
}

/// Refuses what a token is not for.
pub(super) fn within_scope(api: &Api, call: &Call, command: &Command) -> Result<(), ApiError> {
    let mut scope = call.actor.scope.clone();
    if matches!(command, Command::PushRelease { .. }) {
        // What is pushed goes nowhere by itself.
        scope.environments.clear();
    }
    if scope.is_everything() {
        return Ok(());
    }
    let refused = {
        let state = api.world().state();
        let (module, environment) = concerned(&state, command);
        // A node that is moved is taken away as well as given.
        let leaves = match command {
            Command::MoveNode { node, .. } => state.nodes.get(node).map(|found| &found.environment),
            _ => None,
        };
        let left = leaves.and_then(|environment| scope.refuses(module.as_ref(), Some(environment)));
        left.or_else(|| scope.refuses(module.as_ref(), environment.as_ref()))
    };
    match refused {
        None => Ok(()),
        Some(why) => {
            let (action, ..) = crate::audit::command_named(command);
            api.access
                .denied(Some(&call.actor), &call.source, action, "scope");
            Err(ApiError::new(StatusCode::FORBIDDEN, "scope", why))
        }
    }
}

/// The one module and the one environment that a command is about, where there is one.
fn concerned(state: &State, command: &Command) -> (Option<ModuleName>, Option<EnvName>) {
    match command {
        Command::PushRelease { module, .. }
        | Command::Hold { module, .. }
        | Command::LiftHold { module, .. }
        | Command::Revoke { module, .. }
        | Command::SetMinimumVersion { module, .. }
        | Command::Yank { module, .. }
        | Command::Unyank { module, .. } => (Some(module.clone()), None),
        Command::Deploy(request) => (Some(request.module.clone()), Some(request.target.clone())),
        Command::Undeploy {
            module, environment, ..
        }
        | Command::SetValues {
            module, environment, ..
        } => (Some(module.clone()), Some(environment.clone())),
        Command::MoveNode { environment, .. } => (None, Some(environment.clone())),
        Command::Decide { deployment, .. }
        | Command::Abort { deployment, .. }
        | Command::RollBack { deployment, .. }
        | Command::Pause { deployment, .. }
        | Command::Resume { deployment, .. }
        | Command::SkipStep { deployment, .. }
        | Command::Promote { deployment, .. } => {
            let found = state.deployment(deployment);
            found.map_or((None, None), |found| {
                (Some(found.module.clone()), Some(found.target.clone()))
            })
        }
        Command::SetLabels { node, .. }
        | Command::Drain { node, .. }
        | Command::Undrain { node, .. }
        | Command::RemoveNode { node, .. } => {
            let found = state.nodes.get(node);
            (None, found.map(|found| found.environment.clone()))
        }
        Command::Configure { .. } | Command::AdoptFleet { .. } => (None, None),
    }
}

/// An answer in words of the contract.
pub(super) fn answer(status: StatusCode, location: Option<String>, body: &impl Serialize) -> Answer {
    let body = serde_json::to_value(body).expect("answers are plain data");
    Answer {
        status: status.as_u16(),
        location,
        body,
    }
}

/// A refusal as an answer, so that it too can be the first one.
pub(super) fn refusal(refusal: &Refusal, trace_id: &str) -> Answer {
    let error = ApiError::refused(refusal);
    answer(error.status, None, &error.body(trace_id))
}

fn into_response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(answer.body)).into_response();
    if let Some(location) = answer
        .location
        .and_then(|location| HeaderValue::from_str(&location).ok())
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    retry_later(&mut response);
    response
}
