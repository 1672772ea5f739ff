//! The server's own health.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Shared};

/// How the server stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerHealth {
    /// Healthy, or Degraded: it answers, but takes no commands for the reason given.
    pub status: &'static str,
    /// What is wrong, if anything is.
    pub reason: Option<&'static str>,
    /// Its version.
    pub version: &'static str,
    /// Its leadership.
    pub epoch: u64,
    /// The newest event of its log.
    pub events: u64,
    /// Nodes that it knows.
    pub nodes: usize,
}

/// Tells how the server stands.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses((status = OK, body = ServerHealth)))]
pub(super) async fn health(State(api): Shared) -> Json<ServerHealth> {
    Json(view(&api))
}

/// Tells that the process lives.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = OK, body = ServerHealth)))]
pub(super) async fn live(State(api): Shared) -> Json<ServerHealth> {
    Json(view(&api))
}

/// Tells that requests are answered. The API is served only after recovery, so that what answers is ready.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses((status = OK, body = ServerHealth)))]
pub(super) async fn ready(State(api): Shared) -> Json<ServerHealth> {
    Json(view(&api))
}

fn view(api: &Api) -> ServerHealth {
    let read_only = api.world().is_read_only();
    let state = api.world().state();
    ServerHealth {
        status: if read_only { "Degraded" } else { "Healthy" },
        reason: read_only.then_some("the disk is full: read-only until there is room"),
        version: env!("CARGO_PKG_VERSION"),
        epoch: state.epoch,
        events: state.seq,
        nodes: state.nodes.len(),
    }
}
