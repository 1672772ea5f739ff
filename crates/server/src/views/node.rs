//! Nodes as the API shows them.

use std::collections::BTreeMap;

use hotswap_core::decide::spare;
use hotswap_core::ids::{Digest, ModuleName, NodeId};
use hotswap_core::observe::{ModuleObs, NodeObs, Observations, Presence};
use hotswap_core::report::{NodeHealth, ReleaseStatus};
use hotswap_core::state::{Drain, Node, State};
use hotswap_core::time::{Millis, Now};
use serde::Serialize;
use utoipa::ToSchema;

use super::time::rfc3339;
use crate::enrolment::NodeCertificate;

/// CPU in use above which a node is degraded, in %.
const CPU_PERCENT_MAX: f64 = 90.0;
/// Memory in use above which a node is degraded, in %.
const MEMORY_PERCENT_MAX: f64 = 90.0;
/// Errors of its own modules' requests above which a node is degraded, in %.
const ERROR_PERCENT_MAX: f64 = 5.0;
/// Requests that the error rate must be of to say anything.
const ERROR_SAMPLES_MIN: u64 = 20;

/// A node and what it reports.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its identity.
    pub node_id: String,
    /// Its host name.
    pub hostname: String,
    /// Where it belongs.
    pub environment: String,
    /// Initializing, Running, Degraded, Stopping (to be drained), Stopped (drained) or Failed.
    pub status: &'static str,
    /// When its last report came; null if none came since the server's start.
    #[schema(format = "date-time")]
    pub last_heartbeat: Option<String>,
    /// When it was first seen.
    #[schema(format = "date-time")]
    pub registered: String,
    /// Where its ingress listens.
    pub ingress: Option<String>,
    /// Its labels: those that it reports, and over them those that operators set.
    pub labels: BTreeMap<String, String>,
    /// The labels among them that operators set.
    pub set_labels: BTreeMap<String, String>,
    /// Its drain; null where it serves.
    pub drain: Option<DrainView>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// What it can run.
    pub capabilities: Vec<String>,
    /// Its machine's health.
    pub health: Option<NodeHealthView>,
    /// What it runs, by its own report.
    pub modules: Vec<NodeModule>,
    /// Its certificate; null where it has none, as on a server that takes agents without TLS.
    pub certificate: Option<NodeCertificateView>,
}

/// A node's certificate: the one that holds longest.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCertificateView {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Valid, Expired or Revoked.
    pub state: &'static str,
    /// When it was issued.
    #[schema(format = "date-time")]
    pub issued_at: String,
    /// Until when it holds, unless it is renewed.
    #[schema(format = "date-time")]
    pub expires_at: String,
    /// Since when it is refused.
    #[schema(format = "date-time")]
    pub revoked_at: Option<String>,
}

/// A certificate, as the API shows it.
pub fn certificate_view(of: &NodeCertificate, now: Now) -> NodeCertificateView {
    NodeCertificateView {
        serial: of.serial.to_string(),
        state: match of.revoked {
            Some(_) => "Revoked",
            None if of.is_live(now.wall) => "Valid",
            None => "Expired",
        },
        issued_at: rfc3339(of.issued),
        expires_at: rfc3339(of.expires),
        revoked_at: of.revoked.map(rfc3339),
    }
}

/// An operator's wish that a node serve nothing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// Draining (it waits for its environment to be able to spare it) or Drained.
    pub state: &'static str,
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[schema(format = "date-time")]
    pub since: String,
    /// Until when it waits at most; then it is drained all the same.
    #[schema(format = "date-time")]
    pub deadline: String,
    /// What it waits for; null where it doesn't.
    pub waits_for: Option<String>,
}

/// A machine's health.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHealthView {
    /// CPU in use, in %.
    pub cpu_usage: f64,
    /// Memory in use, in %.
    pub memory_usage: f64,
    /// Mean latency of its modules' requests, in ms.
    pub latency: f64,
    /// Errors among them, in %.
    pub error_rate: f64,
    /// Requests a second.
    pub requests_per_second: f64,
}

/// What a node runs of a module.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeModule {
    /// The module.
    pub module_name: String,
    /// Who gets requests.
    pub routes: Vec<NodeRoute>,
    /// All releases that it holds, with how far they are.
    pub releases: Vec<NodeRelease>,
    /// The version that it is trying.
    pub trial: Option<String>,
    /// Why the fleet leaves it on another release than its environment's, if it does.
    pub exception: Option<String>,
}

/// A release that gets requests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRoute {
    /// Its version.
    pub version: String,
    /// Its share, in %.
    pub weight: u8,
}

/// A release that a node holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRelease {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// fetching, loading, prefetched, ready, unhealthy or failed.
    pub state: &'static str,
    /// What is wrong with it, if anything is.
    pub reason: Option<String>,
}

/// How a node stands, in the contract's words.
pub fn status(
    id: &NodeId,
    state: &State,
    obs: &Observations,
    now: Now,
    heartbeat_timeout: Millis,
) -> &'static str {
    let drain = state.nodes.get(id).and_then(|node| node.drain.as_ref());
    if drain.is_some_and(|drain| drain.taken) {
        return "Stopped";
    }
    let seen = obs.node(id).filter(|seen| seen.hello.is_some());
    match obs.presence(id, now.core) {
        Presence::Silent { silent_for } if silent_for >= heartbeat_timeout => "Failed",
        Presence::Silent { .. } if seen.is_none() => "Initializing",
        _ if seen
            .and_then(|seen| seen.health)
            .is_some_and(|health| is_degraded(&health)) =>
        {
            "Degraded"
        }
        _ if drain.is_some() => "Stopping",
        _ => "Running",
    }
}

/// A node's drain, where it has one.
pub fn drain_view(drain: &Drain, waits_for: Option<String>) -> DrainView {
    DrainView {
        state: if drain.taken { "Drained" } else { "Draining" },
        by: drain.by.clone(),
        reason: drain.reason.clone(),
        since: rfc3339(drain.since),
        deadline: rfc3339(drain.until),
        waits_for,
    }
}

fn is_degraded(health: &NodeHealth) -> bool {
    health.cpu_percent > CPU_PERCENT_MAX
        || health.memory_percent > MEMORY_PERCENT_MAX
        || (health.error_percent > ERROR_PERCENT_MAX && health.samples >= ERROR_SAMPLES_MIN)
}

/// When its last report came, if one came since the server's start.
pub fn last_heartbeat(seen: Option<&NodeObs>) -> Option<String> {
    seen.filter(|seen| seen.hello.is_some())
        .map(|seen| rfc3339(seen.last_report_wall))
}

/// A node and what it reports.
pub fn view(
    id: &NodeId,
    node: &Node,
    (state, obs): (&State, &Observations),
    certificate: Option<&NodeCertificate>,
    now: Now,
    heartbeat_timeout: Millis,
) -> NodeView {
    let seen = obs.node(id);
    let hello = seen.and_then(|seen| seen.hello.as_ref());
    let modules = seen.map(|seen| &seen.modules).into_iter().flatten();
    NodeView {
        node_id: id.to_string(),
        hostname: node.hostname.clone(),
        environment: node.environment.to_string(),
        status: status(id, state, obs, now, heartbeat_timeout),
        last_heartbeat: last_heartbeat(seen),
        registered: rfc3339(node.registered),
        ingress: hello.map(|hello| hello.ingress.clone()),
        labels: node.effective_labels(),
        set_labels: node.overrides.clone(),
        drain: node.drain.as_ref().map(|drain| {
            let waiting = (!drain.taken).then(|| spare(state, obs, id, now).err()).flatten();
            let place = &node.environment;
            drain_view(
                drain,
                waiting.map(|unspared| format!("{place} to be able to spare it: {unspared}")),
            )
        }),
        agent_version: hello.map(|hello| hello.agent_version.clone()),
        capabilities: hello.map(|hello| hello.capabilities.clone()).unwrap_or_default(),
        health: seen.and_then(|seen| seen.health).map(health_view),
        modules: modules
            .map(|(name, module)| module_view(id, node, state, name, module))
            .collect(),
        certificate: certificate.map(|of| certificate_view(of, now)),
    }
}

fn health_view(health: NodeHealth) -> NodeHealthView {
    NodeHealthView {
        cpu_usage: health.cpu_percent,
        memory_usage: health.memory_percent,
        latency: health.latency_ms,
        error_rate: health.error_percent,
        requests_per_second: health.requests_per_second,
    }
}

fn module_view(id: &NodeId, node: &Node, state: &State, name: &ModuleName, module: &ModuleObs) -> NodeModule {
    let state_of = state;
    let version = |digest: &Digest| version_of(state, name, digest);
    let route = |(digest, weight): &(Digest, u8)| NodeRoute {
        version: version(digest),
        weight: *weight,
    };
    let release = |(digest, status): (&Digest, &ReleaseStatus)| {
        let (state, reason) = release_state(status);
        NodeRelease {
            version: version(digest),
            digest: package_of(state_of, name, digest).to_string(),
            state,
            reason,
        }
    };
    let exception = state
        .env_module(&node.environment, name)
        .and_then(|module| module.exceptions.get(id));
    NodeModule {
        module_name: name.to_string(),
        routes: module.status.routes.iter().map(route).collect(),
        releases: module.status.releases.iter().map(release).collect(),
        trial: module.status.trial.as_ref().map(version),
        exception: exception.map(|exception| format!("left {}: {}", exception.release, exception.reason)),
    }
}

fn release_state(status: &ReleaseStatus) -> (&'static str, Option<String>) {
    match status {
        ReleaseStatus::Fetching => ("fetching", None),
        ReleaseStatus::Loading => ("loading", None),
        ReleaseStatus::Prefetched => ("prefetched", None),
        ReleaseStatus::Ready { .. } => ("ready", None),
        ReleaseStatus::Unhealthy { reason } => ("unhealthy", Some(reason.clone())),
        ReleaseStatus::Failed { reason } => ("failed", Some(reason.clone())),
    }
}

/// The package of what runs under an id; the id itself where the log knows none.
fn package_of(state: &State, module: &ModuleName, id: &Digest) -> Digest {
    let known = state.modules.get(module);
    let mut releases = known.into_iter().flat_map(|known| known.releases.values());
    let found = releases.find(|release| release.digest.config_of(id).is_some());
    found.map_or(*id, |release| release.digest)
}

/// The version behind an id; the digest itself, shortened, where the log knows none.
pub fn version_of(state: &State, module: &ModuleName, digest: &Digest) -> String {
    let releases = state
        .modules
        .get(module)
        .map(|module| &module.releases)
        .into_iter()
        .flatten();
    let found = releases
        .into_iter()
        .find_map(|(version, release)| Some((version, release.digest.config_of(digest)?)));
    match found {
        None => digest.short(),
        Some((version, 0)) => version.to_string(),
        Some((version, config)) => format!("{version}@{config}"),
    }
}
