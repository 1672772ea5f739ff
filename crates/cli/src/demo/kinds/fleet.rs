//! A server and three agents in one process, each with every runtime that this machine can have.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hotswap_agent::{Agent, AgentConfig, JoinSource, RunningAgent};
use hotswap_core::ids::EnvName;
use hotswap_core::policy::{CanaryBy, Environment, RolloutPolicy, Strategy};
use hotswap_core::time::Millis;
use hotswap_package::Kind;
use hotswap_runtime::{
    EbpfHost, EbpfHostConfig, Grants, KernelHost, KernelHostConfig, ProcessHost, ProcessHostConfig, Runtimes,
    WasmHost,
};
use hotswap_server::{Grant, RunningServer};
use hotswap_trust::{Gate, SigningIdentity};
use tempfile::TempDir;

use super::drive::Wire;
use super::machine::Machine;
use crate::client::{Accepted, Client, Deployment, typed};
use crate::demo::fleet::{Ground, join_token};

/// The environment with one node: the machine has one kernel, so no other node may load modules into it.
pub(super) const FIRST: &str = "Staging";
/// The environment with two.
pub(super) const LAST: &str = "Production";
/// Nodes of each.
const PLACES: [(&str, usize); 2] = [(FIRST, 1), (LAST, 2)];
/// All of them.
pub(super) const NODES: usize = 3;

/// Nodes of an environment.
pub(super) fn nodes_of(environment: &str) -> u64 {
    let places = PLACES.iter().filter(|(name, _)| *name == environment);
    places.map(|(_, nodes)| *nodes as u64).sum()
}

const HEARTBEAT: Duration = Duration::from_millis(500);
/// A node without a report for so many heartbeats counts as failed.
const HEARTBEATS_MISSED_MAX: u32 = 20;
/// The variable by which modules name the interface that they are put at.
const UPLINK: &str = "UPLINK";
/// Longest wait for a module to be taken out again.
const TAKEN_OUT_WITHIN: Duration = Duration::from_secs(20);

/// The running fleet.
pub(super) struct Fleet {
    server: RunningServer,
    agents: Vec<(&'static str, RunningAgent)>,
    wires: Vec<(&'static str, Wire)>,
    host: Arc<WasmHost>,
    gate: Gate,
    signer: SigningIdentity,
    machine: Machine,
    client: Option<Client>,
    /// What has to be taken out of the kernel before the end, last one first.
    loaded: Vec<&'static str>,
    // Last: it goes when nobody writes to it any more.
    data: TempDir,
}

fn environments() -> Vec<Environment> {
    let standard = Environment::defaults().pop().expect("there are four");
    let strategies = [
        Strategy::Direct,
        Strategy::Canary {
            by: CanaryBy::Nodes,
            percents: vec![50, 100],
        },
    ];
    let of = |(name, strategy): (&str, Strategy)| {
        let mut environment = Environment {
            name: name.parse().expect("a literal environment name is valid"),
            strategy,
            policy: RolloutPolicy {
                settle: Millis::from_secs(1),
                step_deadline: Millis::from_secs(20),
                silence_max: Millis::from_secs(10),
                soak_min: Millis::from_secs(2),
                soak_max: Millis::from_secs(60),
                interval: Millis(500),
                probes_per_interval: 10,
                back_deadline: Millis::from_secs(20),
                ..standard.policy.clone()
            },
            ..standard.clone()
        };
        // Below a millisecond an answer's latency tells of this machine, not of the release.
        environment.policy.judge.latency_floor_us = 1_000;
        environment
    };
    PLACES
        .map(|(name, _)| name)
        .into_iter()
        .zip(strategies)
        .map(of)
        .collect()
}

impl Fleet {
    /// Starts the server alone.
    ///
    /// # Errors
    /// The port is in use, …
    pub(super) async fn start(port: u16, machine: &Machine) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("hotswap-demo-").tempdir();
        let data = data.context("failed to make a folder for the demo's data")?;
        let ground = Ground::start(data.path(), port, |config| {
            config.environments = Some(environments());
            config.grants = PLACES.map(|(name, _)| granted(name)).into();
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
            wires: Vec::new(),
            host,
            gate,
            signer,
            machine: machine.clone(),
            client: None,
            loaded: Vec::new(),
            data,
        })
    }

    /// Where the API is.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.http_addr())
    }

    pub(super) fn signer(&self) -> &SigningIdentity {
        &self.signer
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The agents that get a kind's traffic, with their environments.
    pub(super) fn agents(&self) -> &[(&'static str, RunningAgent)] {
        &self.agents
    }

    pub(super) fn wires(&self) -> &[(&'static str, Wire)] {
        &self.wires
    }

    /// Notes that a module is about to be loaded into the machine's kernel.
    pub(super) fn loads(&mut self, module: &'static str) {
        self.loaded.push(module);
    }

    /// Starts the agents.
    ///
    /// # Errors
    /// One of them can't start.
    pub(super) async fn start_agents(&mut self, client: &Client) -> anyhow::Result<()> {
        self.client = Some(client.clone());
        let server = format!("https://{}", self.server.agents_addr());
        for (environment, count) in PLACES {
            let token = join_token(client, environment, count).await?;
            for number in 1..=count {
                let name = format!("{}-{number}", environment.to_lowercase());
                let dir = self.data.path().join("nodes").join(&name);
                let uplink = if self.machine.can(Kind::Ebpf) {
                    let wire = Wire::new(self.wires.len() + 1)?;
                    let uplink = wire.name.clone();
                    self.wires.push((environment, wire));
                    uplink
                } else {
                    String::new()
                };
                let runtimes = self.runtimes(&dir, environment, &uplink)?;
                let mut config = AgentConfig::new(name.parse()?, environment.parse()?, &server, dir);
                config.heartbeat = HEARTBEAT;
                config.gate = self.gate.clone();
                config.join = Some(JoinSource::Token(token.clone()));
                config.drain_deadline = Duration::from_secs(2);
                let agent = Agent::start(config, runtimes).await;
                let agent = agent.with_context(|| format!("failed to start node {name}"))?;
                self.agents.push((environment, agent));
            }
        }
        Ok(())
    }

    fn runtimes(&self, dir: &Path, environment: &str, uplink: &str) -> anyhow::Result<Runtimes> {
        let mut runtimes = Runtimes::from(&self.host);
        if self.machine.can(Kind::Process) {
            let host = ProcessHost::new(ProcessHostConfig::new(dir.join("processes")));
            runtimes = runtimes.with(Arc::new(
                host.context("failed to start the runtime of native processes")?,
            ));
        }
        if self.machine.can(Kind::Ebpf) {
            let grants = Grants {
                variables: [(UPLINK.to_owned(), uplink.to_owned())].into(),
                ..Grants::default()
            };
            let host = EbpfHost::new(EbpfHostConfig::new(grants));
            runtimes = runtimes.with(Arc::new(
                host.context("failed to start the runtime of eBPF programs")?,
            ));
        }
        if self.machine.can(Kind::Kernel) && environment == FIRST {
            let host = KernelHost::new(KernelHostConfig::new(dir.join("kernel")));
            runtimes = runtimes.with(Arc::new(
                host.context("failed to start the runtime of kernel modules")?,
            ));
        }
        Ok(runtimes)
    }

    /// Takes out what outlives agents, then stops them and the server.
    ///
    /// # Errors
    /// Something stays in the kernel, or could not be stopped in order.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        if let Some(client) = self.client.take() {
            for module in self.loaded.drain(..).rev() {
                if let Err(error) = take_out(&client, module).await {
                    left.push(format!("{module}: {error:#}"));
                }
            }
        }
        for (_, agent) in self.agents {
            agent.shutdown().await;
        }
        self.server
            .shutdown()
            .await
            .context("failed to stop the server")?;
        anyhow::ensure!(
            left.is_empty(),
            "kernel modules stay loaded ({}): unload them by rmmod",
            left.join("; ")
        );
        Ok(())
    }
}

/// Undeploys a kernel module, also where a rollout of it was under way.
async fn take_out(client: &Client, module: &str) -> anyhow::Result<()> {
    let running: Vec<Deployment> = client.fetch(&["deployments"], &[]).await?;
    for deployment in running
        .iter()
        .filter(|deployment| deployment.module_name == module)
    {
        if !deployment.is_finished() {
            // It may just have ended.
            let _ = client
                .post(&["deployments", &deployment.execution_id, "abort"], None::<&()>)
                .await;
        }
    }
    let body = serde_json::json!({ "environment": FIRST });
    let accepted: Accepted = typed(client.post(&["modules", module, "undeploy"], Some(&body)).await?)?;
    let deadline = Instant::now() + TAKEN_OUT_WITHIN;
    loop {
        let deployment: Deployment = client
            .fetch(&["deployments", &accepted.execution_id], &[])
            .await?;
        if deployment.is_finished() {
            anyhow::ensure!(
                deployment.status == "Succeeded",
                "{}",
                deployment.message.unwrap_or_default()
            );
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "it is not unloaded after {} s",
            TAKEN_OUT_WITHIN.as_secs()
        );
        tokio::time::sleep(super::show::LOOK).await;
    }
}

fn granted(environment: &str) -> Grant {
    Grant {
        environment: environment
            .parse::<EnvName>()
            .expect("a literal environment name is valid"),
        outbound_hosts: Vec::new(),
        variables: vec![UPLINK.to_owned()],
        kinds: vec![Kind::Process, Kind::Ebpf, Kind::Kernel],
    }
}
