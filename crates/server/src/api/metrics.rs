//! Metrics, for whoever scrapes.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use hotswap_telemetry::exposition;

use super::Shared;

/// Shows the server's and the fleet's metrics in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health", security(()),
    responses((status = OK, body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn scrape(State(api): Shared) -> impl IntoResponse {
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], api.metrics.text())
}
