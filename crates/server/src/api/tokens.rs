//! API tokens for programs, and the signing keys.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hotswap_core::ids::EnvName;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::{Call, Caller};
use super::commands::Making;
use super::create::Form;
use super::params::{environment, shown};
use super::users::role;
use super::{Api, ApiError, ErrorBody, Shared};
use crate::access::{ApiToken, NewToken, SCOPE_ENTRIES_MAX, Scope, SigningKey, TOKEN_DAYS_MAX};
use crate::views::time::rfc3339;

/// How long an API token lasts unless the request says otherwise, in days.
const DAYS_DEFAULT: u32 = 90;
/// Longest name of an API token, in characters.
const NAME_LEN_MAX: usize = 64;

/// An API token to be made, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateToken {
    /// What it is for.
    #[schema(example = "ci", min_length = 1, max_length = 64)]
    pub name: String,
    /// Viewer, Deployer or Admin; no more than one's own.
    #[schema(example = "Deployer")]
    pub role: String,
    /// Only commands about these modules; a `*` stands for any characters.
    #[schema(example = json!(["payment-*"]), max_items = 32)]
    pub modules: Option<Vec<String>>,
    /// Only commands about these environments.
    #[schema(max_items = 32)]
    pub environments: Option<Vec<String>>,
    /// How long it lasts, in days.
    #[schema(minimum = 1, maximum = 366, default = 90)]
    pub expires_in_days: Option<u32>,
}

/// An API token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenView {
    /// Its identity.
    #[schema(format = "uuid")]
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whom it speaks for.
    pub owner: String,
    /// Viewer, Deployer or Admin.
    pub role: &'static str,
    /// Only commands about these modules; empty: any.
    pub modules: Vec<String>,
    /// Only commands about these environments; empty: any.
    pub environments: Vec<String>,
    /// When it was made.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// When it expires.
    #[schema(format = "date-time")]
    pub expires_at: String,
}

/// An API token that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedToken {
    /// The token: told this once. The answer to a retry is without it; revoke that one and make another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What is kept of it.
    pub details: TokenView,
}

/// A signing key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyView {
    /// Its name.
    pub kid: String,
    /// Whether it signs now.
    pub signs: bool,
    /// When it began to.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// When it ceased to; its tokens are taken until they expire.
    #[schema(format = "date-time")]
    pub retired_at: Option<String>,
}

fn view(token: &ApiToken, owner: &str) -> TokenView {
    TokenView {
        id: token.id.to_string(),
        name: token.name.clone(),
        owner: owner.to_owned(),
        role: token.role.name(),
        modules: token.scope.modules.clone(),
        environments: token.scope.environments.iter().map(ToString::to_string).collect(),
        created_at: rfc3339(token.created),
        expires_at: rfc3339(token.expires),
    }
}

fn key_view(key: &SigningKey) -> KeyView {
    KeyView {
        kid: key.kid.clone(),
        signs: key.retired.is_none(),
        created_at: rfc3339(key.created),
        retired_at: key.retired.map(rfc3339),
    }
}

/// Lists API tokens, newest first: one's own, for an Admin everybody's.
#[utoipa::path(
    get, path = "/tokens", tag = "users", security(("bearer" = ["Viewer"])),
    responses((status = OK, body = Vec<TokenView>))
)]
pub(super) async fn list(State(api): Shared, caller: Caller) -> Json<Vec<TokenView>> {
    let tokens = api.access.tokens(&caller.actor);
    Json(tokens.iter().map(|(token, owner)| view(token, owner)).collect())
}

/// Makes an API token that speaks for whoever asks.
#[utoipa::path(
    post, path = "/tokens", tag = "users", security(("bearer" = ["Viewer"])), request_body = CreateToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer, without the token.")),
    responses(
        (status = CREATED, body = CreatedToken), (status = BAD_REQUEST, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody, description = "There is one of this name, or there are too many."),
    )
)]
pub(super) async fn create(State(api): Shared, call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let new = validate(&api, &body)?;
    let owner = call.subject();
    let kept = move |record: &ApiToken| CreatedToken {
        token: None,
        details: view(record, &owner),
    };
    let mut first = match Making::begin(&api, &call, &body.bytes).await? {
        Making::Replayed(response) => return Ok(response),
        Making::First(first) => first,
    };
    let once = first.once(StatusCode::CREATED, kept);
    let issued = api
        .access
        .create_token(&call.actor, new, &call.source, once)
        .await?;
    let created = CreatedToken {
        token: Some(issued.token.expose_secret().to_owned()),
        details: view(&issued.record, &call.actor.subject),
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

fn validate(api: &Api, body: &JsonObject) -> Result<NewToken, ApiError> {
    let mut form = Form::new(&body.fields);
    let name = form.required("name").map(str::to_owned);
    if name
        .as_ref()
        .is_some_and(|name| name.chars().count() > NAME_LEN_MAX || name.chars().any(char::is_control))
    {
        form.fault(
            "name",
            format!("must be at most {NAME_LEN_MAX} characters, none of them control characters"),
        );
    }
    let role = match form.required("role") {
        Some(_) => role(&mut form),
        None => None,
    };
    let modules = texts(&mut form, "modules");
    for pattern in &modules {
        form.check("modules", Scope::check_pattern(pattern));
    }
    let mut environments: Vec<EnvName> = Vec::new();
    for name in texts(&mut form, "environments") {
        let found = environment(&api.world().state(), &name).map(|environment| environment.name.clone());
        environments.extend(form.check("environments", found));
    }
    let days = match body.fields.get("expiresInDays") {
        None | Some(Value::Null) => DAYS_DEFAULT,
        Some(days) => {
            let days = days.as_u64().and_then(|days| u32::try_from(days).ok());
            days.filter(|days| (1..=TOKEN_DAYS_MAX).contains(days))
                .unwrap_or_else(|| {
                    form.fault(
                        "expiresInDays",
                        format!("must be a whole number from 1 to {TOKEN_DAYS_MAX}"),
                    );
                    DAYS_DEFAULT
                })
        }
    };
    match (name, role) {
        (Some(name), Some(role)) if form.faults.is_empty() => Ok(NewToken {
            name,
            role,
            scope: Scope {
                modules,
                environments,
            },
            days,
        }),
        _ => Err(ApiError::validation(form.faults)),
    }
}

/// A list of texts; absent is empty.
fn texts(form: &mut Form<'_>, field: &str) -> Vec<String> {
    let items = match form.fields.get(field) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(items)) if items.len() <= SCOPE_ENTRIES_MAX => items,
        Some(_) => {
            form.fault(
                field,
                format!("must be a list of at most {SCOPE_ENTRIES_MAX} strings"),
            );
            return Vec::new();
        }
    };
    let texts: Option<Vec<String>> = items
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect();
    texts.unwrap_or_else(|| {
        form.fault(field, "must be a list of strings");
        Vec::new()
    })
}

/// Revokes an API token; it is refused from the next request on.
#[utoipa::path(
    delete, path = "/tokens/{id}", tag = "users", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The token's identity.")),
    responses((status = NO_CONTENT, description = "It is revoked."), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn revoke(
    State(api): Shared,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let shown = shown(&id);
    let unknown = |_| ApiError::not_found("not_found", format!("there is no API token {shown}"));
    let id = id.parse().map_err(unknown)?;
    api.access.revoke_token(&caller.actor, id, &caller.source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the keys that sign access tokens, newest first.
#[utoipa::path(
    get, path = "/keys", tag = "users", security(("bearer" = ["Admin"])),
    responses((status = OK, body = Vec<KeyView>))
)]
pub(super) async fn keys(State(api): Shared) -> Json<Vec<KeyView>> {
    Json(api.access.keys().iter().map(key_view).collect())
}

/// Signs by a new key from now on. Tokens by the former one are taken until they expire.
#[utoipa::path(
    post, path = "/keys/rotate", tag = "users", security(("bearer" = ["Admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses((status = OK, body = KeyView))
)]
pub(super) async fn rotate(State(api): Shared, call: Call) -> Result<Response, ApiError> {
    let mut first = match Making::begin(&api, &call, &[]).await? {
        Making::Replayed(response) => return Ok(response),
        Making::First(first) => first,
    };
    let once = first.once(StatusCode::OK, key_view);
    let key = api.access.rotate_keys(&call.actor, &call.source, once).await?;
    Ok(Json(key_view(&key)).into_response())
}
