//! A server and 38 agents in one process; each has its own session, ledger and ingress.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use hotswap_agent::{Agent, AgentConfig, JoinSource, RunningAgent};
use hotswap_runtime::{Runtime, WasmHost, WasmHostConfig};
use hotswap_server::{RunningServer, Server, ServerConfig, StartError};
use hotswap_transport::JoinToken;
use hotswap_trust::{Gate, SigningIdentity};
use serde_json::json;
use tempfile::TempDir;

use super::policy::{FLEET, HEARTBEAT, PRODUCTION, environments};
use super::traffic::Target;
use crate::client::Client;
use crate::commands::signing;
use crate::problem::Problem;

/// Zones that the nodes are spread over.
const ZONES: [&str; 3] = ["a", "b", "c"];
/// A node without a report for so many heartbeats counts as failed.
const HEARTBEATS_MISSED_MAX: u32 = 10;

/// Where everything is kept.
#[derive(Debug)]
enum Data {
    /// Until the demo ends.
    Temporary(TempDir),
    /// For as long as its owner wants.
    Given(PathBuf),
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

/// What a server that didn't start is told as.
fn start_problem(error: StartError) -> anyhow::Error {
    match error {
        StartError::Listen { .. } => Problem::failed(error.to_string())
            .next("`--port 0` picks a free port for the demo, `--port N` another")
            .into(),
        error => error.into(),
    }
}

/// A root and a signer of the demo's own: made anew, or found where the folder is an earlier demo's.
fn trust(dir: &Path) -> anyhow::Result<(Gate, SigningIdentity)> {
    let trust_file = dir.join(signing::TRUST_FILE);
    if !trust_file.exists() {
        signing::make_trust(dir, "Hotswap demo signer")?;
    }
    Ok((Gate::signed(trust_file), signing::identity_in(dir)?))
}

/// What an environment's nodes join by: as many as it has, within the hour.
pub(super) async fn join_token(
    client: &Client,
    environment: &str,
    nodes: usize,
) -> anyhow::Result<JoinToken> {
    let body = json!({ "environment": environment, "uses": nodes, "nodes": format!("{}-*", environment.to_lowercase()) });
    let answer = client.post(&["join-tokens"], Some(&body)).await?;
    let token = answer["token"].as_str().unwrap_or_default();
    token.parse().context("failed to make a join token")
}

/// What any fleet of a demo stands on.
pub(super) struct Ground {
    pub(super) server: RunningServer,
    pub(super) host: Arc<WasmHost>,
    pub(super) gate: Gate,
    pub(super) signer: SigningIdentity,
}

impl Ground {
    /// Starts a server with the demo's accounts and a signer of its own, both kept in this folder; what else it is to
    /// be like is the caller's.
    ///
    /// # Errors
    /// The port is in use, the folder is not writable, …
    pub(super) async fn start(
        data: &Path,
        port: u16,
        shape: impl FnOnce(&mut ServerConfig),
    ) -> anyhow::Result<Self> {
        let host = WasmHostConfig {
            cache_dir: Some(data.join("compiled")),
            ..WasmHostConfig::default()
        };
        let host = Arc::new(WasmHost::new(host).context("failed to start the WebAssembly runtime")?);
        let (gate, signer) = trust(&data.join("trust"))?;
        let mut config = ServerConfig::new(data.join("server"));
        config.gate = gate.clone();
        config.http.set_port(port);
        config.agents.set_port(0);
        config.access.demo = true;
        config.rate_limits.loopback_is_free = true;
        shape(&mut config);
        let runtime: Arc<dyn Runtime> = Arc::<WasmHost>::clone(&host);
        let server = Server::start(config, runtime).await.map_err(start_problem)?;
        Ok(Self {
            server,
            host,
            gate,
            signer,
        })
    }
}

/// The running fleet.
pub(crate) struct Fleet {
    server: RunningServer,
    agents: Vec<(&'static str, f64, RunningAgent)>,
    host: Arc<WasmHost>,
    gate: Gate,
    signer: SigningIdentity,
    // Last: its folder goes when nobody writes to it any more.
    data: Data,
}

impl Fleet {
    /// Starts the server alone: the API serves when this returns.
    ///
    /// # Errors
    /// The port is in use, the folder is not writable, …
    pub(crate) async fn start_server(data: Option<&Path>, port: u16) -> anyhow::Result<Self> {
        let data = match data {
            Some(path) => Data::Given(path.to_owned()),
            None => Data::Temporary(
                tempfile::Builder::new()
                    .prefix("hotswap-demo-")
                    .tempdir()
                    .context("failed to make a folder for the demo's data")?,
            ),
        };
        let ground = Ground::start(data.path(), port, |config| {
            config.environments = Some(environments());
            config.heartbeat = HEARTBEAT;
            config.heartbeat_timeout = HEARTBEAT * HEARTBEATS_MISSED_MAX;
        });
        let Ground {
            server,
            host,
            gate,
            signer,
        } = ground.await?;
        Ok(Self {
            server,
            agents: Vec::new(),
            host,
            gate,
            signer,
            data,
        })
    }

    /// Who signs the demo's modules.
    pub(crate) fn signer(&self) -> &SigningIdentity {
        &self.signer
    }

    /// Starts the agents, all at once.
    ///
    /// # Errors
    /// One of them can't start.
    pub(crate) async fn start_agents(&mut self, client: &Client) -> anyhow::Result<()> {
        let server = format!("https://{}", self.server.agents_addr());
        let mut starting = Vec::new();
        for (environment, count, rate) in FLEET {
            let token = join_token(client, environment, count).await?;
            for number in 1..=count {
                let name = format!("{}-{number:02}", environment.to_lowercase());
                let dir = self.data.path().join("nodes").join(&name);
                let mut config = AgentConfig::new(name.parse()?, environment.parse()?, &server, dir);
                let zone = ZONES[number % ZONES.len()];
                config.labels.insert("zone".to_owned(), zone.to_owned());
                config.heartbeat = HEARTBEAT;
                config.gate = self.gate.clone();
                config.join = Some(JoinSource::Token(token.clone()));
                config.drain_deadline = std::time::Duration::from_secs(2);
                let host = Arc::clone(&self.host);
                starting.push(async move {
                    let agent = Agent::start(config, host).await;
                    agent
                        .map(|agent| (environment, rate, agent))
                        .with_context(|| format!("failed to start node {name}"))
                });
            }
        }
        self.agents = try_join_all(starting).await?;
        Ok(())
    }

    /// Where the API is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.http_addr())
    }

    /// The nodes as the customers see them.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |(environment, rate, agent): &(&'static str, f64, RunningAgent)| Target {
            environment: (*environment).to_owned(),
            ingress: agent.ingress_addr(),
            rate: *rate,
            production: *environment == PRODUCTION,
        };
        self.agents.iter().map(target).collect()
    }

    /// An ingress in an environment, to try out.
    pub(crate) fn ingress_of(&self, environment: &str) -> Option<std::net::SocketAddr> {
        let (_, _, agent) = self.agents.iter().find(|(name, ..)| *name == environment)?;
        Some(agent.ingress_addr())
    }

    /// Stops the agents, then the server, then removes what is not to stay.
    ///
    /// # Errors
    /// The folder could not be removed.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        join_all(self.agents.into_iter().map(|(_, _, agent)| agent.shutdown())).await;
        self.server
            .shutdown()
            .await
            .context("failed to stop the server")?;
        drop(self.host);
        match self.data {
            Data::Temporary(dir) => {
                let path = dir.path().to_owned();
                dir.close()
                    .with_context(|| format!("failed to remove {}", path.display()))
            }
            Data::Given(_) => Ok(()),
        }
    }
}
