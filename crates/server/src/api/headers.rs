//! Headers that every answer has, for browsers, and what other sites may ask.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use parking_lot::RwLock;

/// For answers that no browser should make anything of.
const CSP_DATA: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For pages of our own: what they need comes from here, and nothing in them is written inline.
const CSP_PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// What pages may use of a device.
const PERMISSIONS: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";
/// How long a browser may remember what it was told about another site, in s.
const CORS_MAX_AGE_S: u32 = 600;

/// How long a browser comes back by HTTPS alone. The machine's other names, and other machines, are left out.
const HSTS: &str = "max-age=31536000";

/// Marks requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverTls;

/// The headers of every answer. A handler that sets one itself knows better.
pub(super) async fn secured(request: Request, next: Next) -> Response {
    let over_tls = request.extensions().get::<OverTls>().is_some();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if over_tls {
        let hsts = HeaderValue::from_static(HSTS);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    let page = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("text/html"));
    let csp = if page { CSP_PAGE } else { CSP_DATA };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, csp),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// What pages of other origins may ask: nothing, unless theirs is configured.
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<RwLock<Vec<HeaderValue>>>);

impl Origins {
    /// Of what is configured.
    pub(crate) fn new(origins: &[String]) -> Self {
        let new = Self::default();
        new.replace(origins);
        new
    }

    /// Others, from the next request on.
    pub(crate) fn replace(&self, origins: &[String]) {
        *self.0.write() = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    }

    fn allow(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.0.read().contains(origin).then(|| origin.clone())
    }
}

/// Answers browsers that ask before they send, and lets configured origins read. Tokens travel in a header that pages
/// set themselves, never in a cookie: so no credentials are allowed, and none are sent by themselves.
pub(super) async fn shared(origins: Origins, request: Request, next: Next) -> Response {
    let allowed = origins.allow(request.headers());
    let asks_first = *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &allowed {
        Some(_) if asks_first => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if origins.0.read().is_empty() {
        return response;
    }
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = allowed else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    if asks_first {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, idempotency-key, last-event-id, traceparent",
            ),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE_S.into());
    } else {
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "link, location, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset",
            ),
        );
    }
    response
}
