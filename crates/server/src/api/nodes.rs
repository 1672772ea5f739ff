//! Nodes.

use std::ops::Bound;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::state::Node;

use super::params::{Params, environment, shown};
use super::{ApiError, BASE, ErrorBody, Shared};
use crate::views::node::{NodeView, status, view};

/// What `status` may be, as the contract writes it.
const STATUSES: [&str; 6] = [
    "Initializing",
    "Running",
    "Degraded",
    "Stopping",
    "Stopped",
    "Failed",
];
/// Nodes of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Most nodes of a page.
const PAGE_MAX: usize = 1_000;

/// Lists nodes with what they run, by identity.
#[utoipa::path(
    get, path = "/nodes", tag = "nodes", security(("bearer" = ["Viewer"])),
    params(
        ("environment" = Option<String>, Query, description = "Only of this environment, in any case."),
        ("status" = Option<String>, Query, description = "Only with this status, in any case."),
        ("label" = Option<String>, Query, description = "Only with this label: KEY=VALUE, or KEY with any value."),
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
    let status_wanted = params.get("status");
    if status_wanted.is_some_and(|wanted| !STATUSES.iter().any(|name| name.eq_ignore_ascii_case(wanted))) {
        faults.push(format!("status: must be one of {}", STATUSES.join(", ")));
    }
    let label = params.get("label");
    if label.is_some_and(|label| !label.bytes().all(|b| b.is_ascii_graphic())) {
        faults.push("label: must be KEY=VALUE or KEY, of printable ASCII characters".to_owned());
    }
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    let is_so = |id: &NodeId| {
        let is = status(id, &state, &observations, now, api.heartbeat_timeout);
        status_wanted.is_none_or(|wanted| is.eq_ignore_ascii_case(wanted))
    };
    let belongs = |(id, node): &(&NodeId, &Node)| {
        wanted.as_ref().is_none_or(|wanted| node.environment == *wanted)
            && label.is_none_or(|label| has_label(node, label))
            && is_so(id)
    };
    let nodes = state.nodes.range((after, Bound::Unbounded)).filter(belongs);
    let page: Vec<NodeView> = nodes
        .take(limit)
        .map(|(id, node)| {
            let certificate = api.world().credentials().newest(id);
            let seen = (&*state, &*observations);
            view(id, node, seen, certificate.as_ref(), now, api.heartbeat_timeout)
        })
        .collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        let mut only = wanted
            .map(|name| format!("&environment={name}"))
            .unwrap_or_default();
        if let Some(status) = status_wanted {
            only += &format!("&status={status}");
        }
        if let Some(label) = label {
            only += &format!("&label={}", escaped(label));
        }
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

fn has_label(node: &Node, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => node.label(key) == Some(value),
        None => node.label(label).is_some(),
    }
}

/// Printable ASCII in a query.
fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    text.chars()
        .map(|c| {
            if plain(c) {
                c.to_string()
            } else {
                format!("%{:02X}", u32::from(c))
            }
        })
        .collect()
}

/// Tells what a node is and runs.
#[utoipa::path(
    get, path = "/nodes/{id}", tag = "nodes", security(("bearer" = ["Viewer"])),
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
        return Err(unknown_node(&id));
    };
    let certificate = api.world().credentials().newest(id);
    Ok(Json(view(
        id,
        node,
        (&*state, &*observations),
        certificate.as_ref(),
        now,
        api.heartbeat_timeout,
    )))
}

/// The answer where there is no such node.
pub(super) fn unknown_node(id: &str) -> ApiError {
    let id = shown(id);
    ApiError::not_found(
        "unknown_node",
        format!("node {id} is unknown; GET {BASE}/nodes lists those there are"),
    )
}
