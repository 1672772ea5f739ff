//! `POST /modules`: a package, streamed.

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures::StreamExt as _;
use hotswap_core::command::Command;
use hotswap_core::release::Release;
use hotswap_package::{ManifestError, Package, PackageError};

use super::call::Call;
use super::{Api, ApiError, BASE, ErrorBody, Shared, commands};
use crate::registry::{ReceiveError, Received};
use crate::views::module::{PushedView, kind};

/// Bytes that are read and dropped of a body that is too large, so that its sender gets to read why.
const DROPPED_BYTES_MAX: usize = 64 << 20;

/// Records a release. The body is a package file as `hotswap module pack` writes it.
#[utoipa::path(
    post, path = "/modules", tag = "modules", security(("bearer" = ["Deployer"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The package file."),
    responses(
        (status = CREATED, body = PushedView), (status = OK, body = PushedView, description = "The same bytes are there already."),
        (status = BAD_REQUEST, body = ErrorBody), (status = CONFLICT, body = ErrorBody, description = "Other bytes are there under this version."),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody), (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn push(
    State(api): Shared,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_type(&headers)?;
    let mut stream = body.into_data_stream();
    if let Err(error) = announced(&headers, api.registry.bytes_max()) {
        drop_rest(stream).await;
        return Err(refused(&error));
    }
    let received = match api.registry.receive(&mut stream).await {
        Ok(received) => received,
        Err(error) => {
            if matches!(error, ReceiveError::TooLarge { .. } | ReceiveError::Busy { .. }) {
                drop_rest(stream).await;
            }
            return Err(refused(&error));
        }
    };
    let package = received.package().await.map_err(|error| faulty(&error))?;
    if let Some(problem) = package.manifest.kind.artifact_problem(&package.artifact) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "wrong_kind", problem));
    }
    record(&api, &call, received, package).await
}

/// Keeps the bytes, then records the release: what the log names is always there.
async fn record(
    api: &Api,
    call: &Call,
    received: Received<'_>,
    package: Package,
) -> Result<Response, ApiError> {
    let Package { manifest, digest, .. } = package;
    let (module, version, size) = (manifest.name, manifest.version, received.size);
    let kind = kind(manifest.kind);
    api.registry
        .keep(received)
        .await
        .map_err(|error| refused(&error.into()))?;
    let pushed_at = api.world().now().wall;
    let release = Release {
        digest,
        kind,
        size,
        pushed_at,
        pushed_by: call.subject(),
    };
    let view = PushedView {
        module_name: module.to_string(),
        version: version.to_string(),
        digest: digest.to_string(),
        size,
        kind: kind.name(),
    };
    let location = format!("{BASE}/modules/{module}");
    let trace_id = call.trace_id.clone();
    let answer =
        move |_: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match outcome.result {
            Ok(_) => {
                let status = if outcome.changed {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                };
                commands::answer(status, Some(location), &view)
            }
            Err(refusal) => commands::refusal(refusal, &trace_id),
        };
    let command = Command::PushRelease {
        module,
        version,
        release,
    };
    commands::run(api, call, digest.hex().as_bytes(), command, Box::new(answer)).await
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if ["", "application/octet-stream", "application/x-tar"].contains(&essence.as_str()) {
        return Ok(());
    }
    let error = "a package is pushed as application/octet-stream: the file alone, as the whole body";
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_type",
        error,
    ))
}

fn announced(headers: &HeaderMap, max: u64) -> Result<(), ReceiveError> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max) {
        Err(ReceiveError::TooLarge { max })
    } else {
        Ok(())
    }
}

async fn drop_rest(mut stream: BodyDataStream) {
    let mut dropped = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        dropped += chunk.len();
        if dropped > DROPPED_BYTES_MAX {
            return;
        }
    }
}

fn refused(error: &ReceiveError) -> ApiError {
    let (status, code) = match error {
        ReceiveError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "package_too_large"),
        ReceiveError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        ReceiveError::BrokenOff { .. } | ReceiveError::Empty => (StatusCode::BAD_REQUEST, "broken_body"),
        ReceiveError::Full => (StatusCode::SERVICE_UNAVAILABLE, "read_only"),
        ReceiveError::Io(cause) => return ApiError::internal(cause),
    };
    ApiError::new(status, code, error.to_string())
}

fn faulty(error: &PackageError) -> ApiError {
    if let PackageError::Io(cause) = error {
        return ApiError::internal(cause);
    }
    let details = match error {
        PackageError::Manifest(ManifestError::Faults(faults)) => {
            faults.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    ApiError::new(StatusCode::BAD_REQUEST, "faulty_package", error.to_string()).with_details(details)
}
