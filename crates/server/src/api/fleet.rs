//! The fleet as a whole: who leads it, and adopting it after a backup was restored.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::Command;
use hotswap_core::desired::nodes_ahead;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::MaybeJson;
use super::call::Call;
use super::{ApiError, ErrorBody, Shared, commands};

/// Nodes that are named where many are ahead.
const AHEAD_NAMED_MAX: usize = 100;

/// The fleet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetView {
    /// Its identity, made with its log.
    #[schema(format = "uuid")]
    pub fleet_id: String,
    /// The leadership.
    pub epoch: u64,
    /// The newest event of its log.
    pub events: u64,
    /// Nodes in the log.
    pub nodes: usize,
    /// Connected nodes that know specs of a log that this one lost. They are told nothing until the fleet is adopted.
    pub nodes_ahead: usize,
    /// Some of them.
    pub nodes_ahead_named: Vec<String>,
}

/// An adoption.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdoptedView {
    /// The leadership that began: above all that the nodes know.
    pub epoch: u64,
}

/// Tells who leads the fleet, and whether a backup was restored that its nodes are ahead of.
#[utoipa::path(get, path = "/fleet", tag = "clusters", security(("bearer" = ["Viewer"])), responses((status = OK, body = FleetView)))]
pub(super) async fn get(State(api): Shared) -> Json<FleetView> {
    let (state, observations) = (api.world().state(), api.world().observations());
    let ahead: Vec<String> = nodes_ahead(&state, &observations)
        .map(|(node, _)| node.to_string())
        .collect();
    Json(FleetView {
        fleet_id: state.fleet.map(|fleet| fleet.to_string()).unwrap_or_default(),
        epoch: state.epoch,
        events: state.seq,
        nodes: state.nodes.len(),
        nodes_ahead: ahead.len(),
        nodes_ahead_named: ahead.into_iter().take(AHEAD_NAMED_MAX).collect(),
    })
}

/// Adopts a fleet whose nodes know newer specs than this log, since a backup was restored: from now on they take this
/// log's.
#[utoipa::path(
    post, path = "/fleet/adopt", tag = "clusters", security(("bearer" = ["Admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses((status = OK, body = AdoptedView), (status = BAD_REQUEST, body = ErrorBody))
)]
pub(super) async fn adopt(
    State(api): Shared,
    call: Call,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let command = Command::AdoptFleet { by: call.subject() };
    let trace_id = call.trace_id.clone();
    let answer =
        move |state: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| match outcome.result {
            Ok(_) => commands::answer(StatusCode::OK, None, &AdoptedView { epoch: state.epoch }),
            Err(refusal) => commands::refusal(refusal, &trace_id),
        };
    commands::run(&api, &call, &body.bytes, command, Box::new(answer)).await
}
