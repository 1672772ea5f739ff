//! `/swagger`: the API's document for people, by Swagger UI, embedded.
//!
//! Its files come as a zip archive; each is sent as the archive holds it, deflated, with gzip's head and tail around it,
//! so that nothing has to be unpacked here.

use std::borrow::Cow;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::etag;

/// What the page may do. Swagger UI writes styles into elements.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../console/swagger.html");
const BEGIN: &str = include_str!("../console/swagger.js");
/// What of the archive is needed.
const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

/// A file with what it is sent as.
#[derive(Clone)]
struct File {
    kind: &'static str,
    gzipped: bool,
    tag: HeaderValue,
    bytes: Bytes,
}

/// Swagger UI's routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let own = |kind, text: &'static str| File {
        kind,
        gzipped: false,
        tag: etag::tag(&format!("{:08x}", crc32(text.as_bytes()))),
        bytes: Bytes::from_static(text.as_bytes()),
    };
    let router = Router::new()
        .route("/swagger", get(|| async { Redirect::permanent("/swagger/") }))
        .route("/swagger/", serve(own("text/html; charset=utf-8", PAGE)))
        .route(
            "/swagger/begin.js",
            serve(own("text/javascript; charset=utf-8", BEGIN)),
        );
    FILES.into_iter().fold(router, |router, (name, kind)| {
        let Some(entry) = entry(SWAGGER_UI_VENDORED, name) else {
            tracing::error!(name, "Swagger UI's archive lacks a file");
            return router;
        };
        let file = File {
            kind,
            gzipped: entry.deflated,
            tag: etag::tag(&format!("{:08x}", entry.crc)),
            bytes: entry.sent(),
        };
        router.route(&format!("/swagger/{name}"), serve(file))
    })
}

fn serve<S: Clone + Send + Sync + 'static>(file: File) -> axum::routing::MethodRouter<S> {
    get(move |headers: HeaderMap| async move { file.answer(&headers) })
}

impl File {
    fn answer(self, request: &HeaderMap) -> Response {
        if etag::matches(request, &self.tag) {
            return etag::not_modified(self.tag);
        }
        let fixed: [(HeaderName, HeaderValue); 5] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::ETAG, self.tag),
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
        let gzip = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        if self.gzipped {
            (fixed, gzip, self.bytes).into_response()
        } else {
            (fixed, self.bytes).into_response()
        }
    }
}

/// A file in an archive.
struct ZipEntry<'a> {
    deflated: bool,
    crc: u32,
    size: u32,
    data: Cow<'a, [u8]>,
}

impl ZipEntry<'_> {
    /// Its bytes as they are sent: deflated ones as gzip, by RFC 1952.
    fn sent(&self) -> Bytes {
        if !self.deflated {
            return Bytes::copy_from_slice(&self.data);
        }
        const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        let mut gzip = Vec::with_capacity(HEAD.len() + self.data.len() + 8);
        gzip.extend(HEAD);
        gzip.extend(&*self.data);
        gzip.extend(self.crc.to_le_bytes());
        gzip.extend(self.size.to_le_bytes());
        gzip.into()
    }
}

/// A file of an archive by the end of its path, from the central directory (APPNOTE.TXT 4.3).
fn entry<'a>(zip: &'a [u8], name: &str) -> Option<ZipEntry<'a>> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            zip.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| Some(u32::from_le_bytes(zip.get(at..at + 4)?.try_into().ok()?));
    let end = (0..zip.len().checked_sub(21)?)
        .rev()
        .find(|&at| u32_at(at) == Some(0x0605_4b50))?;
    let mut at = u32_at(end + 16)? as usize;
    for _ in 0..u16_at(end + 10)? {
        if u32_at(at)? != 0x0201_4b50 {
            return None;
        }
        let lengths = (u16_at(at + 28)?, u16_at(at + 30)?, u16_at(at + 32)?);
        let path = zip.get(at + 46..at + 46 + lengths.0)?;
        if path.ends_with(format!("/dist/{name}").as_bytes()) {
            let local = u32_at(at + 42)? as usize;
            let begin = local + 30 + u16_at(local + 26)? + u16_at(local + 28)?;
            let method = u16_at(at + 10)?;
            return Some(ZipEntry {
                deflated: method == 8,
                crc: u32_at(at + 16)?,
                size: u32_at(at + 24)?,
                data: zip.get(begin..begin + u32_at(at + 20)? as usize)?.into(),
            });
        }
        at += 46 + lengths.0 + lengths.1 + lengths.2;
    }
    None
}

/// CRC-32 as zip and gzip have it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_what_the_page_asks_for() {
        for (name, _) in FILES {
            let entry = entry(SWAGGER_UI_VENDORED, name).unwrap_or_else(|| panic!("no {name}"));
            assert!(!entry.data.is_empty(), "{name}");
            if !entry.deflated {
                assert_eq!(crc32(&entry.data), entry.crc, "{name}");
            }
            assert!(
                name.contains("favicon") || PAGE.contains(name),
                "the page doesn't name {name}"
            );
        }
        assert!(entry(SWAGGER_UI_VENDORED, "none.js").is_none());
        assert!(entry(b"no archive", "none.js").is_none());
    }
}
