//! Modules, read.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use hotswap_core::ids::ModuleName;

use super::params::Params;
use super::versions::{module_name, unknown_module};
use super::{ApiError, BASE, ErrorBody, Shared, etag};
use crate::views::module::{ModuleView, view};

/// Modules of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Most modules of a page.
const PAGE_MAX: usize = 1_000;

/// Lists modules with their versions, by name.
#[utoipa::path(
    get, path = "/modules", tag = "modules", security(("bearer" = ["Viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses((status = OK, body = Vec<ModuleView>), (status = BAD_REQUEST, body = ErrorBody))
)]
pub(super) async fn list(
    State(api): Shared,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<ModuleView>>), ApiError> {
    let mut faults = Vec::new();
    let limit = params.limit(PAGE_DEFAULT, PAGE_MAX, &mut faults);
    let cursor = params.get("cursor").map(str::parse::<ModuleName>);
    if matches!(cursor, Some(Err(_))) {
        faults.push("cursor: take it from the Link header of the page before".to_owned());
    }
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    let cursor = cursor.and_then(Result::ok);
    let state = api.world().state();
    let after = state
        .modules
        .iter()
        .filter(|(name, _)| cursor.as_ref().is_none_or(|cursor| *name > cursor));
    let page: Vec<ModuleView> = after
        .take(limit)
        .map(|(name, module)| view(name, module, &state))
        .collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        let next = format!(
            "<{BASE}/modules?limit={limit}&cursor={}>; rel=\"next\"",
            last.module_name
        );
        headers.insert(
            header::LINK,
            HeaderValue::from_str(&next).map_err(|error| ApiError::internal(&error))?,
        );
    }
    Ok((headers, Json(page)))
}

/// Tells a module's versions.
#[utoipa::path(
    get, path = "/modules/{name}", tag = "modules", security(("bearer" = ["Viewer"])),
    params(("name" = String, Path, description = "The module."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an answer that the client has.")),
    responses(
        (status = OK, body = ModuleView), (status = NOT_MODIFIED, description = "The client has it."),
        (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(api): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let state = api.world().state();
    let name = module_name(&name)?;
    match state.modules.get(&name) {
        Some(module) => etag::json(&headers, &view(&name, module, &state)),
        None => Err(unknown_module(&state, name)),
    }
}
