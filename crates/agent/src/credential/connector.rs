//! Lines to the server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use hotswap_transport::{FleetStream, dial};
use http::Uri;
use http::uri::Scheme;
use hyper_util::rt::TokioIo;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::{ClientConfig, Credential};

/// Longest time for a connection, and for the server's first answer.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A line that carried nothing for so long is asked whether it stands.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long an answer to that may take.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// The server's port where its address names none.
const PORT_DEFAULT: u16 = 5002;

fn endpoint(server: Uri) -> Endpoint {
    Endpoint::from(server)
        .connect_timeout(CONNECT_TIME_MAX)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIME_MAX)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// The line to the server that a node's parts share. Cheap to clone; the clones are one.
#[derive(Clone)]
pub(crate) struct ServerLine(Arc<Shared>);

struct Shared {
    server: Uri,
    credential: Option<Arc<Credential>>,
    channel: ArcSwap<Channel>,
}

impl std::fmt::Debug for ServerLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerLine")
            .field("server", &self.0.server)
            .finish_non_exhaustive()
    }
}

impl ServerLine {
    pub(crate) fn new(server: Uri, credential: Option<Arc<Credential>>) -> Self {
        let channel = ArcSwap::from_pointee(channel(server.clone(), credential.as_ref()));
        Self(Arc::new(Shared {
            server,
            credential,
            channel,
        }))
    }

    /// It, as it is now.
    pub(crate) fn channel(&self) -> Channel {
        Channel::clone(&self.0.channel.load())
    }

    /// Another one from now on. What stands was made with a certificate that is taken no more, and a server lets such a
    /// connection stand.
    pub(crate) fn begin_anew(&self) {
        let channel = channel(self.0.server.clone(), self.0.credential.as_ref());
        self.0.channel.store(Arc::new(channel));
    }
}

/// A line to the server that is made when it is needed, and again when it broke; each time with the certificate that the
/// node has then.
fn channel(server: Uri, credential: Option<&Arc<Credential>>) -> Channel {
    match credential {
        None => endpoint(server).connect_lazy(),
        Some(credential) => {
            let with = With::Certificate(Arc::clone(credential));
            endpoint(as_plain(server)).connect_with_connector_lazy(Connector(with))
        }
    }
}

/// A line for a node that has no certificate yet.
pub(super) fn anonymous(server: Uri, config: Arc<ClientConfig>) -> Channel {
    endpoint(as_plain(server)).connect_with_connector_lazy(Connector(With::Config(config)))
}

/// The address as tonic is to see it: TLS is the connector's, and tonic would do its own for `https`.
fn as_plain(server: Uri) -> Uri {
    let mut parts = server.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    Uri::from_parts(parts).expect("another scheme keeps an address whole")
}

/// What a handshake is done with.
#[derive(Clone)]
enum With {
    Certificate(Arc<Credential>),
    Config(Arc<ClientConfig>),
}

/// Connects by TLS to the fleet's server.
#[derive(Clone)]
struct Connector(With);

impl Service<Uri> for Connector {
    type Response = TokioIo<FleetStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let with = self.0.clone();
        Box::pin(async move {
            let config = match with {
                With::Config(config) => config,
                With::Certificate(credential) => credential.client_config().ok_or_else(|| {
                    io::Error::other("this node has no certificate yet: it has to join first")
                })?,
            };
            let host = server.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = server.port_u16().unwrap_or(PORT_DEFAULT);
            let stream = dial(&config, host, port).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
