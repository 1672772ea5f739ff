//! Run the control plane.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use hotswap_core::policy::Environment;
use hotswap_runtime::{WasmHost, WasmHostConfig};
use hotswap_server::Server;

use super::serving::{asked_to_stop, start_logs};
use super::settings;
use crate::args;
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;

/// Serves until it is told to stop.
pub(super) async fn run(args: &args::Server, output: &Output) -> anyhow::Result<Exit> {
    let loaded = settings::load(&settings::server_sources(args))?;
    start_logs(&loaded)?;
    let stop = asked_to_stop()?;
    let mut config = settings::server_config(&loaded);
    if let Some(path) = &args.environments {
        config.environments = Some(read_environments(path)?);
    }
    // The server compiles and tries releases in the runtime that nodes have.
    let host = WasmHostConfig {
        cache_dir: Some(config.data_dir.join("compiled")),
        ..WasmHostConfig::default()
    };
    let host = Arc::new(WasmHost::new(host).context("failed to start the WebAssembly runtime")?);
    let mut server = Server::start(config, host).await?;
    output.line(format!("ready: http://{}", server.http_addr()))?;
    tracing::info!(http = %server.http_addr(), agents = %server.agents_addr(), "ready");
    tokio::select! {
        () = stop => {}
        // Only where the store failed: what is durable is found out by the next start.
        ended = server.ended() => {
            ended.context("the server ended by itself; start it again")?;
            return Ok(Exit::Failed);
        }
    }
    tracing::info!("stopping");
    server.shutdown().await?;
    Ok(Exit::Done)
}

/// The environments of a file: the JSON of what the core calls an environment, in order.
fn read_environments(path: &Path) -> anyhow::Result<Vec<Environment>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::usage(format!("{shown} can't be read: {error}")))?;
    let environments: Vec<Environment> = serde_json::from_str(&text)
        .map_err(|error| Problem::usage(format!("{shown} has no list of environments: {error}")))?;
    Environment::validate_all(&environments).map_err(|faults| {
        Problem::usage(format!("the environments of {shown} are faulty")).details(faults)
    })?;
    Ok(environments)
}
