//! Webhooks: how each endpoint fares, and what was given up on.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::call::Caller;
use super::params::shown;
use super::{ApiError, ErrorBody, Shared};
use crate::audit::AuditKind;
use crate::notify::{Format, Standing};
use crate::sight::DeadLetter;
use crate::views::time::rfc3339;

/// Dead letters of an answer.
const LISTED_MAX: u32 = 200;

/// An endpoint that is told what happens to deployments.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookView {
    /// Its scheme and host, and a mark of the whole address, which is not shown: it may hold a secret.
    #[schema(example = "https://hooks.example.com#1f0c2a9b")]
    pub name: String,
    /// json or slack.
    pub format: &'static str,
    /// It was told everything up to this event of the log.
    pub delivered_up_to: u64,
    /// The newest event of the log.
    pub log_ends_at: u64,
    /// Failed attempts at the message that it is to be told next.
    pub attempts: u32,
    /// When that is tried again.
    #[schema(format = "date-time")]
    pub next_attempt: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Messages that it took since the server started.
    pub delivered: u64,
    /// Messages given up on that are still kept.
    pub dead_letters: u32,
}

/// A message that was given up on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterView {
    /// The event's identity.
    pub id: String,
    /// For whom it was.
    pub endpoint: String,
    /// What it was about.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was given up on.
    #[schema(format = "date-time")]
    pub time: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
    /// What was to be sent.
    pub body: serde_json::Value,
}

/// Lists the endpoints that are told what happens, and how each fares.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", security(("bearer" = ["Viewer"])), responses((status = OK, body = Vec<WebhookView>)))]
pub(super) async fn list(State(api): Shared) -> Result<Json<Vec<WebhookView>>, ApiError> {
    let log_ends_at = api.world().state().seq;
    let mut views = Vec::new();
    for standing in api.notifier.standings() {
        let dead = api.sight.dead_letter_count(standing.name.clone()).await;
        let dead = dead.map_err(|error| ApiError::internal(&error))?;
        views.push(view(standing, log_ends_at, dead));
    }
    Ok(Json(views))
}

/// Lists the messages that were given up on, newest first.
#[utoipa::path(
    get, path = "/webhooks/dead-letters", tag = "webhooks", security(("bearer" = ["Viewer"])),
    responses((status = OK, body = Vec<DeadLetterView>), (status = INTERNAL_SERVER_ERROR, body = ErrorBody))
)]
pub(super) async fn dead_letters(State(api): Shared) -> Result<Json<Vec<DeadLetterView>>, ApiError> {
    let found = api.sight.dead_letters(LISTED_MAX).await;
    let found = found.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(found.into_iter().map(letter).collect()))
}

/// What became of a message that was sent once more.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResentView {
    /// For whom it is.
    pub endpoint: String,
    /// Whether it was taken; it is no dead letter any longer then.
    pub delivered: bool,
    /// Why it was not.
    pub error: Option<String>,
}

/// Sends a message that was given up on once more, to every endpoint that it is kept for, and waits for their answers.
///
/// One that is taken is a dead letter no longer. Its identity is the event's, as in every attempt before.
#[utoipa::path(
    post, path = "/webhooks/dead-letters/{id}/resend", tag = "webhooks", security(("bearer" = ["Deployer"])),
    params(("id" = String, Path, description = "The event's identity.")),
    responses(
        (status = OK, body = Vec<ResentView>), (status = NOT_FOUND, body = ErrorBody),
        (status = INTERNAL_SERVER_ERROR, body = ErrorBody),
    )
)]
pub(super) async fn resend(
    State(api): Shared,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Vec<ResentView>>, ApiError> {
    let found = api.sight.dead_letters_of(id.clone()).await;
    let found = found.map_err(|error| ApiError::internal(&error))?;
    if found.is_empty() {
        let shown = shown(&id);
        let message = format!("there is no dead letter {shown}; `hotswap webhooks` lists those there are");
        return Err(ApiError::not_found("not_found", message));
    }
    let said = (AuditKind::Command, "resendDeadLetter");
    api.access.does(&caller.actor, &caller.source, said, id).await?;
    let resent = api.notifier.resend(found).await;
    let resent = resent.map_err(|error| ApiError::internal(&error))?;
    let views = resent.into_iter().map(|resent| ResentView {
        endpoint: resent.endpoint,
        delivered: resent.failed.is_none(),
        error: resent.failed,
    });
    Ok(Json(views.collect()))
}

fn view(standing: &Standing, log_ends_at: u64, dead_letters: u32) -> WebhookView {
    let (cursor, [delivered, ..]) = (standing.cursor(), standing.counts());
    let failing = cursor.attempts > 0;
    WebhookView {
        name: standing.name.clone(),
        format: match standing.format {
            Format::Json => "json",
            Format::Slack => "slack",
        },
        delivered_up_to: cursor.seq,
        log_ends_at,
        attempts: cursor.attempts,
        next_attempt: failing.then(|| rfc3339(cursor.due)),
        last_error: failing.then_some(cursor.error),
        delivered,
        dead_letters,
    }
}

fn letter(dead: DeadLetter) -> DeadLetterView {
    let body = serde_json::from_str(&dead.body).unwrap_or(serde_json::Value::String(dead.body));
    DeadLetterView {
        id: dead.id,
        endpoint: dead.endpoint,
        kind: dead.kind,
        time: rfc3339(dead.wall),
        attempts: dead.attempts,
        error: dead.error,
        body,
    }
}
