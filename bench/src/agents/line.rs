//! How nodes' lines to the server are secured: not at all, or by a certificate on both sides.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hotswap_transport::{
    ClientConfig, FLEET_ALPN, FleetStream, Identity, JoinToken, Roots, client_config, dial,
    pinned_client_config, request,
};
use hotswap_wire::pb;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

/// An agent asks a silent line this often whether it stands; the same here, or memory and time would not be real.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
/// Joins under way at once, and of one line: the server gives those without a certificate half a minute.
const JOINING_MAX: usize = 64;
const JOINS_OF_A_LINE: usize = 500;

/// The nodes' lines to a server.
pub(crate) struct Lines {
    server: SocketAddr,
    /// Each node's side of TLS, with a certificate of its own; empty without TLS.
    configs: Vec<Arc<ClientConfig>>,
}

impl Lines {
    /// Without TLS.
    pub(crate) fn plain(server: SocketAddr) -> Self {
        Self {
            server,
            configs: Vec::new(),
        }
    }

    /// Has so many nodes join by a token, each with a key of its own.
    pub(crate) async fn join(server: SocketAddr, token: &str, nodes: usize) -> Result<Self> {
        let pin = token.parse::<JoinToken>()?.authority;
        let anonymous = Arc::new(pinned_client_config(pin, FLEET_ALPN)?);
        let mut configs = Vec::with_capacity(nodes);
        for first in (0..nodes).step_by(JOINS_OF_A_LINE) {
            let line = channel(server, Some(&anonymous)).await?;
            let last = nodes.min(first + JOINS_OF_A_LINE);
            let joining = (first..last).map(|number| join(line.clone(), token, number));
            let joining = stream::iter(joining).buffered(JOINING_MAX);
            let joined: Vec<_> = joining.try_collect().await.context("a node could not join")?;
            configs.extend(joined);
        }
        Ok(Self { server, configs })
    }

    /// A node's line.
    pub(super) async fn open(&self, number: usize) -> Result<Channel> {
        channel(self.server, self.configs.get(number)).await
    }
}

/// A certificate for a node, against a token; what it speaks from then on.
async fn join(line: Channel, token: &str, number: usize) -> Result<Arc<ClientConfig>> {
    let request = request()?;
    let ask = pb::JoinRequest {
        token: token.to_owned(),
        node: name(number),
        request: request.csr_der,
    };
    let granted = AgentServiceClient::new(line).join(ask).await?.into_inner();
    let identity = Identity::from_pem(&granted.chain, &request.key_pem)?;
    let roots = Roots::Pem(granted.authority);
    let config = client_config(roots, Some(Arc::new(identity)), FLEET_ALPN)?;
    Ok(Arc::new(config))
}

/// A node's name.
pub(super) fn name(number: usize) -> String {
    format!("node-{number:05}")
}

async fn channel(server: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?
        .connect_timeout(CONNECT_TIME_MAX)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(match config {
        None => endpoint.connect().await?,
        Some(config) => {
            let connector = Connector {
                server,
                config: Arc::clone(config),
            };
            endpoint.connect_with_connector(connector).await?
        }
    })
}

/// Connects by TLS, as an agent does.
struct Connector {
    server: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<FleetStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (server, config) = (self.server, Arc::clone(&self.config));
        Box::pin(async move {
            let stream = dial(&config, &server.ip().to_string(), server.port()).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
