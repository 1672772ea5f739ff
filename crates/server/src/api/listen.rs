//! Serving HTTP, with limits on what a client may hold.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Peer;
use super::handshake::Handshakes;
use super::headers::OverTls;
use super::stall::Unstalled;
use crate::places::Places;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections at once from one address; more are closed.
const CONNECTIONS_PER_ADDRESS_MAX: u32 = 1_024;
/// Bytes of a request's head, and of its header list on HTTP/2.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long a client may take to send a request's head, idle time between requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// A silent HTTP/2 client is asked this often whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is sent to it.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);
/// How long requests in flight may go on after the shutdown began.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long accepting rests where the system refuses it (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that is bound and not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Listening {
    /// Binds an address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    /// What the system says.
    pub fn on(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// The listener itself.
    pub fn into_inner(self) -> TcpListener {
        self.listener
    }
}

/// Serves until the shutdown, then until requests in flight have ended or their deadline has; over TLS where there are
/// handshakes to make.
pub async fn serve(
    listening: Listening,
    router: Router,
    handshakes: Option<Handshakes>,
    shutdown: CancellationToken,
) {
    let connections = Places::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX);
    let tracker = TaskTracker::new();
    loop {
        let free = connections.free().await;
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listening.listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = connections.give(free, peer.ip()) else {
            tracing::debug!(%peer, "this address has {CONNECTIONS_PER_ADDRESS_MAX} connections already");
            continue;
        };
        let (router, handshakes, shutdown) = (router.clone(), handshakes.clone(), shutdown.clone());
        tracker.spawn(async move {
            connection((stream, peer), router, handshakes, shutdown).await;
            drop(place);
        });
    }
    tracker.close();
    if tokio::time::timeout(DRAIN_DEADLINE, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!(open = tracker.len(), "requests were cut by the shutdown");
    }
}

async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    handshakes: Option<Handshakes>,
    shutdown: CancellationToken,
) {
    // Answers are small: waiting to fill a packet only delays them.
    drop(stream.set_nodelay(true));
    let Some(handshakes) = handshakes else {
        return speak(Unstalled::new(stream, STALL_MAX), peer, None, router, shutdown).await;
    };
    let accepted = shutdown
        .run_until_cancelled(handshakes.accept(stream, peer))
        .await;
    if let Some(Some(stream)) = accepted {
        speak(stream, peer, Some(OverTls), router, shutdown).await;
    }
}

async fn speak<S>(
    stream: S,
    peer: SocketAddr,
    tls: Option<OverTls>,
    router: Router,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(Some(PING_INTERVAL));
    let router = TowerToHyperService::new(router);
    let begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&begun);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        begins.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        if let Some(tls) = tls {
            request.extensions_mut().insert(tls);
        }
        router.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Nothing below this watches a client that says nothing, or half of which protocol it speaks.
    let first_head = tokio::time::sleep(HEAD_TIMEOUT);
    tokio::pin!(first_head);
    let (mut waits, mut stops) = (true, false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = shutdown.cancelled(), if !stops => {
                stops = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut first_head, if waits => {
                waits = false;
                if !begun.load(Ordering::Relaxed) {
                    tracing::debug!(%peer, "a connection asked for nothing");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}
