//! What operators do with nodes: labels, drain, undrain, move, remove.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::{Command, Refusal};
use hotswap_core::decide::DRAIN_DEADLINE_MAX;
use hotswap_core::ids::NodeId;
use hotswap_core::state::State as CoreState;
use hotswap_core::time::Millis;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::{JsonObject, MaybeJson};
use super::call::Call;
use super::create::Form;
use super::error::CommandRefused;
use super::nodes::unknown_node;
use super::params::environment;
use super::{Api, ApiError, ErrorBody, Shared, commands};
use crate::views::node::{DrainView, drain_view};
use crate::views::time::{iso8601, parse_iso8601};

/// How long a drain waits for its environment unless the request says otherwise.
const DRAIN_DEADLINE_DEFAULT: Millis = Millis::from_secs(600);
/// Longest reason, in characters.
const REASON_LEN_MAX: usize = 500;
/// Longest key of a label, in characters.
const LABEL_KEY_LEN_MAX: usize = 100;
/// Longest value of a label, in characters.
const LABEL_VALUE_LEN_MAX: usize = 256;

/// A node's record, as a command left it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRecord {
    /// Its identity.
    pub node_id: String,
    /// Where it belongs; null once it is removed.
    pub environment: Option<String>,
    /// Its labels: those that it reports, and over them those that operators set.
    pub labels: BTreeMap<String, String>,
    /// The labels among them that operators set.
    pub set_labels: BTreeMap<String, String>,
    /// Its drain; null where it serves.
    pub drain: Option<DrainView>,
}

/// Labels to set, as the document describes them.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct SetLabels {
    /// Values by key; null takes an operator's value back, so that the reported one counts.
    pub labels: BTreeMap<String, Option<String>>,
}

/// A drain, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct DrainNode {
    /// How long to wait at most for the environment to be able to spare the node; then it is drained all the same. ISO
    /// 8601, PT10M by default, at most PT24H; PT0S drains at once.
    #[schema(example = "PT10M")]
    pub deadline: Option<String>,
    /// Why, for people.
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// Where to, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct MoveNode {
    /// An environment, in any case.
    #[schema(example = "Staging")]
    pub environment: String,
}

/// Sets labels over those that a node reports. They count from the next rollout's draw on.
#[utoipa::path(
    post, path = "/nodes/{id}/labels", tag = "nodes", security(("bearer" = ["Admin"])), request_body = SetLabels,
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = OK, body = NodeRecord), CommandRefused,
    )
)]
pub(super) async fn labels(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let node = known(&api, &id)?;
    let mut form = Form::new(&body.fields);
    let set = read_labels(&mut form);
    let (set, by) = (form.read(set)?, call.subject());
    let command = Command::SetLabels {
        node: node.clone(),
        set,
        by,
    };
    change(&api, &call, &body.bytes, node, command).await
}

fn read_labels(form: &mut Form<'_>) -> Option<BTreeMap<String, Option<String>>> {
    let Some(Value::Object(entries)) = form.fields.get("labels") else {
        form.fault(
            "labels",
            "is required: an object of strings, null to take one back",
        );
        return None;
    };
    let mut labels = BTreeMap::new();
    for (key, value) in entries {
        let shown: String = key.chars().take(LABEL_KEY_LEN_MAX).collect();
        let plain = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !(1..=LABEL_KEY_LEN_MAX).contains(&key.len()) || !plain {
            form.fault(
                "labels",
                format!("key {shown:?} must be 1 to {LABEL_KEY_LEN_MAX} of letters, digits, - _ . and /"),
            );
        }
        match value {
            Value::Null => drop(labels.insert(key.clone(), None)),
            Value::String(text) if text.chars().count() <= LABEL_VALUE_LEN_MAX => {
                labels.insert(key.clone(), Some(text.clone()));
            }
            _ => form.fault(
                "labels",
                format!(
                    "the value of {shown:?} must be null or a string of at most {LABEL_VALUE_LEN_MAX} characters"
                ),
            ),
        }
    }
    Some(labels)
}

/// Lets a node serve nothing, as soon as its environment can spare it. It is in no roster until it is undrained.
#[utoipa::path(
    post, path = "/nodes/{id}/drain", tag = "nodes", security(("bearer" = ["Admin"])), request_body = Option<DrainNode>,
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = ACCEPTED, body = NodeRecord), CommandRefused,
    )
)]
pub(super) async fn drain(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let node = known(&api, &id)?;
    let mut form = Form::new(&body.fields);
    let reason = form.short("reason", REASON_LEN_MAX);
    let deadline = match form.text("deadline") {
        None => Some(DRAIN_DEADLINE_DEFAULT),
        Some(text) => {
            let deadline = parse_iso8601(text).filter(|deadline| *deadline <= DRAIN_DEADLINE_MAX);
            let most = iso8601(DRAIN_DEADLINE_MAX);
            let fault = format!("must be an ISO 8601 duration such as PT10M, at most {most}");
            form.check("deadline", deadline.ok_or(fault))
        }
    };
    let deadline = form.read(deadline)?;
    let command = Command::Drain {
        node: node.clone(),
        deadline,
        reason,
        by: call.subject(),
    };
    change(&api, &call, &body.bytes, node, command).await
}

/// Lets a drained node serve again, with what is stable by then.
#[utoipa::path(
    post, path = "/nodes/{id}/undrain", tag = "nodes", security(("bearer" = ["Admin"])),
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = OK, body = NodeRecord), CommandRefused,
    )
)]
pub(super) async fn undrain(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let node = known(&api, &id)?;
    let command = Command::Undrain {
        node: node.clone(),
        by: call.subject(),
    };
    change(&api, &call, &body.bytes, node, command).await
}

/// Moves a node to another environment: it runs what is stable there, and is excused where it was.
#[utoipa::path(
    post, path = "/nodes/{id}/move", tag = "nodes", security(("bearer" = ["Admin"])), request_body = MoveNode,
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = OK, body = NodeRecord), CommandRefused,
    )
)]
pub(super) async fn relocate(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let node = known(&api, &id)?;
    let mut form = Form::new(&body.fields);
    let found = form.required("environment").and_then(|text| {
        let found = environment(&api.world().state(), text).map(|environment| environment.name.clone());
        form.check("environment", found)
    });
    let command = Command::MoveNode {
        node: node.clone(),
        environment: form.read(found)?,
        by: call.subject(),
    };
    change(&api, &call, &body.bytes, node, command).await
}

/// Forgets a node and ends its session. One that still runs its agent comes back as a new node.
#[utoipa::path(
    delete, path = "/nodes/{id}", tag = "nodes", security(("bearer" = ["Admin"])),
    params(("id" = String, Path, description = "The node."),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = OK, body = NodeRecord), (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, body = ErrorBody), (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(api): Shared,
    Path(id): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let node: NodeId = id.parse().map_err(|_| unknown_node(&id))?;
    let command = Command::RemoveNode {
        node: node.clone(),
        by: call.subject(),
    };
    change(&api, &call, &[], node, command).await
}

fn known(api: &Api, id: &str) -> Result<NodeId, ApiError> {
    let node: NodeId = id.parse().map_err(|_| unknown_node(id))?;
    if api.world().state().nodes.contains_key(&node) {
        Ok(node)
    } else {
        Err(unknown_node(id))
    }
}

async fn change(
    api: &Api,
    call: &Call,
    body: &[u8],
    node: NodeId,
    command: Command,
) -> Result<Response, ApiError> {
    let trace_id = call.trace_id.clone();
    // A drain goes on after the answer.
    let status = match command {
        Command::Drain { .. } => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    let answer = move |state: &CoreState, outcome: crate::driver::Outcome<'_>| match outcome.result {
        Ok(_) => commands::answer(status, None, &record(&node, state)),
        Err(Refusal::UnknownNode(node)) => {
            let error = unknown_node(node.as_str());
            commands::answer(error.status, None, &error.body(&trace_id))
        }
        Err(refusal) => commands::refusal(refusal, &trace_id),
    };
    commands::run(api, call, body, command, Box::new(answer)).await
}

fn record(node: &NodeId, state: &CoreState) -> NodeRecord {
    let record = state.nodes.get(node);
    NodeRecord {
        node_id: node.to_string(),
        environment: record.map(|record| record.environment.to_string()),
        labels: record.map(|record| record.effective_labels()).unwrap_or_default(),
        set_labels: record.map(|record| record.overrides.clone()).unwrap_or_default(),
        drain: record
            .and_then(|record| record.drain.as_ref())
            .map(|drain| drain_view(drain, None)),
    }
}
