//! Run a node.

use std::future::Future;
use std::path::PathBuf;

use anyhow::Context as _;
use hotswap_agent::takeover::{Door, Heir, Offer, Outcome};
use hotswap_agent::{Agent, AgentConfig, RunningAgent};
use hotswap_runtime::Runtimes;
use tokio::signal::unix::{Signal, SignalKind};

use super::service::{self, Watchdog};
use super::serving::{Logs, asked_to_stop, start_logs};
use super::settings::Live;
use super::{serving, settings};
use crate::args::{self, Global};
use crate::exit::Exit;
use crate::output::Output;

/// Serves until it is told to stop, or has a successor.
pub(super) async fn run(args: &args::Agent, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let live = Live::load(settings::agent_sources(args, global))?;
    let logs = start_logs(live.loaded())?;
    let stop = asked_to_stop()?;
    let signals = Signals {
        reload: serving::signals(SignalKind::hangup())?,
        upgrade: serving::signals(SignalKind::user_defined2())?,
    };
    let config = settings::agent_config(live.loaded())?;
    let program = std::env::current_exe().context("failed to find this program's file")?;
    // Before the runtimes are made: a predecessor that isn't there costs nothing.
    let offer = if args.takeover {
        Offer::ask(&config.data_dir).await?
    } else {
        None
    };
    let runtimes = settings::node_runtimes(live.loaded(), &config)?;
    let agent = start(&config, &runtimes, offer).await?;
    if let Err(error) = output.line(format!("ready: http://{}", agent.ingress_addr())) {
        // A successor may outlive whoever read its predecessor's output, and serves all the same.
        tracing::warn!(%error, "nobody reads standard output");
    }
    if let Some(metrics) = agent.metrics_addr() {
        tracing::info!(url = %format_args!("http://{metrics}/metrics"), "metrics");
    }
    service::ready();
    let node = Node {
        door: open_door(&config),
        agent,
        config,
        runtimes,
        program,
    };
    node.serve(stop, signals, live, logs).await
}

async fn start(
    config: &AgentConfig,
    runtimes: &Runtimes,
    offer: Option<Offer>,
) -> anyhow::Result<RunningAgent> {
    let (config, runtimes) = (config.clone(), runtimes.clone());
    if let Some(offer) = offer {
        let agent = offer.accept(config, runtimes).await?;
        tracing::info!(process = std::process::id(), "took the node over");
        return Ok(agent);
    }
    Ok(match service::listener("ingress")? {
        Some(listener) => Agent::start_on(config, runtimes, listener).await?,
        None => Agent::start(config, runtimes).await?,
    })
}

/// A node without a door serves all the same.
fn open_door(config: &AgentConfig) -> Option<Door> {
    Door::open(&config.data_dir)
        .map_err(|error| tracing::warn!(%error, "no successor can take this node over: stop it before the next starts"))
        .ok()
}

struct Signals {
    reload: Signal,
    upgrade: Signal,
}

/// A node, and what its successors need.
struct Node {
    agent: RunningAgent,
    door: Option<Door>,
    config: AgentConfig,
    runtimes: Runtimes,
    program: PathBuf,
}

impl Node {
    async fn serve(
        mut self,
        stop: impl Future<Output = ()>,
        mut signals: Signals,
        mut live: Live,
        logs: Logs,
    ) -> anyhow::Result<Exit> {
        tokio::pin!(stop);
        let mut watchdog = Watchdog::of_manager();
        loop {
            tokio::select! {
                () = &mut stop => {
                    tracing::info!("stopping: requests on their way are finished first");
                    service::stopping();
                    let stopped = self.agent.shutdown().await;
                    tracing::info!(connections_cut = stopped.connections_cut, "stopped");
                    return Ok(Exit::Done);
                }
                heir = knock(self.door.as_ref()) => {
                    let handing = self.hand_over(heir);
                    tokio::pin!(handing);
                    let node = loop {
                        tokio::select! {
                            node = &mut handing => break node?,
                            () = watchdog.due() => watchdog.feed(),
                        }
                    };
                    let Some(node) = node else { return Ok(Exit::Done) };
                    self = node;
                }
                _ = signals.upgrade.recv() => spawn_successor(&self.program),
                _ = signals.reload.recv() => service::reloading(
                    live.reload(async |loaded, changes| logs.take_up(loaded, changes))
                ).await,
                () = watchdog.due() => watchdog.feed(),
            }
        }
    }

    /// `None`: the successor has the node.
    async fn hand_over(self, heir: Heir) -> anyhow::Result<Option<Self>> {
        let process = heir.process;
        tracing::info!(?process, "a successor asks for this node");
        let succeeded = |process| {
            tracing::info!(
                ?process,
                "the successor serves; requests on their way are finished first"
            );
            service::succeeded_by(process);
        };
        match heir
            .hand_over(self.agent, &self.config, &self.runtimes, succeeded)
            .await?
        {
            Outcome::Succeeded(stopped) => {
                tracing::info!(?process, connections_cut = stopped.connections_cut, "succeeded");
                Ok(None)
            }
            Outcome::Stays(agent, error) => {
                tracing::error!(
                    ?process,
                    error = &error as &dyn std::error::Error,
                    "the successor failed: this process keeps the node"
                );
                Ok(Some(Self { agent, ..self }))
            }
        }
    }
}

async fn knock(door: Option<&Door>) -> Heir {
    match door {
        Some(door) => door.knock().await,
        None => std::future::pending().await,
    }
}

/// Starts what lies at this program's path now, with this process's arguments.
fn spawn_successor(program: &std::path::Path) {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--takeover") {
        arguments.push("--takeover".into());
    }
    let spawned = tokio::process::Command::new(program)
        .args(arguments)
        // What a service manager gave is this process's: the successor gets its socket through the door.
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("WATCHDOG_PID")
        .stdin(std::process::Stdio::null())
        .spawn();
    match spawned {
        Ok(mut child) => {
            tracing::info!(process = child.id(), program = %program.display(), "started a successor");
            tokio::spawn(async move {
                // Only one that failed ends before this process does.
                if let Ok(status) = child.wait().await {
                    tracing::error!(%status, "the successor ended");
                }
            });
        }
        Err(error) => {
            tracing::error!(%error, program = %program.display(), "no successor could be started: this process keeps the node");
        }
    }
}
