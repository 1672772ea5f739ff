//! Nodes.

use std::ops::Bound;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::state::Node;

use super::params::{Params, environment};
use super::{ApiError, BASE, ErrorBody, Shared};
use crate::views::node::{NodeView, view};

/// Nodes of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Most nodes of a page.
const PAGE_MAX: usize = 1_000;

/// Lists nodes with what they run, by identity.
#[utoipa::path(
    get, path = "/nodes", tag = "clusters", security(("bearer" = ["Viewer"])),
    params(
        ("environment" = Option<String>, Query, description = "Only of this environment, in any case."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses((status = OK, body = Vec<NodeView>), (status = BAD_REQUEST, body = ErrorBody))
)]
pub(super) async fn list(
    State(api): Shared,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<NodeView>>), ApiError> {
    let now = api.world().now();
    let (state, observations) = (api.world().state(), api.world().observations());
    let mut faults = Vec::new();
    let limit = params.limit(PAGE_DEFAULT, PAGE_MAX, &mut faults);
    let wanted: Option<EnvName> = params.get("environment").and_then(|name| {
        let found = environment(&state, name).map_err(|fault| faults.push(format!("environment: {fault}")));
        Some(found.ok()?.name.clone())
    });
    let after = params
        .get("cursor")
        .map_or(Bound::Unbounded, |cursor| match cursor.parse::<NodeId>() {
            Ok(cursor) => Bound::Excluded(cursor),
            Err(_) => {
                faults.push("cursor: take it from the Link header of the page before".to_owned());
                Bound::Unbounded
            }
        });
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    let belongs =
        |(_, node): &(&NodeId, &Node)| wanted.as_ref().is_none_or(|wanted| node.environment == *wanted);
    let nodes = state.nodes.range((after, Bound::Unbounded)).filter(belongs);
    let page: Vec<NodeView> = nodes
        .take(limit)
        .map(|(id, node)| view(id, node, &state, &observations, now, api.heartbeat_timeout))
        .collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        let only = wanted
            .map(|name| format!("&environment={name}"))
            .unwrap_or_default();
        let next = format!(
            "<{BASE}/nodes?limit={limit}&cursor={}{only}>; rel=\"next\"",
            last.node_id
        );
        headers.insert(
            header::LINK,
            HeaderValue::from_str(&next).map_err(|error| ApiError::internal(&error))?,
        );
    }
    Ok((headers, Json(page)))
}

/// Tells what a node is and runs.
#[utoipa::path(
    get, path = "/nodes/{id}", tag = "clusters", security(("bearer" = ["Viewer"])),
    params(("id" = String, Path, description = "The node.")),
    responses((status = OK, body = NodeView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(State(api): Shared, Path(id): Path<String>) -> Result<Json<NodeView>, ApiError> {
    let now = api.world().now();
    let (state, observations) = (api.world().state(), api.world().observations());
    let found = id
        .parse::<NodeId>()
        .ok()
        .and_then(|id| state.nodes.get_key_value(&id));
    let Some((id, node)) = found else {
        let id: String = id.chars().take(100).collect();
        return Err(ApiError::not_found(
            "unknown_node",
            format!("node {id} is unknown; GET {BASE}/nodes lists those there are"),
        ));
    };
    Ok(Json(view(
        id,
        node,
        &state,
        &observations,
        now,
        api.heartbeat_timeout,
    )))
}
