//! A push's body: the package alone, or a form with the package and its signature. Either way the package is streamed
//! to disk.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use hotswap_trust::SIGNATURE_BYTES_MAX;
use multer::{Field, Multipart};

use super::ApiError;
use super::push::{drop_rest, refused};
use crate::registry::{ReceiveError, Received, Registry};

/// What a push brings.
pub(super) struct Pushed<'a> {
    pub(super) package: Received<'a>,
    pub(super) signature: Option<Bytes>,
}

/// How a body holds its package.
enum Shape {
    Plain,
    Form { boundary: String },
}

/// Takes a push's body in.
pub(super) async fn receive<'a>(
    registry: &'a Registry,
    headers: &HeaderMap,
    body: Body,
) -> Result<Pushed<'a>, ApiError> {
    let shape = shape(headers)?;
    let mut stream = body.into_data_stream();
    if let Err(error) = announced(headers, registry.bytes_max()) {
        drop_rest(stream).await;
        return Err(refused(&error));
    }
    let boundary = match shape {
        Shape::Form { boundary } => boundary,
        Shape::Plain => {
            return match registry.receive(&mut stream).await {
                Ok(package) => Ok(Pushed {
                    package,
                    signature: None,
                }),
                Err(error) => {
                    if matches!(error, ReceiveError::TooLarge { .. } | ReceiveError::Busy { .. }) {
                        drop_rest(stream).await;
                    }
                    Err(refused(&error))
                }
            };
        }
    };
    let mut form = Multipart::new(stream, boundary);
    let pushed = of_form(registry, &mut form).await;
    if pushed.is_err() {
        drop_parts(&mut form).await;
    }
    pushed
}

async fn of_form<'a>(registry: &'a Registry, form: &mut Multipart<'_>) -> Result<Pushed<'a>, ApiError> {
    let (mut package, mut signature) = (None, None);
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some("signature") if signature.is_none() => signature = Some(read_signature(field).await?),
            Some("package") if package.is_none() => {
                package = Some(registry.receive(field).await.map_err(|error| refused(&error))?);
            }
            name => {
                let name: String = name.unwrap_or("without a name").chars().take(40).collect();
                return Err(bad_form(&format!(
                    "the form's part {name:?} is unknown or there twice"
                )));
            }
        }
    }
    let package = package.ok_or_else(|| bad_form("the form has no part \"package\""))?;
    Ok(Pushed { package, signature })
}

async fn read_signature(mut field: Field<'_>) -> Result<Bytes, ApiError> {
    let mut signature = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if signature.len() + chunk.len() > SIGNATURE_BYTES_MAX {
            let error =
                format!("the signature has more than {SIGNATURE_BYTES_MAX} bytes, the most that are read");
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "signature_size",
                error,
            ));
        }
        signature.extend_from_slice(&chunk);
    }
    Ok(signature.freeze())
}

fn bad_form(problem: &str) -> ApiError {
    let error = format!("{problem}; a form has one part \"package\" and at most one part \"signature\"");
    ApiError::new(StatusCode::BAD_REQUEST, "broken_body", error)
}

fn broken(error: &multer::Error) -> ApiError {
    bad_form(&format!("the form can't be read ({error})"))
}

/// Reads on to the form's end, within bounds, so that its sender gets to read why it was refused.
async fn drop_parts(form: &mut Multipart<'_>) {
    let mut dropped = 0;
    while let Ok(Some(mut field)) = form.next_field().await {
        while let Some(Ok(chunk)) = field.next().await {
            dropped += chunk.len();
            if dropped > super::push::DROPPED_BYTES_MAX {
                return;
            }
        }
    }
}

fn shape(headers: &HeaderMap) -> Result<Shape, ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Ok(boundary) = multer::parse_boundary(given) {
        return Ok(Shape::Form { boundary });
    }
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if ["", "application/octet-stream", "application/x-tar"].contains(&essence.as_str()) {
        return Ok(Shape::Plain);
    }
    let error = "a package is pushed as application/octet-stream: the file alone, as the whole body; or, with its \
                 signature, as multipart/form-data with the parts \"package\" and \"signature\"";
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_type",
        error,
    ))
}

fn announced(headers: &HeaderMap, bytes_max: u64) -> Result<(), ReceiveError> {
    /// A form's own lines.
    const FORM_BYTES_MAX: u64 = 4 << 10;
    let most = bytes_max + SIGNATURE_BYTES_MAX as u64 + FORM_BYTES_MAX;
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        Err(ReceiveError::TooLarge { max: bytes_max })
    } else {
        Ok(())
    }
}
