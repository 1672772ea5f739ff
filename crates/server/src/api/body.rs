//! JSON bodies, from anybody.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::LengthLimitError;
use serde_json::{Map, Value};

use super::ApiError;
use super::params::shown;

/// Largest JSON body, in bytes: every field at its limit stays far below.
pub(super) const BODY_BYTES_MAX: usize = 256 << 10;

/// How long a client may take to send a JSON body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// A JSON object, and the bytes that it was read from.
#[derive(Debug)]
pub(super) struct JsonObject {
    pub(super) fields: Map<String, Value>,
    pub(super) bytes: Bytes,
}

/// A JSON object, or nothing at all.
#[derive(Debug)]
pub(super) struct MaybeJson(pub(super) JsonObject);

impl<S: Sync> FromRequest<S> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let bytes = read(request).await?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request("the body is empty; send a JSON object"));
        }
        parse(bytes)
    }
}

impl<S: Sync> FromRequest<S> for MaybeJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let typed = check_type(request.headers());
        let bytes = read(request).await?;
        if bytes.is_empty() {
            return Ok(Self(JsonObject {
                fields: Map::new(),
                bytes,
            }));
        }
        typed?;
        parse(bytes).map(Self)
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("none");
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let given = shown(given);
    let error = format!("the Content-Type must be application/json, not {given}");
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_type",
        error,
    ))
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), BODY_BYTES_MAX));
    let late = |_| {
        let error = format!(
            "the body took more than {} s, the most it may",
            BODY_TIMEOUT.as_secs()
        );
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", error)
    };
    bytes.await.map_err(late)?.map_err(|error| {
        let too_large = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
        if too_large {
            let error = format!("the body has more than {BODY_BYTES_MAX} bytes, the most that is accepted");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", error)
        } else {
            ApiError::bad_request("the body broke off; send it again")
        }
    })
}

fn parse(bytes: Bytes) -> Result<JsonObject, ApiError> {
    let malformed = |error: String| ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", error);
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(JsonObject { fields, bytes }),
        Ok(_) => Err(malformed("the body must be a JSON object".to_owned())),
        Err(error) => Err(malformed(format!("the body is not JSON: {error}"))),
    }
}
