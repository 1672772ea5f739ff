//! Run a node.

use std::sync::Arc;

use anyhow::Context as _;
use hotswap_agent::Agent;
use hotswap_runtime::{WasmHost, WasmHostConfig};

use super::serving::{asked_to_stop, start_logs};
use super::settings;
use crate::args::{self, Global};
use crate::exit::Exit;
use crate::output::Output;

/// Serves until it is told to stop.
pub(super) async fn run(args: &args::Agent, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let loaded = settings::load(&settings::agent_sources(args, global))?;
    start_logs(&loaded)?;
    let stop = asked_to_stop()?;
    let config = settings::agent_config(&loaded)?;
    let host = WasmHostConfig {
        cache_dir: Some(config.data_dir.join("compiled")),
        grants: settings::node_grants(&loaded),
        ..WasmHostConfig::default()
    };
    let host = Arc::new(WasmHost::new(host).context("failed to start the WebAssembly runtime")?);
    let agent = Agent::start(config, host).await?;
    output.line(format!("ready: http://{}", agent.ingress_addr()))?;
    stop.await;
    tracing::info!("stopping: requests on their way are finished first");
    agent.shutdown().await;
    Ok(Exit::Done)
}
