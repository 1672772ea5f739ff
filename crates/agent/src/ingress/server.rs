//! The listener's side: connections, their limits, and their end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotswap_runtime::{Body, BodyError};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::IngressConfig;
use super::{Ingress, Inner, error};

/// How long to wait after the system refused a connection (no descriptors left, say): it may be over then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The least that hyper takes as a limit of a head.
const HEADER_BYTES_MIN: usize = 8_192;

/// How an ingress stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were still busy at the deadline and were cut.
    pub connections_cut: usize,
}

/// How long connections may go on after an ingress was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Connections that are kept alive end with their next answer. One that has no request for so long is ended
    /// without: a request that its client sends in that moment is lost to it, so the longer the better.
    pub idle: Duration,
    /// When what is left is cut, counted from the same moment.
    pub deadline: Duration,
}

/// The stages of an end, which connections watch.
#[derive(Clone, Default)]
struct Ending {
    /// Each connection ends with its next answer.
    leaving: CancellationToken,
    /// Idle ones end at once, others with what they have begun.
    closing: CancellationToken,
    /// All end at once.
    cut: CancellationToken,
}

impl Ingress {
    /// Serves a listener until `stop` is cancelled; then takes no more connections and lets those there finish the
    /// requests that they have begun, with the patience that is asked for at that moment.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
        patience: watch::Receiver<Patience>,
    ) -> Stopped {
        let config = &self.inner.config;
        let builder = Arc::new(builder(config));
        let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
        let (ending, connections) = (Ending::default(), TaskTracker::new());
        // However this ends, also by being dropped: no connection outlives its ingress.
        let _cuts = ending.cut.clone().drop_guard();
        loop {
            let stream = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                stream = accept(&listener, &places) => stream,
            };
            let (stream, place) = stream;
            let connection = Connection {
                inner: Arc::clone(&self.inner),
                builder: Arc::clone(&builder),
                ending: ending.clone(),
            };
            connections.spawn(async move {
                connection.serve(stream).await;
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        let patience = *patience.borrow();
        ending.leaving.cancel();
        let left = async {
            // What is closed needs some of the time to finish what it has begun.
            let idle = patience.idle.min(patience.deadline / 2);
            if tokio::time::timeout(idle, connections.wait()).await.is_err() {
                ending.closing.cancel();
                connections.wait().await;
            }
        };
        let connections_cut = match tokio::time::timeout(patience.deadline, left).await {
            Ok(()) => 0,
            Err(_) => connections.len(),
        };
        ending.cut.cancel();
        Stopped { connections_cut }
    }
}

/// A connection and its place.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the ingress cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether an error of `accept` concerns the connection that was to be accepted and not the listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

fn builder(config: &IngressConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .keep_alive(config.keep_alive)
        .max_headers(config.headers_max)
        .max_buf_size(config.header_bytes_max.max(HEADER_BYTES_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(config.streams_per_connection_max)
        .keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_interval);
    builder
}

struct Connection {
    inner: Arc<Inner>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    ending: Ending,
}

/// What a connection's requests share.
struct State {
    inner: Arc<Inner>,
    /// Whether a request's head was ever complete.
    has_begun: AtomicBool,
    /// Whether the client speaks HTTP/2, which can be told to go without losing a request.
    is_http2: AtomicBool,
    leaving: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let Self {
            inner,
            builder,
            ending,
        } = self;
        // Answers are written whole; waiting for more would only delay them. A connection that refuses is ending.
        let _ = stream.set_nodelay(true);
        let header_read_timeout = inner.config.header_read_timeout;
        // Of this connection alone, so that its requests share no counter of references with others'.
        let state = Arc::new(State {
            inner,
            has_begun: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            leaving: ending.leaving.clone(),
        });
        let of_requests = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&of_requests), request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // Until the first head nothing below this watches a client that says nothing, or half of which protocol it
        // speaks.
        let first_head = tokio::time::sleep(header_read_timeout);
        tokio::pin!(first_head);
        let (mut waits, mut leaves, mut closes) = (true, false, false);
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = ending.cut.cancelled() => return,
                () = ending.closing.cancelled(), if !closes => {
                    closes = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = ending.leaving.cancelled(), if !leaves => {
                    leaves = true;
                    if state.is_http2.load(Ordering::Relaxed) {
                        closes = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = &mut first_head, if waits => {
                    waits = false;
                    if !state.has_begun.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}

/// Answers a request from a connection.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if !state.has_begun.swap(true, Ordering::Relaxed) {
        state
            .is_http2
            .store(request.version() == Version::HTTP_2, Ordering::Relaxed);
    }
    let mut response = recorded(&state.inner, request).await;
    if state.leaving.is_cancelled() && !state.is_http2.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}

/// Answers a request, with a span where spans are taken and this one is drawn.
async fn recorded(inner: &Inner, request: Request<Incoming>) -> Response<Body> {
    let Some(spans) = &inner.config.spans else {
        return respond(inner, request).await;
    };
    let (mut head, body) = request.into_parts();
    let span = spans.begin(&mut head);
    let response = respond(inner, Request::from_parts(head, body)).await;
    if let Some(span) = span {
        span.end(&response);
    }
    response
}

async fn respond(inner: &Inner, request: Request<Incoming>) -> Response<Body> {
    let release = match inner.draw(&request) {
        Ok(release) => release,
        Err(answer) => return answer,
    };
    let max = inner
        .config
        .body_bytes_max
        .min(release.instance().manifest().limits.body.0);
    let (head, incoming) = request.into_parts();
    let (body, overflow) = match Body::incoming(incoming, max) {
        Ok(body) => body,
        Err(too_large) => return body_refused(&too_large),
    };
    let request = Request::from_parts(head, body);
    let response = inner.serve(release, request, overflow.as_ref()).await;
    if overflow.is_some_and(|overflow| overflow.happened()) {
        return body_refused(&BodyError::TooLarge { max });
    }
    response
}

fn body_refused(reason: &BodyError) -> Response<Body> {
    error(StatusCode::PAYLOAD_TOO_LARGE, &reason.to_string())
}
