//! The listener's side: connections, their limits, and their end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotswap_runtime::{Body, BodyError};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

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

impl Ingress {
    /// Serves a listener until `stop` is cancelled; then takes no more connections, lets those there finish the
    /// requests that they have begun, and cuts what is left after `deadline`.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken, deadline: Duration) -> Stopped {
        let config = &self.inner.config;
        let builder = Arc::new(builder(config));
        let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
        let graceful = GracefulShutdown::new();
        let cut = CancellationToken::new();
        // However this ends, also by being dropped: no connection outlives its ingress.
        let _cuts = cut.clone().drop_guard();
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
                watcher: graceful.watcher(),
                cut: cut.clone(),
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop(place);
            });
        }
        drop(listener);
        let connections_cut = {
            let open = graceful.count();
            match tokio::time::timeout(deadline, graceful.shutdown()).await {
                Ok(()) => 0,
                Err(_) => open.min(config.connections_max - places.available_permits()),
            }
        };
        cut.cancel();
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
    watcher: hyper_util::server::graceful::Watcher,
    cut: CancellationToken,
}

/// What a connection's requests share.
struct State {
    inner: Arc<Inner>,
    /// Whether a request's head was ever complete.
    has_begun: AtomicBool,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let Self {
            inner,
            builder,
            watcher,
            cut,
        } = self;
        // Answers are written whole; waiting for more would only delay them. A connection that refuses is ending.
        let _ = stream.set_nodelay(true);
        let header_read_timeout = inner.config.header_read_timeout;
        // Of this connection alone, so that its requests share no counter of references with others'.
        let state = Arc::new(State {
            inner,
            has_begun: AtomicBool::new(false),
        });
        let of_requests = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&of_requests), request));
        let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::pin!(connection);
        // Until the first head nothing below this watches a client that says nothing, or half of which protocol it
        // speaks.
        let first_head = tokio::time::sleep(header_read_timeout);
        tokio::pin!(first_head);
        let mut waits = true;
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = cut.cancelled() => return,
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
    state.has_begun.store(true, Ordering::Relaxed);
    let inner = &*state.inner;
    let release = match inner.draw(&request) {
        Ok(release) => release,
        Err(answer) => return Ok(answer),
    };
    let max = inner
        .config
        .body_bytes_max
        .min(release.instance().manifest().limits.body.0);
    let (head, incoming) = request.into_parts();
    let (body, overflow) = match Body::incoming(incoming, max) {
        Ok(body) => body,
        Err(too_large) => return Ok(body_refused(&too_large)),
    };
    let request = Request::from_parts(head, body);
    let response = inner.serve(release, request, overflow.as_ref()).await;
    if overflow.is_some_and(|overflow| overflow.happened()) {
        return Ok(body_refused(&BodyError::TooLarge { max }));
    }
    Ok(response)
}

fn body_refused(reason: &BodyError) -> Response<Body> {
    error(StatusCode::PAYLOAD_TOO_LARGE, &reason.to_string())
}
