//! Answers that a client may have already.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ApiError;

/// JSON with an `ETag` of its bytes; 304 where `If-None-Match` names it.
pub(super) fn json(request: &HeaderMap, body: &impl Serialize) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(|error| ApiError::internal(&error))?;
    let digest = hotswap_core::ids::Digest(Sha256::digest(&bytes).into());
    let tag = tag(&digest.hex()[..32]);
    if matches(request, &tag) {
        return Ok(not_modified(tag));
    }
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json), (header::ETAG, tag)], bytes).into_response())
}

/// A strong tag.
pub(super) fn tag(text: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{text}\"")).expect("a digest is plain text")
}

/// Whether the client has what the tag names.
pub(super) fn matches(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let given = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"));
    let tag = tag.to_str().unwrap_or_default();
    given.into_iter().any(|one| one == "*" || one == tag)
}

/// The answer to a client that has it.
pub(super) fn not_modified(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_named_tags_will_do() {
        let request = |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
        let tag = tag("ab");
        for same in ["\"ab\"", "W/\"ab\"", "\"x\", \"ab\"", "*"] {
            assert!(matches(&request(same), &tag), "{same}");
        }
        assert!(!matches(&request("\"abc\""), &tag));
        assert!(!matches(&HeaderMap::new(), &tag));
    }
}
