//! Who calls, in which trace, and whether it is a retry.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::ApiError;
use super::context::{TraceId, new_trace};
use crate::store::IdempotencyKey;

/// Longest `Idempotency-Key`, in bytes.
const KEY_LEN_MAX: usize = 255;
/// Whoever calls without a token.
const ANONYMOUS: &str = "anonymous";

/// Who calls. The one place where a token will be turned into its subject; until then everybody is anonymous.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    subject: Option<String>,
}

impl Actor {
    /// The subject that a log entry names.
    pub(super) fn subject(&self) -> String {
        self.subject.clone().unwrap_or_else(|| ANONYMOUS.to_owned())
    }

    /// The subject; where nobody is authenticated, the e-mail that a request gives is all that is known of a person.
    pub(super) fn subject_or(&self, email: &str) -> String {
        self.subject.clone().unwrap_or_else(|| email.to_owned())
    }
}

/// The call that a command belongs to.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) actor: Actor,
    pub(super) trace_id: String,
    scope: String,
    key: Option<String>,
}

impl Call {
    /// The call's idempotency key, if it has one, with the fingerprint of its body.
    pub(super) fn idempotency(&self, body: &[u8]) -> Option<IdempotencyKey> {
        let key = self.key.clone()?;
        let fingerprint = hotswap_core::ids::Digest(Sha256::digest(body).into()).hex();
        Some(IdempotencyKey {
            scope: self.scope.clone(),
            key,
            fingerprint,
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let key = match parts.headers.get("idempotency-key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if (1..=KEY_LEN_MAX).contains(&key.len()) => Some(key.to_owned()),
            Some(_) => {
                let error =
                    format!("the Idempotency-Key must be 1 to {KEY_LEN_MAX} printable ASCII characters");
                return Err(ApiError::bad_request(error));
            }
        };
        let trace_id = parts
            .extensions
            .get::<TraceId>()
            .map_or_else(new_trace, |trace| trace.0.clone());
        let actor = Actor { subject: None };
        let path = parts
            .extensions
            .get::<axum::extract::OriginalUri>()
            .map_or(parts.uri.path(), |uri| uri.path());
        let scope = format!("{} {} {path}", actor.subject(), parts.method);
        Ok(Self {
            actor,
            trace_id,
            scope,
            key,
        })
    }
}
