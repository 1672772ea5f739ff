//! The console: one page and its own files, embedded. Nothing is fetched from elsewhere.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::etag;

/// What the page may do: run its own scripts, use its own styles, and talk to its own server.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the console.
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
static ASSETS: [Asset; 8] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        text: include_str!("../console/index.html"),
    },
    Asset {
        path: "/console/console.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("../console/console.css"),
    },
    Asset {
        path: "/console/icon.svg",
        kind: "image/svg+xml",
        text: include_str!("../console/icon.svg"),
    },
    Asset {
        path: "/console/app.js",
        kind: SCRIPT,
        text: include_str!("../console/app.js"),
    },
    Asset {
        path: "/console/api.js",
        kind: SCRIPT,
        text: include_str!("../console/api.js"),
    },
    Asset {
        path: "/console/dom.js",
        kind: SCRIPT,
        text: include_str!("../console/dom.js"),
    },
    Asset {
        path: "/console/dialogs.js",
        kind: SCRIPT,
        text: include_str!("../console/dialogs.js"),
    },
    Asset {
        path: "/console/views.js",
        kind: SCRIPT,
        text: include_str!("../console/views.js"),
    },
];

/// The console's routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let add = |router: Router<S>, asset: &'static Asset| {
        let digest = hotswap_core::ids::Digest(Sha256::digest(asset.text.as_bytes()).into());
        let tag = etag::tag(&digest.hex()[..32]);
        router.route(
            asset.path,
            get(move |headers: HeaderMap| async move { asset.answer(&headers, tag) }),
        )
    };
    ASSETS.iter().fold(Router::new(), add)
}

impl Asset {
    fn answer(&self, request: &HeaderMap, tag: HeaderValue) -> Response {
        if etag::matches(request, &tag) {
            return etag::not_modified(tag);
        }
        let fixed: [(HeaderName, HeaderValue); 5] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::ETAG, tag),
            // A new version of the server is a new console: asked for each time, sent only when it changed.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(CONTENT_POLICY),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        (fixed, self.text).into_response()
    }
}
