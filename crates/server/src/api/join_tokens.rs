//! Join tokens: what lets nodes in. And the way out: revoking a node's certificates.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::time::Millis;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::JsonObject;
use super::call::Call;
use super::commands::Making;
use super::create::Form;
use super::nodes::unknown_node;
use super::params::{environment, shown};
use super::{Api, ApiError, ErrorBody, Shared};
use crate::clock::{millis, wall_now};
use crate::enrolment::{
    JOIN_TOKEN_LIFETIME_DEFAULT, JOIN_TOKEN_LIFETIME_MAX, JOIN_TOKEN_USES_MAX, JoinToken, NewJoinToken,
    NodeCertificate, check_pattern,
};
use crate::views::time::{iso8601, parse_iso8601, rfc3339};

/// A join token to be made, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateJoinToken {
    /// The environment that its nodes belong to, in any case.
    #[schema(example = "Production")]
    pub environment: String,
    /// Only nodes of such a name; a `*` stands for any characters.
    #[schema(example = "web-*", max_length = 253)]
    pub nodes: Option<String>,
    /// How many nodes may join by it.
    #[schema(minimum = 1, maximum = 10000, default = 1)]
    pub uses: Option<u32>,
    /// How long it lasts: ISO 8601, PT1H by default, at most P30D.
    #[schema(example = "PT1H")]
    pub expires_in: Option<String>,
}

/// A join token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JoinTokenView {
    /// Its identity.
    #[schema(format = "uuid")]
    pub id: String,
    /// The environment that its nodes belong to.
    pub environment: String,
    /// Only nodes of such a name; null: any.
    pub nodes: Option<String>,
    /// How many nodes may join by it.
    pub uses_max: u32,
    /// How many have.
    pub uses: u32,
    /// Active, UsedUp or Expired.
    pub state: &'static str,
    /// Who made it.
    pub by: String,
    /// When it was made.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// When it expires.
    #[schema(format = "date-time")]
    pub expires_at: String,
}

/// A join token that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedJoinToken {
    /// The token: told this once. The answer to a retry is without it; revoke that one and make another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What is kept of it.
    pub details: JoinTokenView,
}

/// A node whose certificates were revoked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokedNode {
    /// The node.
    pub node_id: String,
    /// The serial numbers of the certificates that held until now.
    pub revoked: Vec<String>,
}

fn view(token: &JoinToken) -> JoinTokenView {
    let state = match token {
        _ if token.expires <= wall_now() => "Expired",
        _ if token.uses >= token.uses_max => "UsedUp",
        _ => "Active",
    };
    JoinTokenView {
        id: token.id.to_string(),
        environment: token.environment.to_string(),
        nodes: token.nodes.clone(),
        uses_max: token.uses_max,
        uses: token.uses,
        state,
        by: token.by.clone(),
        created_at: rfc3339(token.created),
        expires_at: rfc3339(token.expires),
    }
}

/// Lists join tokens, newest first.
#[utoipa::path(
    get, path = "/join-tokens", tag = "nodes", security(("bearer" = ["Admin"])),
    responses((status = OK, body = Vec<JoinTokenView>))
)]
pub(super) async fn list(State(api): Shared) -> Json<Vec<JoinTokenView>> {
    Json(api.enrolment.tokens().iter().map(view).collect())
}

/// Makes a join token: agents that have it get a certificate of their own, for its environment.
#[utoipa::path(
    post, path = "/join-tokens", tag = "nodes", security(("bearer" = ["Admin"])), request_body = CreateJoinToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer, without the token.")),
    responses(
        (status = CREATED, body = CreatedJoinToken), (status = BAD_REQUEST, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody, description = "There are too many."),
    )
)]
pub(super) async fn create(State(api): Shared, call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let new = validate(&api, &body)?;
    within_scope(&api, &call, &new.environment, "createJoinToken")?;
    let kept = |record: &JoinToken| CreatedJoinToken {
        token: None,
        details: view(record),
    };
    let mut first = match Making::begin(&api, &call, &body.bytes).await? {
        Making::Replayed(response) => return Ok(response),
        Making::First(first) => first,
    };
    let once = first.once(StatusCode::CREATED, kept);
    let issued = api
        .enrolment
        .create_token(&call.actor, new, &call.source, once)
        .await?;
    let created = CreatedJoinToken {
        token: Some(issued.token.expose_secret().to_owned()),
        details: view(&issued.record),
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

fn validate(api: &Api, body: &JsonObject) -> Result<NewJoinToken, ApiError> {
    let mut form = Form::new(&body.fields);
    let found = form.required("environment").and_then(|text| {
        let found = environment(&api.world().state(), text).map(|environment| environment.name.clone());
        form.check::<EnvName, _>("environment", found)
    });
    let nodes = form.text("nodes").map(str::to_owned);
    if let Some(pattern) = &nodes {
        form.check("nodes", check_pattern(pattern));
    }
    let uses = match form.number("uses") {
        None => 1,
        Some(uses) => {
            let uses = u32::try_from(uses)
                .ok()
                .filter(|uses| (1..=JOIN_TOKEN_USES_MAX).contains(uses));
            uses.unwrap_or_else(|| {
                form.fault(
                    "uses",
                    format!("must be a whole number from 1 to {JOIN_TOKEN_USES_MAX}"),
                );
                1
            })
        }
    };
    let lifetime = match form.text("expiresIn") {
        None => Some(JOIN_TOKEN_LIFETIME_DEFAULT),
        Some(text) => {
            let most = millis(JOIN_TOKEN_LIFETIME_MAX);
            let lifetime = parse_iso8601(text).filter(|lifetime| (Millis(1)..=most).contains(lifetime));
            let fault = format!(
                "must be an ISO 8601 duration such as PT1H, at most {}",
                iso8601(most)
            );
            form.check("expiresIn", lifetime.ok_or(fault))
                .map(|lifetime| Duration::from_millis(lifetime.0))
        }
    };
    let new = found.zip(lifetime).map(|(environment, lifetime)| NewJoinToken {
        environment,
        nodes,
        uses_max: uses,
        lifetime,
    });
    form.read(new)
}

/// Refuses what an API token is not for.
fn within_scope(api: &Api, call: &Call, environment: &EnvName, action: &str) -> Result<(), ApiError> {
    match call.actor.scope.refuses(None, Some(environment)) {
        None => Ok(()),
        Some(why) => {
            api.access
                .denied(Some(&call.actor), &call.source, action, "scope");
            Err(ApiError::new(StatusCode::FORBIDDEN, "scope", why))
        }
    }
}

/// Revokes a join token: nobody joins by it from now on. Nodes that have joined stay.
#[utoipa::path(
    delete, path = "/join-tokens/{id}", tag = "nodes", security(("bearer" = ["Admin"])),
    params(("id" = String, Path, description = "The token's identity.")),
    responses((status = NO_CONTENT, description = "It is revoked."), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn revoke(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
) -> Result<StatusCode, ApiError> {
    let shown = shown(&id);
    let unknown = || ApiError::not_found("not_found", format!("there is no join token {shown}"));
    let id: uuid::Uuid = id.parse().map_err(|_| unknown())?;
    let token = api.enrolment.tokens().into_iter().find(|token| token.id == id);
    let token = token.ok_or_else(unknown)?;
    within_scope(&api, &call, &token.environment, "revokeJoinToken")?;
    api.enrolment.revoke_token(&call.actor, id, &call.source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes every certificate of a node: its session ends at once, and it gets nothing until it joins anew. What it runs
/// goes on there.
#[utoipa::path(
    post, path = "/nodes/{id}/revoke", tag = "nodes", security(("bearer" = ["Admin"])),
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses((status = OK, body = RevokedNode), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn revoke_node(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let node: NodeId = id.parse().map_err(|_| unknown_node(&id))?;
    let environment = api
        .world()
        .state()
        .nodes
        .get(&node)
        .map(|node| node.environment.clone());
    let environment = environment.or_else(|| Some(api.world().credentials().newest(&node)?.environment));
    let environment = environment.ok_or_else(|| unknown_node(&id))?;
    within_scope(&api, &call, &environment, "revoke")?;
    let answer = {
        let node_id = node.to_string();
        move |held: &Vec<NodeCertificate>| RevokedNode {
            node_id,
            revoked: held.iter().map(|of| of.serial.to_string()).collect(),
        }
    };
    let mut first = match Making::begin(&api, &call, &[]).await? {
        Making::Replayed(response) => return Ok(response),
        Making::First(first) => first,
    };
    let once = first.once(StatusCode::OK, answer.clone());
    let held = api
        .enrolment
        .revoke_node(&call.actor, &node, &call.source, once)
        .await?;
    Ok(Json(answer(&held)).into_response())
}
