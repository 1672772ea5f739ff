//! Who calls, in which trace, and whether it is a retry.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::ApiError;
use super::context::{TraceId, new_trace};
use crate::access::{Actor, Source};
use crate::driver::Origin;
use crate::store::IdempotencyKey;

/// Longest `Idempotency-Key`, in bytes.
const KEY_LEN_MAX: usize = 255;
/// The call that a command belongs to.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) actor: Actor,
    pub(super) trace_id: String,
    pub(super) source: Source,
    scope: String,
    key: Option<String>,
}

impl Call {
    /// The subject that the log names.
    pub(super) fn subject(&self) -> String {
        self.actor.subject.clone()
    }

    /// Where the call came from, for the audit log.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            actor: Some(self.actor.subject.clone()),
            token: self.actor.token().map(str::to_owned),
            trace_id: Some(self.trace_id.clone()),
            address: self.source.address,
        }
    }

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
        let actor = actor_of(parts)?;
        let source = parts.extensions.get::<Source>().cloned().unwrap_or_default();
        let path = parts
            .extensions
            .get::<axum::extract::OriginalUri>()
            .map_or(parts.uri.path(), |uri| uri.path());
        let scope = format!("{} {} {path}", actor.subject, parts.method);
        Ok(Self {
            actor,
            trace_id,
            source,
            scope,
            key,
        })
    }
}

/// Whom the guard let in.
fn actor_of(parts: &Parts) -> Result<Actor, ApiError> {
    let actor = parts.extensions.get::<Actor>().cloned();
    // The guard lets nobody in without one where a handler asks for one.
    actor.ok_or_else(|| {
        let error = "a token is needed: send Authorization: Bearer …";
        ApiError::new(axum::http::StatusCode::UNAUTHORIZED, "token_required", error)
    })
}

/// Who calls, and from where: for what is no command.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) actor: Actor,
    pub(super) source: Source,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(Self {
            actor: actor_of(parts)?,
            source: parts.extensions.get::<Source>().cloned().unwrap_or_default(),
        })
    }
}
