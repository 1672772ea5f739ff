//! Every error's document: {error, details?, traceId, code}.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hotswap_core::command::{Refusal, RefusalKind};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::access::Actor;
use crate::driver::SubmitError;
use crate::store::StoreError;

/// When to come back after a 503, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// An error as clients get it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What is wrong, and what to do.
    pub error: String,
    /// Each fault, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// The request's W3C trace id.
    pub trace_id: String,
    /// A stable word for programs.
    pub code: &'static str,
}

/// How a command that has a body may be refused: for the document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the document is all that it is for")]
pub(super) enum CommandRefused {
    #[response(status = BAD_REQUEST)]
    BadRequest(ErrorBody),
    #[response(status = NOT_FOUND)]
    NotFound(ErrorBody),
    #[response(status = PAYLOAD_TOO_LARGE)]
    PayloadTooLarge(ErrorBody),
    #[response(status = UNSUPPORTED_MEDIA_TYPE)]
    UnsupportedMediaType(ErrorBody),
    #[response(status = UNPROCESSABLE_ENTITY)]
    UnprocessableEntity(ErrorBody),
    #[response(status = SERVICE_UNAVAILABLE)]
    ServiceUnavailable(ErrorBody),
}

/// Why a request was not answered as asked.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) error: String,
    pub(super) details: Vec<String>,
    /// When to come back, in s, where that is known.
    pub(super) retry_after_s: Option<u64>,
    /// Who was refused, for the audit log.
    pub(super) actor: Option<Box<Actor>>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self {
            status,
            code,
            error: error.into(),
            details: Vec::new(),
            retry_after_s: None,
            actor: None,
        }
    }

    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", error)
    }

    /// All faults of a request at once.
    pub(super) fn validation(faults: Vec<String>) -> Self {
        let error = match faults.as_slice() {
            [only] => format!("the request is not valid: {only}"),
            faults => format!("the request is not valid: {} faults", faults.len()),
        };
        Self::new(StatusCode::BAD_REQUEST, "validation", error).with_details(faults)
    }

    pub(super) fn not_found(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, error)
    }

    /// Something that is no client's fault. The cause goes to the log, never to the client.
    pub(super) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "a request failed");
        Self::internal_hidden()
    }

    pub(super) fn internal_hidden() -> Self {
        let error = "the server failed to answer; its log has more under this trace id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let status = match refusal.kind() {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Forbidden => StatusCode::FORBIDDEN,
            RefusalKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }

    pub(super) fn body(&self, trace_id: &str) -> ErrorBody {
        ErrorBody {
            error: self.error.clone(),
            details: self.details.clone(),
            trace_id: trace_id.to_owned(),
            code: self.code,
        }
    }

    /// The whole answer; the context knows the trace.
    pub(super) fn render(&self, trace_id: &str) -> Response {
        let mut response = (self.status, Json(self.body(trace_id))).into_response();
        retry_later(&mut response);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A refusal for lack of room says when to come back.
pub(super) fn retry_later(response: &mut Response) {
    if matches!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let (status, code) = match &error {
            SubmitError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            SubmitError::ReadOnly => (StatusCode::SERVICE_UNAVAILABLE, "read_only"),
            SubmitError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            SubmitError::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

/// The error travels as an extension until the context writes it out with the request's trace id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found(
        "unknown_route",
        format!("there is no {method} {path}; /openapi.json lists what there is"),
    )
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let error = format!("{path} does not take {method}; the Allow header lists what it takes");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error)
}
