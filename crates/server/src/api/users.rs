//! Managing users.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::authentication::secret;
use super::body::JsonObject;
use super::call::{Call, Caller};
use super::commands::Making;
use super::create::Form;
use super::{ApiError, ErrorBody, Shared};
use crate::access::{NewUser, Role, User, UserChange};
use crate::clock::wall_now;
use crate::views::time::rfc3339;

/// Shortest username, in characters.
const USERNAME_LEN_MIN: usize = 2;
/// Longest username, in characters.
const USERNAME_LEN_MAX: usize = 32;
/// Longest full name, in characters.
const FULL_NAME_LEN_MAX: usize = 100;

/// A user to be made, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateUser {
    /// 2 to 32 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter; never given to another later.
    #[schema(example = "ada", min_length = 2, max_length = 32)]
    pub username: String,
    /// An e-mail address.
    #[schema(format = "email")]
    pub email: String,
    /// The name that people call it.
    #[schema(max_length = 100)]
    pub full_name: Option<String>,
    /// Viewer, Deployer or Admin.
    #[schema(example = "Deployer")]
    pub role: String,
    /// A first password; without it one is made and told once. Either has to be changed at the first login.
    #[schema(format = "password")]
    pub password: Option<String>,
}

/// What to change about a user, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeUser {
    /// An e-mail address.
    #[schema(format = "email")]
    pub email: Option<String>,
    /// The name that people call it.
    #[schema(max_length = 100)]
    pub full_name: Option<String>,
    /// Viewer, Deployer or Admin.
    pub role: Option<String>,
    /// Whether it may not log in any more.
    pub disabled: Option<bool>,
    /// Whether a lock after failed logins is lifted.
    pub unlock: Option<bool>,
}

/// A user, as who manages them sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManagedUser {
    /// Its identity.
    #[schema(format = "uuid")]
    pub id: String,
    /// The name that it logs in by.
    pub username: String,
    /// An e-mail address.
    pub email: String,
    /// The name that people call it.
    pub full_name: String,
    /// Viewer, Deployer or Admin.
    pub role: &'static str,
    /// Whether it may not log in any more.
    pub disabled: bool,
    /// Until when every login fails, after too many failures.
    #[schema(format = "date-time")]
    pub locked_until: Option<String>,
    /// Whether it has to choose a new password before anything else.
    pub password_change_required: bool,
    /// When it was made.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// When its password was last changed.
    #[schema(format = "date-time")]
    pub password_changed_at: String,
}

/// A user with its one-time password, if one was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedUser {
    /// The user.
    pub user: ManagedUser,
    /// Told this once: the answer to a retry is without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_password: Option<String>,
}

/// A one-time password.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneTimePassword {
    /// Told this once.
    pub one_time_password: String,
}

fn view(user: &User) -> ManagedUser {
    ManagedUser {
        id: user.id.to_string(),
        username: user.username.clone(),
        email: user.email.clone(),
        full_name: user.full_name.clone(),
        role: user.role.name(),
        disabled: user.disabled,
        locked_until: user
            .locked_until
            .filter(|_| user.is_locked(wall_now()))
            .map(rfc3339),
        password_change_required: user.must_change,
        created_at: rfc3339(user.created),
        password_changed_at: rfc3339(user.password_changed),
    }
}

fn check_username(text: &str) -> Result<String, String> {
    let text = text.to_lowercase();
    let right = (USERNAME_LEN_MIN..=USERNAME_LEN_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    if right {
        Ok(text)
    } else {
        Err(format!(
            "must be {USERNAME_LEN_MIN} to {USERNAME_LEN_MAX} of a-z, 0-9, ., _ and -, beginning with a letter"
        ))
    }
}

fn full_name(form: &mut Form<'_>) -> Option<String> {
    let text = form.text("fullName")?;
    if text.chars().count() > FULL_NAME_LEN_MAX || text.chars().any(char::is_control) {
        form.fault(
            "fullName",
            format!("must be at most {FULL_NAME_LEN_MAX} characters, none of them control characters"),
        );
    }
    Some(text.to_owned())
}

pub(super) fn role(form: &mut Form<'_>) -> Option<Role> {
    let text = form.text("role")?;
    form.check("role", text.parse::<Role>())
}

/// Lists the users, by username.
#[utoipa::path(
    get, path = "/users", tag = "users", security(("bearer" = ["Admin"])),
    responses((status = OK, body = Vec<ManagedUser>))
)]
pub(super) async fn list(State(api): Shared) -> Json<Vec<ManagedUser>> {
    Json(api.access.users().iter().map(view).collect())
}

/// Tells about a user.
#[utoipa::path(
    get, path = "/users/{username}", tag = "users", security(("bearer" = ["Admin"])),
    params(("username" = String, Path, description = "The user.")),
    responses((status = OK, body = ManagedUser), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(
    State(api): Shared,
    Path(username): Path<String>,
) -> Result<Json<ManagedUser>, ApiError> {
    Ok(Json(view(&api.access.user(&username)?)))
}

/// Makes a user.
#[utoipa::path(
    post, path = "/users", tag = "users", security(("bearer" = ["Admin"])), request_body = CreateUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer, without a one-time password.")),
    responses(
        (status = CREATED, body = CreatedUser), (status = BAD_REQUEST, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody, description = "The username is taken."),
    )
)]
pub(super) async fn create(State(api): Shared, call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let mut form = Form::new(&body.fields);
    let username = form
        .required("username")
        .and_then(|text| form.check("username", check_username(text)));
    let email = form.email("email");
    let full_name = full_name(&mut form);
    let role = match form.required("role") {
        Some(_) => role(&mut form),
        None => None,
    };
    let password = form.text("password").filter(|text| !text.is_empty()).is_some();
    let password = if password {
        secret(&mut form, "password")
    } else {
        None
    };
    let new = match (username, email, role) {
        (Some(username), Some(email), Some(role)) if form.faults.is_empty() => NewUser {
            full_name: full_name.unwrap_or_else(|| username.clone()),
            username,
            email,
            role,
            password,
        },
        _ => return Err(ApiError::validation(form.faults)),
    };
    let kept = |user: &User| CreatedUser {
        user: view(user),
        one_time_password: None,
    };
    let mut first = match Making::begin(&api, &call, &body.bytes).await? {
        Making::Replayed(response) => return Ok(response),
        Making::First(first) => first,
    };
    let once = first.once(StatusCode::CREATED, kept);
    let (user, made) = api
        .access
        .create_user(&call.actor, new, &call.source, once)
        .await?;
    let created = CreatedUser {
        one_time_password: made.map(|password| password.expose_secret().to_owned()),
        ..kept(&user)
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// Changes a user: describes it anew, gives another role, disables or enables it, lifts a lock.
#[utoipa::path(
    patch, path = "/users/{username}", tag = "users", security(("bearer" = ["Admin"])), request_body = ChangeUser,
    params(("username" = String, Path, description = "The user.")),
    responses(
        (status = OK, body = ManagedUser), (status = BAD_REQUEST, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody, description = "It is the only Admin that can log in."),
    )
)]
pub(super) async fn change(
    State(api): Shared,
    Path(username): Path<String>,
    caller: Caller,
    body: JsonObject,
) -> Result<Json<ManagedUser>, ApiError> {
    let mut form = Form::new(&body.fields);
    let email = form
        .text("email")
        .is_some()
        .then(|| form.email("email"))
        .flatten();
    let change = UserChange {
        email,
        full_name: full_name(&mut form),
        role: role(&mut form),
        disabled: form.optional_flag("disabled"),
        unlock: form.flag("unlock"),
    };
    if !form.faults.is_empty() {
        return Err(ApiError::validation(form.faults));
    }
    let user = api
        .access
        .change_user(&caller.actor, &username, change, &caller.source)
        .await?;
    Ok(Json(view(&user)))
}

/// Gives a user a one-time password; its sessions end, and a lock is lifted.
#[utoipa::path(
    post, path = "/users/{username}/reset-password", tag = "users", security(("bearer" = ["Admin"])),
    params(("username" = String, Path, description = "The user.")),
    responses((status = OK, body = OneTimePassword), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn reset_password(
    State(api): Shared,
    Path(username): Path<String>,
    caller: Caller,
) -> Result<Json<OneTimePassword>, ApiError> {
    let made = api
        .access
        .reset_password(&caller.actor, &username, &caller.source)
        .await?;
    Ok(Json(OneTimePassword {
        one_time_password: made.expose_secret().to_owned(),
    }))
}
