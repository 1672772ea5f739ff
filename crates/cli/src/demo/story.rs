//! The story: a good release goes out, a bad one is caught and comes back.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};

use hotswap_trust::SigningIdentity;

use super::director::{Director, LOOK};
use super::modules;
use super::policy::{FLEET, PRODUCTION};
use super::view::MODULE;
use crate::client::{Accepted, Decision, Deployment, Module, NewDeployment, Node, typed};
use crate::commands::signing;

/// What runs before the story.
pub(crate) const FIRST: &str = "2.0.0";
/// The release that goes out.
pub(crate) const GOOD: &str = "2.1.0";
/// The release that comes back: wrong and slow, but not where anybody tests.
pub(crate) const BAD: &str = "2.2.0";

/// Longest wait for all nodes to say hello.
const NODES_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest wait for one deployment: the slowest takes less than half of it.
const DEPLOYMENT_WAIT_MAX: Duration = Duration::from_secs(150);
/// How long customers are watched after the bad release is back, for answers that were on their way.
const AFTERMATH: Duration = Duration::from_secs(2);

/// One deployment of the story.
#[derive(Clone, Debug)]
pub(crate) struct Chapter {
    /// As it ended.
    pub(crate) deployment: Deployment,
    /// When the judge or a node turned it back, if one did; the server's clock, which is this machine's.
    pub(crate) turned: Option<Instant>,
    /// Why, in the server's words.
    pub(crate) why_turned: String,
    /// When all nodes of Production said that the release gets no requests any more, after it was turned back.
    pub(crate) back: Option<Instant>,
}

/// Waits for all nodes, signs and pushes all modules.
pub(crate) async fn prepare(director: &mut Director<'_>, signer: &SigningIdentity) -> anyhow::Result<()> {
    director.scene.headline = "the nodes say hello".to_owned();
    let expected: usize = FLEET.iter().map(|(_, nodes, _)| nodes).sum();
    let deadline = Instant::now() + NODES_WAIT_MAX;
    loop {
        director.look(None).await?;
        let up = director.scene.nodes.iter().filter(|node| is_up(node)).count();
        if up >= expected {
            break;
        }
        if Instant::now() > deadline {
            bail!(
                "only {up} of {expected} nodes were up after {} s",
                NODES_WAIT_MAX.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    director.tell(format!("{expected} nodes are up: {}", fleet_in_words()))?;
    let packages = modules::packages().context("an example module in this binary is broken")?;
    let count = packages.len();
    for package in packages {
        let signature = signing::make(signer, &package.digest)?;
        director
            .client
            .push(package.file, Some(signature.into()), std::sync::Arc::new(|_| {}))
            .await?;
    }
    director.tell(format!(
        "{count} module releases are signed by {} and pushed",
        signer.subject()
    ))?;
    Ok(())
}

/// A node that reports is up; whether this machine is busy, which makes it Degraded, is another matter.
fn is_up(node: &Node) -> bool {
    matches!(node.status.as_str(), "Running" | "Degraded")
}

fn fleet_in_words() -> String {
    FLEET
        .map(|(environment, nodes, _)| format!("{nodes} {environment}"))
        .join(", ")
}

/// What Production runs of the story's module already: something, where the data folder is an earlier demo's.
pub(crate) async fn stable_version(director: &Director<'_>) -> anyhow::Result<Option<String>> {
    let modules: Vec<Module> = director.client.fetch(&["modules"], &[]).await?;
    let module = modules.into_iter().find(|module| module.module_name == MODULE);
    let stable = module.and_then(|module| {
        module
            .environments
            .into_iter()
            .find(|place| place.environment == PRODUCTION)
    });
    Ok(stable.map(|place| place.version))
}

/// Deploys a version to Production through the whole pipeline and watches until it has ended.
pub(crate) async fn deploy(director: &mut Director<'_>, version: &str, why: &str) -> anyhow::Result<Chapter> {
    let wanted = NewDeployment {
        module_name: MODULE.to_owned(),
        version: version.to_owned(),
        target_environment: PRODUCTION.to_owned(),
        requester_email: "demo@hotswap.local".to_owned(),
        require_approval: false,
        description: why.to_owned(),
        metadata: std::collections::BTreeMap::new(),
        allow_downgrade: false,
        supersede: false,
        seed: None,
    };
    let accepted: Accepted = typed(director.client.post(&["deployments"], Some(&wanted)).await?)?;
    let id = accepted.execution_id;
    director.turn_to(format!("{MODULE} {version} to {PRODUCTION}"), version);
    director.tell(format!("{MODULE} {version} is deployed to {PRODUCTION}: {why}"))?;
    let deadline = Instant::now() + DEPLOYMENT_WAIT_MAX;
    let mut turned = None;
    let mut back = None;
    loop {
        director.look(Some(&id)).await?;
        if turned.is_none() {
            turned = turn(director)?;
        } else if back.is_none() && !runs_anywhere(director, version) {
            back = Some(Instant::now());
        }
        let deployment = director
            .scene
            .deployment
            .clone()
            .context("a deployment was looked at")?;
        if deployment.is_finished() && (turned.is_none() || back.is_some()) {
            director.tell(format!(
                "{MODULE} {version}: {}. {}",
                deployment.status,
                deployment.message.as_deref().unwrap_or_default()
            ))?;
            let (turned, why_turned) = turned.unzip();
            return Ok(Chapter {
                deployment,
                turned,
                why_turned: why_turned.unwrap_or_default(),
                back,
            });
        }
        if Instant::now() > deadline {
            let last = director.scene.decisions.last();
            let last = last.map(|decision| format!("; last: {}", decision.message));
            bail!(
                "{MODULE} {version} was not through after {} s{}",
                DEPLOYMENT_WAIT_MAX.as_secs(),
                last.unwrap_or_default()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// When the way back began, by the server's own record, and why.
fn turn(director: &Director<'_>) -> anyhow::Result<Option<(Instant, String)>> {
    let turned = |decision: &&Decision| {
        decision
            .data
            .get("type")
            .is_some_and(|kind| kind == "backStarted")
    };
    let Some(decision) = director.scene.decisions.iter().find(turned) else {
        return Ok(None);
    };
    let at = crate::output::parse_time(&decision.time).context("the server's time is RFC 3339")?;
    // The server's wall clock is this machine's, so its past is ours.
    let past = SystemTime::now().duration_since(at).unwrap_or_default();
    Ok(Some((
        Instant::now().checked_sub(past).unwrap_or_else(Instant::now),
        decision.message.clone(),
    )))
}

/// Whether a version still gets requests in Production, by the nodes' own reports.
fn runs_anywhere(director: &Director<'_>, version: &str) -> bool {
    let nodes = director
        .scene
        .nodes
        .iter()
        .filter(|node| node.environment == PRODUCTION);
    nodes
        .flat_map(|node| node.running())
        .any(|(module, running)| module == MODULE && running == version)
}

/// Looks on for a while, so that answers on their way are counted too.
pub(crate) async fn aftermath(director: &mut Director<'_>) -> anyhow::Result<()> {
    let end = Instant::now() + AFTERMATH;
    while Instant::now() < end {
        director.look(None).await?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
