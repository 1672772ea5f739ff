//! Packages that nothing needs: told, and removed.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::Caller;
use super::{ApiError, Shared};
use crate::audit::AuditKind;
use crate::registry::{Collectable, Unneeded};

/// A package that nothing needs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CollectableView {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// The module whose release has it; null where none has.
    #[schema(required)]
    pub module_name: Option<String>,
    /// That release's version.
    #[schema(required)]
    pub version: Option<String>,
}

fn view(found: Collectable) -> CollectableView {
    let (module, version) = match found.why {
        Unneeded::NoRelease => (None, None),
        Unneeded::Old(module, version) => (Some(module.to_string()), Some(version.to_string())),
    };
    CollectableView {
        digest: found.digest.to_string(),
        size: found.size,
        module_name: module,
        version,
    }
}

/// Lists the packages that nothing runs or may return to, and that are older than they are kept. Nothing is removed.
#[utoipa::path(
    get, path = "/artifacts/collectable", tag = "modules", security(("bearer" = ["Viewer"])),
    responses((status = OK, body = Vec<CollectableView>))
)]
pub(super) async fn collectable(State(api): Shared) -> Result<Json<Vec<CollectableView>>, ApiError> {
    let found = api.collector.look().await;
    let found = found.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(found.into_iter().map(view).collect()))
}

/// Removes those packages now, and lists them. The server does so every hour. A version whose package is gone is
/// deployed after it is pushed again.
#[utoipa::path(
    post, path = "/artifacts/collect", tag = "modules", security(("bearer" = ["Admin"])),
    responses((status = OK, body = Vec<CollectableView>))
)]
pub(super) async fn collect(
    State(api): Shared,
    caller: Caller,
) -> Result<Json<Vec<CollectableView>>, ApiError> {
    let found = api.collector.look().await;
    let found = found.map_err(|error| ApiError::internal(&error))?;
    let bytes: u64 = found.iter().map(|found| found.size).sum();
    let detail = format!("{} packages, {bytes} bytes", found.len());
    let said = (AuditKind::Server, "collectPackages");
    api.access
        .does(&caller.actor, &caller.source, said, detail)
        .await?;
    let removed = api.collector.remove(found).await;
    let removed = removed.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(removed.into_iter().map(view).collect()))
}
