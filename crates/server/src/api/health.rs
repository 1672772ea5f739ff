//! The server's own health.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Shared};

/// How the server stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerHealth {
    /// Healthy; or Degraded: it answers, but doesn't do all of its work, for the reason given.
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
    /// Nodes with a session.
    pub nodes_connected: usize,
    /// What readiness is made of, each by itself.
    pub checks: Checks,
}

/// What readiness is made of.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checks {
    /// It holds the log's lead: commands are decided here.
    pub leads: bool,
    /// The store takes what is decided: its disk isn't full.
    pub store_writable: bool,
    /// Agents can connect.
    pub agents_accepted: bool,
}

impl Checks {
    fn of(api: &Api) -> Self {
        let world = api.world();
        Self {
            leads: world.leads(),
            store_writable: !world.is_read_only(),
            agents_accepted: world.accepts_agents(),
        }
    }

    /// The first thing that is wrong.
    fn fault(self) -> Option<&'static str> {
        let faults = [
            (self.leads, "this server does not lead: it decides nothing"),
            (
                self.store_writable,
                "the disk is full: read-only until there is room",
            ),
            (self.agents_accepted, "agents can't connect"),
        ];
        let fault = faults.into_iter().find(|(holds, _)| !holds);
        fault.map(|(_, words)| words)
    }
}

/// Tells how the server stands.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses((status = OK, body = ServerHealth)))]
pub(super) async fn health(State(api): Shared) -> Json<ServerHealth> {
    Json(view(&api))
}

/// Tells that the process lives. A server that can't go on ends by itself, so what answers lives.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = OK, body = ServerHealth)))]
pub(super) async fn live(State(api): Shared) -> Json<ServerHealth> {
    Json(view(&api))
}

/// Tells whether commands and agents may be sent here: it leads, its store is writable, and agents can connect.
#[utoipa::path(
    get, path = "/health/ready", tag = "health", security(()),
    responses((status = OK, body = ServerHealth), (status = SERVICE_UNAVAILABLE, body = ServerHealth))
)]
pub(super) async fn ready(State(api): Shared) -> (StatusCode, Json<ServerHealth>) {
    let view = view(&api);
    let status = if view.checks.fault().is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(view))
}

fn view(api: &Api) -> ServerHealth {
    let checks = Checks::of(api);
    let fault = checks.fault();
    let (state, observations) = (api.world().state(), api.world().observations());
    ServerHealth {
        status: if fault.is_none() { "Healthy" } else { "Degraded" },
        reason: fault,
        version: env!("CARGO_PKG_VERSION"),
        epoch: state.epoch,
        events: state.seq,
        nodes: state.nodes.len(),
        nodes_connected: observations.nodes().filter(|(_, seen)| seen.connected).count(),
        checks,
    }
}
