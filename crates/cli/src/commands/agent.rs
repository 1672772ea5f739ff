//! Run a node.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use hotswap_agent::{Agent, AgentConfig};
use hotswap_core::ids::{EnvName, NodeId};
use hotswap_runtime::{WasmHost, WasmHostConfig};

use super::serving::{asked_to_stop, start_logs};
use crate::args::{self, Global};
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;

/// Serves until it is told to stop.
pub(super) async fn run(args: &args::Agent, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    start_logs();
    let stop = asked_to_stop()?;
    let node: NodeId = args
        .node
        .parse()
        .map_err(|error| Problem::usage(format!("--node: {error}")))?;
    let environment: EnvName = args
        .environment
        .parse()
        .map_err(|error| Problem::usage(format!("--environment: {error}")))?;
    let data = args
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("hotswap-agent-{node}")));
    let host = WasmHostConfig {
        cache_dir: Some(data.join("compiled")),
        ..WasmHostConfig::default()
    };
    let host = Arc::new(WasmHost::new(host).context("failed to start the WebAssembly runtime")?);
    let mut config = AgentConfig::new(node, environment, global.agents_url(), data);
    config.labels = args.labels.iter().cloned().collect();
    config.listen = args.ingress;
    config.hostname = std::fs::read_to_string("/etc/hostname")
        .ok()
        .map(|name| name.trim().to_owned());
    let agent = Agent::start(config, host).await?;
    output.line(format!("ready: http://{}", agent.ingress_addr()))?;
    stop.await;
    tracing::info!("stopping: requests on their way are finished first");
    agent.shutdown().await;
    Ok(Exit::Done)
}
