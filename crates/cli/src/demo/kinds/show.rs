//! One kind's chapter: its first release goes out, traffic comes, the next release takes its place.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hotswap_package::Kind;

use super::drive::Drive;
use super::fleet::{FIRST, Fleet, LAST, nodes_of};
use super::machine::Shown;
use super::modules::{Example, example, packages};
use super::report::Swap;
use crate::client::{Accepted, Client, Deployment, NewDeployment, Node, Why, typed};
use crate::commands::signing;
use crate::demo::view::clock;
use crate::output::Output;

/// How often the API is asked.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for all nodes to say hello.
const NODES_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a deployment.
const DEPLOYMENT_WAIT_MAX: Duration = Duration::from_secs(120);
/// How much traffic there is before the swap, so that there is something to compare with.
const BEFORE: u64 = 1_000;
/// Longest wait for it, and for the nodes to have counted what was sent.
const COUNTED_WITHIN: Duration = Duration::from_secs(20);

/// Who shows and tells.
pub(super) struct Stage<'a> {
    pub(super) client: Client,
    pub(super) output: &'a Output,
    pub(super) began: Instant,
}

impl Stage<'_> {
    /// Tells a happening.
    pub(super) fn tell(&self, text: impl AsRef<str>) -> std::io::Result<()> {
        if self.output.is_json() {
            return Ok(());
        }
        let at = clock(self.began.elapsed());
        self.output.line(format!("{at:>5}  {}", text.as_ref()))
    }

    /// Waits until all nodes said hello.
    pub(super) async fn nodes_are_up(&self, expected: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + NODES_WAIT_MAX;
        loop {
            let nodes: Vec<Node> = self.client.fetch(&["nodes"], &[]).await?;
            let is_up = |node: &&Node| matches!(node.status.as_str(), "Running" | "Degraded");
            let up = nodes.iter().filter(is_up).count();
            if up == expected {
                return Ok(self.tell(format!("{expected} nodes are up, one in {FIRST}, two in {LAST}"))?);
            }
            if Instant::now() > deadline {
                bail!(
                    "only {up} of {expected} nodes were up after {} s",
                    NODES_WAIT_MAX.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn deploy(&self, name: &str, version: &str, target: &str) -> anyhow::Result<Deployment> {
        let wanted = NewDeployment {
            module_name: name.to_owned(),
            version: version.to_owned(),
            target_environment: target.to_owned(),
            requester_email: "demo@hotswap.local".to_owned(),
            require_approval: false,
            description: String::new(),
            metadata: std::collections::BTreeMap::new(),
            allow_downgrade: false,
            supersede: false,
            seed: None,
        };
        let accepted: Accepted = typed(self.client.post(&["deployments"], Some(&wanted)).await?)?;
        let id = accepted.execution_id;
        let deadline = Instant::now() + DEPLOYMENT_WAIT_MAX;
        let mut told = 0;
        loop {
            let deployment: Deployment = self.client.fetch(&["deployments", &id], &[]).await?;
            let why: Why = self.client.fetch(&["deployments", &id, "why"], &[]).await?;
            for decision in why.decisions.iter().skip(told) {
                let kind = decision.data.get("type").and_then(serde_json::Value::as_str);
                if matches!(
                    kind,
                    Some("stepCompleted" | "backStarted" | "nodeExcluded" | "rolloutHeld")
                ) {
                    let place = decision.stage.trim_start_matches("Deploy to ");
                    self.tell(format!("  {place}: {}", decision.message))?;
                }
            }
            told = why.decisions.len();
            if deployment.is_finished() {
                let message = deployment.message.as_deref().unwrap_or_default();
                self.tell(format!("{name} {version}: {}. {message}", deployment.status))?;
                return Ok(deployment);
            }
            if Instant::now() > deadline {
                bail!(
                    "{name} {version} was not through after {} s",
                    DEPLOYMENT_WAIT_MAX.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deploys what has to succeed for anything to be shown.
    async fn deploys(&self, name: &str, version: &str, target: &str) -> anyhow::Result<()> {
        let deployment = self.deploy(name, version, target).await?;
        if deployment.status != "Succeeded" {
            bail!(
                "{name} {version} did not go out: {}",
                deployment.message.unwrap_or_default()
            );
        }
        Ok(())
    }
}

/// Shows one kind.
///
/// # Errors
/// Its first release did not go out, or the API fails.
pub(super) async fn kind(stage: &mut Stage<'_>, fleet: &mut Fleet, shown: &Shown) -> anyhow::Result<Swap> {
    let Example {
        name,
        from,
        to,
        needs,
    } = example(shown.kind);
    let target = if shown.kind == Kind::Kernel { FIRST } else { LAST };
    let mut checks = 0;
    for package in packages(shown.kind, fleet.machine())? {
        // Of the release that comes last.
        checks = package.manifest.smoke.len() as u64 * nodes_of(target);
        let signature = signing::make(fleet.signer(), &package.digest)?;
        stage
            .client
            .push(package.file, Some(signature.into()), std::sync::Arc::new(|_| {}))
            .await?;
    }
    stage.tell(format!(
        "{}: {name} {from} and {to} are signed and pushed",
        shown.title
    ))?;
    if let Some((gate, version)) = needs {
        fleet.loads(gate);
        stage.deploys(gate, version, target).await?;
    }
    if shown.kind == Kind::Kernel {
        fleet.loads(name);
    }
    stage.deploys(name, from, target).await?;

    let counted_before = counted(fleet);
    let drive = drive(shown.kind, fleet)?;
    let begun = Instant::now();
    until(|| counted(fleet) - counted_before >= BEFORE)
        .await
        .with_context(|| format!("the nodes did not count {BEFORE} of what {name} gets"))?;
    stage.tell(format!(
        "{} come; now {to} is to take the place of {from}",
        what(shown.kind)
    ))?;
    let deployment = stage.deploy(name, to, target).await?;
    let seen = drive.end().await?;
    let took = begun.elapsed();
    // What was sent last may not be counted yet; whether it ever is, the report says.
    let all = || counted(fleet) - counted_before >= seen.sent + checks;
    let _ = until(all).await;
    Ok(Swap {
        kind: shown.title,
        module: name,
        from,
        to,
        status: deployment.status,
        message: deployment.message.unwrap_or_default(),
        what: what(shown.kind),
        seconds: took.as_secs_f64(),
        sent: seen.sent,
        checks,
        missed: seen.missed,
        counted: counted(fleet) - counted_before,
        by_version: seen.by_version,
    })
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Wasm | Kind::Process => "requests",
        Kind::Ebpf => "packets",
        Kind::Kernel => "calls through the gate",
    }
}

fn drive(kind: Kind, fleet: &Fleet) -> anyhow::Result<Drive> {
    let ingresses: Vec<_> = fleet
        .agents()
        .iter()
        .map(|(_, agent)| agent.ingress_addr())
        .collect();
    match kind {
        Kind::Wasm => Drive::requests(&ingresses, "/payments/currencies"),
        Kind::Process => Drive::requests(&ingresses, "/greetings/Ada"),
        Kind::Ebpf => Drive::packets(fleet.wires().iter().map(|(_, wire)| wire)),
        Kind::Kernel => Ok(Drive::calls(Path::new(
            "/sys/module/hotswap_gate/parameters/call",
        ))),
    }
}

/// What all nodes counted of their modules' requests so far, by their own meters.
fn counted(fleet: &Fleet) -> u64 {
    fleet
        .agents()
        .iter()
        .map(|(_, agent)| agent.stats().requests)
        .sum()
}

async fn until(is: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + COUNTED_WITHIN;
    while !is() {
        if Instant::now() > deadline {
            bail!("not within {} s", COUNTED_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
