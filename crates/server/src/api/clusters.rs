//! Environments.

use axum::Json;
use axum::extract::{Path, State};
use hotswap_core::ids::{EnvName, ModuleName, NodeId};
use hotswap_core::time::{Millis, WallTime};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::{Params, environment};
use super::{Api, ApiError, ErrorBody, Shared};
use crate::sight::{Entity, Point};
use crate::views::cluster::{self, ClusterItem, ClusterView};
use crate::views::time::{parse_rfc3339, rfc3339};

/// What `interval` may be.
const INTERVALS: [(&str, Millis); 5] = [
    ("10s", Millis::from_secs(10)),
    ("1m", Millis::from_secs(60)),
    ("5m", Millis::from_secs(300)),
    ("15m", Millis::from_secs(900)),
    ("1h", Millis::from_secs(3_600)),
];
/// What it is unless the query says otherwise.
const INTERVAL_DEFAULT: &str = "5m";
/// How far back `from` is unless the query says otherwise.
const RANGE_DEFAULT: Millis = Millis::from_secs(3_600);
/// Most points of an answer: a day at the finest interval, and some.
const POINTS_MAX: u64 = 10_000;

/// An environment's measurements over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterSeries {
    /// The environment.
    pub environment: String,
    /// The time that a point stands for.
    #[schema(example = "5m")]
    pub interval: String,
    /// Stretches with measurements, oldest first.
    pub data_points: Vec<DataPoint>,
}

/// Averages over one interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DataPoint {
    /// Where it begins.
    #[schema(format = "date-time")]
    pub timestamp: String,
    /// CPU in use, in %.
    pub cpu_usage: f64,
    /// Memory in use, in %.
    pub memory_usage: f64,
    /// Latency of requests, in ms.
    pub latency: f64,
    /// Errors among requests, in %.
    pub error_rate: f64,
}

/// Lists the environments, in order.
#[utoipa::path(get, path = "/clusters", tag = "clusters", security(("bearer" = ["Viewer"])), responses((status = OK, body = Vec<ClusterItem>)))]
pub(super) async fn list(State(api): Shared) -> Json<Vec<ClusterItem>> {
    let (state, observations) = (api.world().state(), api.world().observations());
    Json(cluster::list(
        &state,
        &observations,
        api.world().now(),
        api.heartbeat_timeout,
    ))
}

/// Tells how an environment and its nodes stand.
#[utoipa::path(
    get, path = "/clusters/{environment}", tag = "clusters", security(("bearer" = ["Viewer"])),
    params(("environment" = String, Path, description = "Its name, in any case.")),
    responses((status = OK, body = ClusterView), (status = NOT_FOUND, body = ErrorBody))
)]
pub(super) async fn get(State(api): Shared, Path(name): Path<String>) -> Result<Json<ClusterView>, ApiError> {
    let name = known(&api, &name)?;
    let (state, observations) = (api.world().state(), api.world().observations());
    Ok(Json(cluster::view(
        &name,
        &state,
        &observations,
        api.world().now(),
        api.heartbeat_timeout,
    )))
}

/// Tells an environment's measurements over time.
#[utoipa::path(
    get, path = "/clusters/{environment}/metrics", tag = "clusters", security(("bearer" = ["Viewer"])),
    params(
        ("environment" = String, Path, description = "Its name, in any case."),
        ("from" = Option<String>, Query, description = "RFC 3339; an hour before `to` by default."),
        ("to" = Option<String>, Query, description = "RFC 3339; now by default."),
        ("interval" = Option<String>, Query, description = "10s, 1m, 5m (default), 15m or 1h."),
        ("node" = Option<String>, Query, description = "Only this node of it."),
        ("module" = Option<String>, Query, description = "Only this module's release `version`: latency and errors."),
        ("version" = Option<String>, Query, description = "Of `module`."),
    ),
    responses(
        (status = OK, body = ClusterSeries), (status = BAD_REQUEST, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn metrics(
    State(api): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<ClusterSeries>, ApiError> {
    let environment = known(&api, &name)?;
    let Range {
        from,
        to,
        interval,
        name: interval_name,
    } = range(&params, api.world().now().wall)?;
    let point = |point: Point| DataPoint {
        timestamp: rfc3339(point.at),
        cpu_usage: point.metrics.avg_cpu_usage,
        memory_usage: point.metrics.avg_memory_usage,
        latency: point.metrics.avg_latency,
        error_rate: point.metrics.error_rate,
    };
    let entity = entity(&params, environment.clone())?;
    let now = api.world().now().wall;
    let points = api.series.points(entity, from, to, interval, now).await;
    let points = points.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(ClusterSeries {
        environment: environment.to_string(),
        interval: interval_name.to_owned(),
        data_points: points.into_iter().map(point).collect(),
    }))
}

struct Range {
    from: WallTime,
    to: WallTime,
    interval: Millis,
    name: &'static str,
}

fn range(params: &Params, now: WallTime) -> Result<Range, ApiError> {
    let mut faults = Vec::new();
    let wanted = params.get("interval").unwrap_or(INTERVAL_DEFAULT);
    let interval = INTERVALS.into_iter().find(|(name, _)| *name == wanted);
    if interval.is_none() {
        faults.push("interval: must be one of 10s, 1m, 5m, 15m, 1h".to_owned());
    }
    let mut time = |name: &str| {
        let text = params.get(name)?;
        let time = parse_rfc3339(text);
        if time.is_none() {
            faults.push(format!(
                "{name}: must be an RFC 3339 time such as 2026-01-31T12:00:00Z"
            ));
        }
        time
    };
    let (from, to) = (time("from"), time("to"));
    let to = to.unwrap_or_else(|| now.max(from.map_or(now, |from| from + RANGE_DEFAULT)));
    let from = from.unwrap_or(to - RANGE_DEFAULT);
    if faults.is_empty() && from >= to {
        faults.push("from: must be before to".to_owned());
    }
    match interval {
        Some((name, interval)) if faults.is_empty() => {
            if to.since(from).0 / interval.0 > POINTS_MAX {
                let fault =
                    format!("from, to, interval: more than {POINTS_MAX} points; take a longer interval");
                return Err(ApiError::validation(vec![fault]));
            }
            Ok(Range {
                from,
                to,
                interval,
                name,
            })
        }
        _ => Err(ApiError::validation(faults)),
    }
}

/// Whose measurements are asked for: the environment's own, unless a node or a release of it is named.
fn entity(params: &Params, environment: EnvName) -> Result<Entity, ApiError> {
    let fault = |fault: String| ApiError::validation(vec![fault]);
    match (params.get("node"), params.get("module"), params.get("version")) {
        (None, None, None) => Ok(Entity::Environment(environment)),
        (Some(node), None, None) => {
            let node = node
                .parse::<NodeId>()
                .map_err(|error| fault(format!("node: {error}")))?;
            Ok(Entity::Node(environment, node))
        }
        (None, Some(module), Some(version)) => {
            let module = module
                .parse::<ModuleName>()
                .map_err(|error| fault(format!("module: {error}")))?;
            Ok(Entity::Release(environment, module, version.to_owned()))
        }
        _ => Err(fault(
            "node, module, version: name a node, or a module with its version, or none".to_owned(),
        )),
    }
}

fn known(api: &Api, name: &str) -> Result<EnvName, ApiError> {
    environment(&api.world().state(), name)
        .map(|environment| environment.name.clone())
        .map_err(|error| ApiError::not_found("unknown_environment", error))
}
