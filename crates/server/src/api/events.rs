//! `GET /events`: the log as it grows, by Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::json;
use tokio::time::timeout;

use super::call::Caller;
use super::deployments::find;
use super::params::{Params, deployment_id, environment};
use super::{Api, ApiError, ErrorBody, Shared};
use crate::access::{Access, Actor};
use crate::feed::{CLIENTS_MAX, Filter, Listener};
use crate::views::live::LiveEvent;

/// Time between two signs of life on a quiet stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a client that was cut comes back.
const RETRY: Duration = Duration::from_secs(2);
/// Most names of types in one query.
const TYPES_MAX: usize = 50;

/// Sends events as they become durable, in the log's order. Each has its number as id: `Last-Event-ID` goes on after it.
/// Without one it begins with what comes next. Types: DeploymentStarted, DeploymentProgress, DeploymentCompleted,
/// DeploymentFailed, and the log's own, such as StepStarted, NodeExcluded, StableSet or NodeDrained. A client that takes
/// nothing is cut with an event `Cut` that says why, and can go on where it was.
#[utoipa::path(
    get, path = "/events", tag = "events", security(("bearer" = ["Viewer"])),
    params(
        ("type" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("module" = Option<String>, Query, description = "Only about this module."),
        ("environment" = Option<String>, Query, description = "Only about this environment, in any case."),
        ("node" = Option<String>, Query, description = "Only about this node."),
        ("deployment" = Option<String>, Query, description = "Only of this deployment."),
        ("after" = Option<u64>, Query, description = "Begin after this number; 0 begins with the log."),
        ("follow" = Option<bool>, Query, description = "false ends the stream with the log's present end."),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this number; wins over `after`."),
    ),
    responses(
        (status = OK, body = String, content_type = "text/event-stream"), (status = BAD_REQUEST, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn all(
    State(api): Shared,
    caller: Caller,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let head = api.feed.head();
    stream_of(&api, caller.actor, &headers, &params, (head, None))
}

/// Sends a deployment's events, from its first on, as they become durable.
#[utoipa::path(
    get, path = "/deployments/{id}/events", tag = "events", security(("bearer" = ["Viewer"])),
    params(
        ("id" = String, Path, description = "The deployment's executionId."),
        ("type" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("environment" = Option<String>, Query, description = "Only about this environment, in any case."),
        ("node" = Option<String>, Query, description = "Only about this node."),
        ("after" = Option<u64>, Query, description = "Begin after this number."),
        ("follow" = Option<bool>, Query, description = "false ends the stream with the log's present end."),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this number; wins over `after`."),
    ),
    responses(
        (status = OK, body = String, content_type = "text/event-stream"), (status = BAD_REQUEST, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody), (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub(super) async fn of_deployment(
    State(api): Shared,
    Path(id): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let id = find(&api, deployment_id(&id)?).await?.id;
    stream_of(&api, caller.actor, &headers, &params, (0, Some(id)))
}

fn stream_of(
    api: &Api,
    actor: Actor,
    headers: &HeaderMap,
    params: &Params,
    (begin, deployment): (u64, Option<hotswap_core::ids::DeploymentId>),
) -> Result<Response, ApiError> {
    let mut faults = Vec::new();
    let mut number = |name: &str, text: Option<&str>| {
        let parsed = text.map(str::parse::<u64>);
        if matches!(parsed, Some(Err(_))) {
            faults.push(format!("{name}: must be the number of an event, which its id is"));
        }
        parsed.and_then(Result::ok)
    };
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let last = number("Last-Event-ID", last.filter(|id| !id.is_empty()));
    let after = last.or(number("after", params.get("after"))).unwrap_or(begin);
    let follow = match params.get("follow") {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => {
            faults.push("follow: must be true or false".to_owned());
            true
        }
    };
    let filter = filter(api, params, deployment, &mut faults);
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    // A client that knows more than the log has (a backup was restored) goes on with what comes next.
    let listener = api.feed.listen(after.min(api.feed.head()), filter, follow);
    let Some(listener) = listener else {
        let error =
            format!("{CLIENTS_MAX} clients listen already, the most there may be; close one, or come back");
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_listeners",
            error,
        ));
    };
    let access = Arc::clone(&api.access);
    let telling = Telling::On(Box::new(Told {
        listener,
        access,
        actor,
    }));
    let events = Sse::new(stream::unfold(telling, tell)).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    let fixed = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // For proxies that would gather the stream before they pass it on.
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((fixed, events).into_response())
}

fn filter(
    api: &Api,
    params: &Params,
    deployment: Option<hotswap_core::ids::DeploymentId>,
    faults: &mut Vec<String>,
) -> Filter {
    let types = params.get("type").into_iter().flat_map(|types| types.split(','));
    let types: std::collections::BTreeSet<String> = types.map(|name| name.trim().to_owned()).collect();
    let plain =
        |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic());
    if types.len() > TYPES_MAX || !types.iter().all(plain) {
        faults.push(format!(
            "type: must be at most {TYPES_MAX} names such as DeploymentCompleted, separated by commas"
        ));
    }
    let environment = params.get("environment").and_then(|name| {
        let found = environment(&api.world().state(), name).map(|environment| environment.name.to_string());
        found
            .map_err(|fault| faults.push(format!("environment: {fault}")))
            .ok()
    });
    let deployment = deployment.or_else(|| {
        let parsed = params.get("deployment")?.parse();
        parsed
            .map_err(|_| faults.push("deployment: must be an executionId, a UUID".to_owned()))
            .ok()
    });
    Filter {
        types,
        module: params.get("module").map(str::to_owned),
        environment,
        node: params.get("node").map(str::to_owned),
        deployment,
    }
}

/// How far the telling is.
enum Telling {
    On(Box<Told>),
    Over,
}

/// Who is told, and what.
struct Told {
    listener: Listener,
    access: Arc<Access>,
    actor: Actor,
}

impl Told {
    /// The next event; `Err` says why there is none any more.
    async fn next(&mut self) -> Option<Result<Arc<LiveEvent>, &'static str>> {
        loop {
            let next = timeout(HEARTBEAT, self.listener.events.recv()).await;
            if !self.access.stands(&self.actor) {
                return Some(Err("you are let in no more; log in again"));
            }
            match next {
                Err(_) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) if self.listener.cut.load(Ordering::Acquire) => {
                    let reason = "events came faster than they were taken; go on with Last-Event-ID";
                    return Some(Err(reason));
                }
                Ok(None) => return None,
            }
        }
    }
}

async fn tell(telling: Telling) -> Option<(Result<Event, Infallible>, Telling)> {
    let Telling::On(mut told) = telling else {
        return None;
    };
    match told.next().await? {
        Ok(event) => {
            let told_of = Event::default()
                .id(event.seq.to_string())
                .event(&event.kind)
                .retry(RETRY)
                .data(&event.json);
            Some((Ok(told_of), Telling::On(told)))
        }
        Err(reason) => {
            let cut = Event::default()
                .event("Cut")
                .data(json!({ "reason": reason }).to_string());
            Some((Ok(cut), Telling::Over))
        }
    }
}
