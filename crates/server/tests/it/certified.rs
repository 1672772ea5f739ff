//! Nodes with certificates of their own, by the real protocol.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hotswap_server::{RunningServer, ServerConfig};
use hotswap_transport::{
    ClientConfig, FLEET_ALPN, FleetStream, Identity, JoinToken, Refusal, Request, Roots, client_config, dial,
    pinned_client_config, refusal, request,
};
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{REFUSAL_KEY, pb};
use hyper_util::rt::TokioIo;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Status;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use crate::harness::{TestServer, config};

/// A server that asks agents for certificates.
pub(crate) fn secured(dir: &TempDir) -> ServerConfig {
    ServerConfig {
        plain_agents: false,
        ..config(dir.path())
    }
}

pub(crate) async fn start() -> TestServer {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> TestServer {
    let dir = TempDir::new().unwrap();
    let mut config = secured(&dir);
    change(&mut config);
    TestServer::start_with(dir, config).await
}

/// Entries of the audit log of an action.
pub(crate) async fn audited(server: &TestServer, action: &str, outcome: &str) -> Value {
    let path = format!("/api/v1/audit?action={action}&outcome={outcome}");
    server
        .until(&path, |page| {
            page.as_array().is_some_and(|entries| !entries.is_empty())
        })
        .await
}

/// A join token of a test's server.
pub(crate) async fn token(server: &TestServer, body: &Value) -> (JoinToken, String) {
    let (status, answer) = server.post("/api/v1/join-tokens", body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer:#}");
    let id = answer["details"]["id"].as_str().unwrap().to_owned();
    (answer["token"].as_str().unwrap().parse().unwrap(), id)
}

/// One for a single node of an environment.
pub(crate) async fn token_for(server: &TestServer, environment: &str) -> JoinToken {
    token(server, &json!({ "environment": environment })).await.0
}

/// A node's certificate, and the authority that it knows its server by.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) identity: Arc<Identity>,
    pub(crate) authority: String,
    pub(crate) renew_in_ms: u64,
}

impl Certificate {
    fn of(key: &str, grant: pb::CertificateGrant) -> Self {
        Self {
            identity: Arc::new(Identity::from_pem(&grant.chain, key).unwrap()),
            authority: grant.authority,
            renew_in_ms: grant.renew_in_ms,
        }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let roots = Roots::Pem(self.authority.clone());
        Arc::new(client_config(roots, Some(Arc::clone(&self.identity)), FLEET_ALPN).unwrap())
    }

    /// A line to a server, or why its handshake came to nothing.
    pub(crate) async fn line(&self, server: &RunningServer) -> Result<AgentServiceClient<Channel>, Refusal> {
        line(server.agents_addr(), self.config()).await
    }

    /// Another one for the same node, by a line that stands.
    pub(crate) async fn renewed(client: &mut AgentServiceClient<Channel>) -> Result<Self, Status> {
        let new = request().unwrap();
        let ask = pb::RenewRequest { request: new.csr_der };
        let granted = client.renew(ask).await?.into_inner();
        Ok(Self::of(&new.key_pem, granted))
    }
}

/// Connects at once, so that a refusal shows.
pub(crate) async fn line(
    server: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<AgentServiceClient<Channel>, Refusal> {
    // TLS is the connector's.
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    let channel = endpoint.connect_with_connector(Connector(config)).await;
    let channel =
        channel.map_err(|error| refusal(&error).unwrap_or_else(|| panic!("no refusal: {error:?}")))?;
    Ok(AgentServiceClient::new(channel))
}

/// A line of somebody who has a join token and no certificate.
pub(crate) async fn anonymous(
    server: &RunningServer,
    token: &JoinToken,
) -> Result<AgentServiceClient<Channel>, Refusal> {
    let config = pinned_client_config(token.authority, FLEET_ALPN).unwrap();
    line(server.agents_addr(), Arc::new(config)).await
}

/// Joins with a key.
pub(crate) async fn join_with(
    server: &RunningServer,
    token: &JoinToken,
    node: &str,
    key: &Request,
) -> Result<Certificate, Status> {
    let ask = pb::JoinRequest {
        token: token.text().as_str().to_owned(),
        node: node.to_owned(),
        request: key.csr_der.clone(),
    };
    let mut client = anonymous(server, token).await.unwrap();
    let granted = client.join(ask).await?.into_inner();
    Ok(Certificate::of(&key.key_pem, granted))
}

/// Joins with a new key.
pub(crate) async fn join(
    server: &RunningServer,
    token: &JoinToken,
    node: &str,
) -> Result<Certificate, Status> {
    join_with(server, token, node, &request().unwrap()).await
}

/// A refusal's code.
pub(crate) fn code(status: &Status) -> &str {
    let code = status.metadata().get(REFUSAL_KEY);
    code.unwrap_or_else(|| panic!("no code: {status:?}"))
        .to_str()
        .unwrap()
}

#[derive(Clone)]
struct Connector(Arc<ClientConfig>);

impl Service<Uri> for Connector {
    type Response = TokioIo<FleetStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let config = Arc::clone(&self.0);
        Box::pin(async move {
            let (host, port) = (server.host().unwrap(), server.port_u16().unwrap());
            Ok(TokioIo::new(dial(&config, host, port).await?))
        })
    }
}
