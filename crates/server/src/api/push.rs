//! `POST /modules`: a package, streamed.

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use hotswap_core::command::Command;
use hotswap_core::release::Release;
use hotswap_package::{ManifestError, Package, PackageError};
use hotswap_trust::{Check, TrustError, Verdict};

use super::call::Call;
use super::push_body::{self, Pushed};
use super::{Api, ApiError, BASE, ErrorBody, Shared, commands};
use crate::registry::{ReceiveError, Received};
use crate::trust;
use crate::views::module::{PushedView, kind};

/// Bytes that are read and dropped of a body that is too large, so that its sender gets to read why.
pub(super) const DROPPED_BYTES_MAX: usize = 64 << 20;

/// Records a release. The body is a package file as `hotswap module pack` writes it, or a form (multipart/form-data) of
/// its parts `package` and `signature`: a detached CMS signature in DER.
#[utoipa::path(
    post, path = "/modules", tag = "modules", security(("bearer" = ["Deployer"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The package file."),
    responses(
        (status = CREATED, body = PushedView), (status = OK, body = PushedView, description = "The same bytes are there already."),
        (status = BAD_REQUEST, body = ErrorBody), (status = CONFLICT, body = ErrorBody, description = "Other bytes are there under this version."),
        (status = UNPROCESSABLE_ENTITY, body = ErrorBody, description = "The signature is missing or not trusted; the code says which check failed."),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody), (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = REQUEST_TIMEOUT, body = ErrorBody, description = "Nothing came for 30 s."),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn push(
    State(api): Shared,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let pushed = push_body::receive(&api.registry, &headers, body).await?;
    let Pushed {
        package: received,
        signature,
    } = pushed;
    let package = received.package().await.map_err(|error| faulty(&error))?;
    if let Some(problem) = package.manifest.kind.artifact_problem(&package.artifact) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "wrong_kind", problem));
    }
    let judged = trust::judge(
        &api.gate,
        package.digest,
        package.manifest.name.clone(),
        signature.clone(),
    );
    let verdict = judged.await.map_err(|error| untrusted(&error))?;
    record(
        &api,
        &call,
        Admitted {
            received,
            signature,
            verdict,
        },
        package,
    )
    .await
}

/// A package with what is known of its signature.
struct Admitted<'a> {
    received: Received<'a>,
    signature: Option<Bytes>,
    verdict: Verdict,
}

/// Keeps the bytes, then records the release: what the log names is always there.
async fn record(
    api: &Api,
    call: &Call,
    admitted: Admitted<'_>,
    package: Package,
) -> Result<Response, ApiError> {
    let Admitted {
        received,
        signature,
        verdict,
    } = admitted;
    let needs = hotswap_package::needs(&package.manifest, &package.artifact);
    let Package { manifest, digest, .. } = package;
    let (module, version, size) = (manifest.name, manifest.version, received.size);
    let kind = kind(manifest.kind);
    let signed_by = verdict
        .signer()
        .map(|signer| format!("{} (sha256:{})", signer.subject, signer.fingerprint));
    let pushed_at = api.world().now().wall;
    let release = Release {
        digest,
        kind,
        size,
        pushed_at,
        pushed_by: call.subject(),
        signed_by: signed_by.clone(),
        needs,
    };
    let view = PushedView {
        module_name: module.to_string(),
        version: version.to_string(),
        digest: digest.to_string(),
        size,
        kind: kind.name(),
        signed_by,
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
    commands::within_scope(api, call, &command)?;
    api.registry
        .keep(received)
        .await
        .map_err(|error| refused(&error.into()))?;
    if let Some(signature) = signature {
        api.registry
            .keep_signature(&digest, signature)
            .await
            .map_err(|error| refused(&error.into()))?;
    }
    commands::run(api, call, digest.hex().as_bytes(), command, Box::new(answer)).await
}

pub(super) async fn drop_rest(mut stream: BodyDataStream) {
    let mut dropped = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        dropped += chunk.len();
        if dropped > DROPPED_BYTES_MAX {
            return;
        }
    }
}

pub(super) fn refused(error: &ReceiveError) -> ApiError {
    let (status, code) = match error {
        ReceiveError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "package_too_large"),
        ReceiveError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        ReceiveError::BrokenOff { .. } | ReceiveError::Empty => (StatusCode::BAD_REQUEST, "broken_body"),
        ReceiveError::Silent { .. } => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
        ReceiveError::Full => (StatusCode::SERVICE_UNAVAILABLE, "read_only"),
        ReceiveError::Io(cause) => return ApiError::internal(cause),
    };
    ApiError::new(status, code, error.to_string())
}

/// A signature that is none is the sender's mistake; one that isn't trusted is a refusal of what was sent.
fn untrusted(error: &TrustError) -> ApiError {
    let status = match error.check {
        Check::SignatureSize => StatusCode::PAYLOAD_TOO_LARGE,
        Check::Policy => StatusCode::SERVICE_UNAVAILABLE,
        check if check.is_malformed() => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    ApiError::new(status, error.check.code(), error.to_string())
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
