//! Logging in and out.

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::Caller;
use super::create::Form;
use super::{ApiError, ErrorBody, Shared};
use crate::access::{DEMO_ACCOUNTS, Issued, Jwk, Source, User};
use crate::views::time::rfc3339;

/// Longest username, password or token of a request, in bytes.
const SECRET_BYTES_MAX: usize = 4_096;

/// A login, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct LoginRequest {
    /// The username, in any case.
    #[schema(example = "admin", min_length = 1)]
    pub username: String,
    /// The password.
    #[schema(format = "password", min_length = 1)]
    pub password: String,
}

/// A refresh, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefreshRequest {
    /// The refresh token of the login, or of the refresh before.
    #[schema(min_length = 1)]
    pub refresh_token: String,
}

/// A change of one's password, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct PasswordRequest {
    /// The password until now.
    #[schema(format = "password", min_length = 1)]
    pub current_password: String,
    /// The password from now on: at least 12 characters, without the username.
    #[schema(format = "password", min_length = 12)]
    pub new_password: String,
}

/// What a login brings.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoginView {
    /// The access token: send it as `Authorization: Bearer …`.
    pub token: String,
    /// When it expires.
    #[schema(format = "date-time")]
    pub expires_at: String,
    /// Brings the next access token, once.
    pub refresh_token: String,
    /// Who it is.
    pub user: UserView,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserView {
    /// Its identity.
    #[schema(format = "uuid")]
    pub id: String,
    /// The name that it logs in by.
    pub username: String,
    /// An e-mail address.
    pub email: String,
    /// The name that people call it.
    pub full_name: String,
    /// Every role that it holds, highest first: Viewer = 1, Deployer = 2, Admin = 3.
    pub roles: Vec<u8>,
    /// Whether it has to choose a new password before anything else.
    pub password_change_required: bool,
}

/// An account of the demo.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemoCredentials {
    /// The name that it logs in by.
    pub username: &'static str,
    /// Its password.
    pub password: &'static str,
    /// Every role that it holds.
    pub roles: Vec<u8>,
}

/// The public keys that tokens can be checked with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JwksView {
    /// The keys, the signing one first.
    pub keys: Vec<Jwk>,
}

pub(super) fn user_view(user: &User) -> UserView {
    UserView {
        id: user.id.to_string(),
        username: user.username.clone(),
        email: user.email.clone(),
        full_name: user.full_name.clone(),
        roles: user.role.held(),
        password_change_required: user.must_change,
    }
}

fn login_view(issued: &Issued) -> LoginView {
    LoginView {
        token: issued.token.expose_secret().to_owned(),
        expires_at: rfc3339(issued.expires),
        refresh_token: issued.refresh.expose_secret().to_owned(),
        user: user_view(&issued.user),
    }
}

/// A text that must be there and is not endless.
pub(super) fn secret(form: &mut Form<'_>, field: &str) -> Option<SecretString> {
    let text = form.required(field)?;
    if text.len() > SECRET_BYTES_MAX {
        form.faults
            .push(format!("{field}: must be at most {SECRET_BYTES_MAX} bytes"));
        return None;
    }
    Some(text.into())
}

/// Logs a user in. Whatever is wrong, the answer is one and takes as long.
#[utoipa::path(
    post, path = "/authentication/login", tag = "authentication", security(()), request_body = LoginRequest,
    responses(
        (status = OK, body = LoginView), (status = BAD_REQUEST, body = ErrorBody),
        (status = UNAUTHORIZED, body = ErrorBody), (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn login(
    State(api): Shared,
    extensions: Extensions,
    body: JsonObject,
) -> Result<Json<LoginView>, ApiError> {
    let mut form = Form::new(&body.fields);
    let (username, password) = (secret(&mut form, "username"), secret(&mut form, "password"));
    let (Some(username), Some(password)) = (username, password) else {
        return Err(ApiError::validation(form.faults));
    };
    let source = source(&extensions);
    let issued = api
        .access
        .login(username.expose_secret(), password, &source)
        .await?;
    Ok(Json(login_view(&issued)))
}

fn source(extensions: &Extensions) -> Source {
    extensions.get::<Source>().cloned().unwrap_or_default()
}

/// Brings the next access token. The refresh token is used up with it.
#[utoipa::path(
    post, path = "/authentication/refresh", tag = "authentication", security(()), request_body = RefreshRequest,
    responses(
        (status = OK, body = LoginView), (status = BAD_REQUEST, body = ErrorBody),
        (status = UNAUTHORIZED, body = ErrorBody),
    )
)]
pub(super) async fn refresh(
    State(api): Shared,
    extensions: Extensions,
    body: JsonObject,
) -> Result<Json<LoginView>, ApiError> {
    let mut form = Form::new(&body.fields);
    let Some(token) = secret(&mut form, "refreshToken") else {
        return Err(ApiError::validation(form.faults));
    };
    let issued = api.access.refresh(&token, &source(&extensions)).await?;
    Ok(Json(login_view(&issued)))
}

/// Ends the session that the token belongs to.
#[utoipa::path(
    post, path = "/authentication/logout", tag = "authentication", security(("bearer" = ["Viewer"])),
    responses((status = NO_CONTENT, description = "It has ended."))
)]
pub(super) async fn logout(State(api): Shared, caller: Caller) -> Result<StatusCode, ApiError> {
    api.access.logout(&caller.actor, &caller.source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells who the token speaks for.
#[utoipa::path(
    get, path = "/authentication/me", tag = "authentication", security(("bearer" = ["Viewer"])),
    responses((status = OK, body = UserView))
)]
pub(super) async fn me(State(api): Shared, caller: Caller) -> Result<Json<UserView>, ApiError> {
    let mut view = user_view(&api.access.me(&caller.actor)?);
    // An API token may hold less than its owner.
    view.roles = caller.actor.role.held();
    Ok(Json(view))
}

/// Changes one's own password; every other session of the user ends.
#[utoipa::path(
    post, path = "/authentication/password", tag = "authentication", security(("bearer" = ["Viewer"])),
    request_body = PasswordRequest,
    responses((status = NO_CONTENT, description = "It is changed."), (status = BAD_REQUEST, body = ErrorBody))
)]
pub(super) async fn password(
    State(api): Shared,
    caller: Caller,
    body: JsonObject,
) -> Result<StatusCode, ApiError> {
    let mut form = Form::new(&body.fields);
    let current = secret(&mut form, "currentPassword");
    let (Some(current), Some(new)) = (current, secret(&mut form, "newPassword")) else {
        return Err(ApiError::validation(form.faults));
    };
    api.access
        .change_password(&caller.actor, current, new, &caller.source)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the demo's accounts; there are none in any other mode.
#[utoipa::path(
    get, path = "/authentication/demo-credentials", tag = "authentication", security(()),
    responses((status = OK, body = Vec<DemoCredentials>), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn demo_credentials(State(api): Shared) -> Result<Json<Vec<DemoCredentials>>, ApiError> {
    if !api.access.config().demo {
        return Err(ApiError::not_found(
            "no_demo",
            "this server is not the demo: it has no demo accounts",
        ));
    }
    let told = DEMO_ACCOUNTS.map(|account| DemoCredentials {
        username: account.username,
        password: account.password,
        roles: account.role.held(),
    });
    Ok(Json(told.into()))
}

/// The public keys that tokens can be checked with (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "authentication", security(()),
    responses((status = OK, body = JwksView))
)]
pub(super) async fn jwks(State(api): Shared) -> Json<JwksView> {
    Json(JwksView {
        keys: api.access.published_keys(),
    })
}
