//! What surrounds every request: its trace, its errors' documents, and the guard against a handler's panic.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use hotswap_core::trace::TraceParent;
use uuid::Uuid;

use super::{ApiError, Shared};

/// The request's W3C trace id: the caller's where it sent a valid `traceparent`, else a new one.
#[derive(Clone, Debug)]
pub(super) struct TraceId(pub(super) String);

/// Gives the request its trace, and errors their documents.
pub(super) async fn in_context(State(api): Shared, mut request: Request, next: Next) -> Response {
    let trace_id = trace_of(request.headers()).unwrap_or_else(new_trace);
    request.extensions_mut().insert(TraceId(trace_id.clone()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, trace_id, "a handler panicked");
        ApiError::internal_hidden().render(&trace_id)
    });
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        if error.status.is_server_error() {
            tracing::warn!(%method, path, trace_id, status = error.status.as_u16(), code = error.code, "refused");
        }
        // What was said besides the document stays: what is allowed, how often, and by what proof.
        let said = std::mem::take(response.headers_mut());
        response = error.render(&trace_id);
        for (name, value) in &said {
            let own = [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
            if !own && !response.headers().contains_key(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    api.world().counts().answered(response.status().as_u16());
    response
}

/// Lets what may change something come to its end, also where its client goes away meanwhile: a change that is durable
/// has to be in memory, too. Reading stops at once.
pub(super) async fn to_the_end(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // The process is ending.
        Err(_) => ApiError::internal_hidden().into_response(),
    }
}

/// A trace id of one's own.
pub(super) fn new_trace() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The trace of a valid `traceparent`; anything else counts as absent.
fn trace_of(headers: &HeaderMap) -> Option<String> {
    let parent: TraceParent = headers.get("traceparent")?.to_str().ok()?.parse().ok()?;
    Some(format!("{:032x}", parent.trace_id))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::routing::post;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_comes_to_its_end_without_its_client() {
        let (begun, begins) = oneshot::channel::<()>();
        let (go_on, goes_on) = oneshot::channel::<()>();
        let (ended, ends) = oneshot::channel::<()>();
        let steps = Arc::new(Mutex::new(Some((begun, goes_on, ended))));
        let handler = move || async move {
            let (begun, goes_on, ended) = steps.lock().unwrap().take().expect("it is asked once");
            begun.send(()).unwrap();
            goes_on.await.unwrap();
            ended.send(()).unwrap();
        };
        let router = Router::new()
            .route("/", post(handler))
            .layer(axum::middleware::from_fn(to_the_end));
        let request = Request::post("/").body(axum::body::Body::empty()).unwrap();
        let mut asking = Box::pin(TowerToHyperService::new(router).call(request));
        tokio::select! {
            _ = &mut asking => panic!("it waits"),
            begun = begins => begun.unwrap(),
        }
        drop(asking);
        go_on.send(()).expect("the handler is still there");
        ends.await.expect("and comes to its end");
    }

    #[test]
    fn only_a_valid_traceparent_is_joined() {
        let trace = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            trace_of(&headers)
        };
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(
            trace(&format!("00-{id}-b7ad6b7169203331-01")).as_deref(),
            Some(id)
        );
        assert_eq!(trace(&format!("00-{id}-0000000000000000-01")), None);
        assert_eq!(new_trace().len(), 32);
    }
}
