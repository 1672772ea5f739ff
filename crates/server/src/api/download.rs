//! `GET /artifacts/{digest}`: a package's bytes, streamed, whole or in part.

use std::io::SeekFrom;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hotswap_core::ids::Digest;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::params::shown;
use super::{Api, ApiError, ErrorBody, Shared, etag};
use crate::registry::RegistryError;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Sends a package's bytes. Takes one `Range` of bytes; the `ETag` is the digest.
#[utoipa::path(
    get, path = "/artifacts/{digest}", tag = "modules", security(("bearer" = ["Viewer"])),
    params(
        ("digest" = String, Path, description = "sha256: and 64 hexadecimal digits; the digits alone will do."),
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT."),
        ("If-None-Match" = Option<String>, Header, description = "The digest, where the client has it."),
    ),
    responses(
        (status = OK, body = Vec<u8>, content_type = "application/octet-stream", headers(("ETag" = String, description = "The digest."))),
        (status = PARTIAL_CONTENT, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = NOT_MODIFIED, description = "The client has it."),
        (status = NOT_FOUND, body = ErrorBody), (status = RANGE_NOT_SATISFIABLE, body = ErrorBody),
    )
)]
pub(super) async fn artifact(
    State(api): Shared,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest = released(&api, &digest)?;
    let tag = etag::tag(&digest.to_string());
    if etag::matches(&headers, &tag) {
        return Ok(etag::not_modified(tag));
    }
    let (mut file, size) = api.registry.open_at(&digest, 0).await.map_err(unreadable)?;
    let fixed = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, tag.clone()),
        (header::CONTENT_DISPOSITION, disposition(&digest)),
    ];
    let range = headers.get(header::RANGE).filter(|_| same_bytes(&headers, &tag));
    match range.and_then(|range| part(range, size)) {
        None => {
            let length = [(header::CONTENT_LENGTH, HeaderValue::from(size))];
            let body = Body::from_stream(ReaderStream::with_capacity(file, CHUNK_BYTES));
            Ok((fixed, length, body).into_response())
        }
        Some(Err(())) => {
            let error = format!("the package has {size} bytes, and the Range asks for none of them");
            Err(ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                error,
            ))
        }
        Some(Ok((first, last))) => {
            let broken = |error: std::io::Error| ApiError::internal(&error);
            file.seek(SeekFrom::Start(first)).await.map_err(broken)?;
            let count = last - first + 1;
            let content: [(HeaderName, HeaderValue); 2] = [
                (header::CONTENT_LENGTH, HeaderValue::from(count)),
                (
                    header::CONTENT_RANGE,
                    HeaderValue::from_str(&format!("bytes {first}-{last}/{size}"))
                        .expect("numbers are plain text"),
                ),
            ];
            let body = Body::from_stream(ReaderStream::with_capacity(file.take(count), CHUNK_BYTES));
            Ok((StatusCode::PARTIAL_CONTENT, fixed, content, body).into_response())
        }
    }
}

/// A digest that a release has: others are nobody's business.
fn released(api: &Api, text: &str) -> Result<Digest, ApiError> {
    let whole = if text.contains(':') {
        text.to_owned()
    } else {
        format!("sha256:{text}")
    };
    let unknown = |digest: &str| {
        let digest = shown(digest);
        ApiError::not_found(
            "unknown_artifact",
            format!("no release has the digest {digest}; GET /api/v1/modules lists those there are"),
        )
    };
    let digest: Digest = whole.parse().map_err(|_| unknown(text))?;
    let state = api.world().state();
    let mut releases = state.modules.values().flat_map(|module| module.releases.values());
    if releases.any(|release| release.digest == digest) {
        Ok(digest)
    } else {
        Err(unknown(text))
    }
}

fn unreadable(error: RegistryError) -> ApiError {
    match error {
        RegistryError::Missing(_) => ApiError::not_found("artifact_missing", error.to_string()),
        other => ApiError::internal(&other),
    }
}

fn disposition(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&format!("attachment; filename=\"{}.hsm\"", digest.short()))
        .expect("a digest is plain text")
}

/// A part is only asked of the bytes that the client knows, where it says which.
fn same_bytes(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|given| given == tag)
}

/// The first and last byte that a `Range` asks for. `None`: not one range of bytes, so that it doesn't count;
/// `Err`: nothing of it is there.
fn part(range: &HeaderValue, size: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = range
        .to_str()
        .ok()?
        .trim()
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let number = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
    };
    let (first, last) = match (first, last) {
        ("", count) => {
            let count = number(count)?.min(size);
            if count == 0 {
                return Some(Err(()));
            }
            (size - count, size - 1)
        }
        (first, "") => (number(first)?, u64::MAX),
        (first, last) => (number(first)?, number(last)?),
    };
    if last < first {
        return None;
    }
    Some(if first < size {
        Ok((first, last.min(size - 1)))
    } else {
        Err(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |text: &str| part(&text.parse().unwrap(), 10);
        assert_eq!(part("bytes=0-3"), Some(Ok((0, 3))));
        assert_eq!(part("bytes=4-"), Some(Ok((4, 9))));
        assert_eq!(part("bytes=-3"), Some(Ok((7, 9))));
        assert_eq!(part("bytes=-99"), Some(Ok((0, 9))));
        assert_eq!(part("bytes=8-99"), Some(Ok((8, 9))));
        assert_eq!(part("bytes=10-"), Some(Err(())));
        assert_eq!(part("bytes=-0"), Some(Err(())));
        for ignored in [
            "bytes=3-2",
            "bytes=a-b",
            "lines=0-1",
            "bytes=0-1,3-4",
            "bytes=+1-2",
        ] {
            assert_eq!(part(ignored), None, "{ignored}");
        }
    }
}
