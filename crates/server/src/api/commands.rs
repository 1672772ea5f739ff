//! From a command to its answer.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hotswap_core::command::{Command, Refusal};
use serde::Serialize;

use super::call::Call;
use super::error::retry_later;
use super::{Api, ApiError};
use crate::driver::{Answerer, SubmitError};
use crate::store::Answer;

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
    let idempotency = call.idempotency(body);
    if let Some(key) = &idempotency
        && let Some(first) = api.store.first_answer(key.scope.clone(), key.key.clone()).await?
    {
        if first.key.fingerprint != key.fingerprint {
            return Err(SubmitError::KeyReused.into());
        }
        let mut response = into_response(first.answer);
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(response);
    }
    Ok(into_response(
        api.driver.submit(command, idempotency, answer).await?,
    ))
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
