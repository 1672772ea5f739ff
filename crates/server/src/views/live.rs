//! An event of the log as listeners get it.

use hotswap_core::analysis::Block;
use hotswap_core::event::Event;
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::DeploymentStatus;
use serde_json::{Map, Value, json};

use super::deployment::status_name;
use super::sentence::sentence;
use super::time::rfc3339;
use crate::store::FeedEntry;

/// An event, told once to every listener that wants it.
#[derive(Debug)]
pub struct LiveEvent {
    /// Its number in the log.
    pub seq: u64,
    /// Its type's name: one of the contract's four, or the log's own.
    pub kind: String,
    /// Whose decision it belongs to.
    pub deployment: Option<DeploymentId>,
    /// The module that it is about.
    pub module: Option<String>,
    /// The environment that it is about; for a deployment's own events its target.
    pub environment: Option<String>,
    /// The node that it is about.
    pub node: Option<String>,
    /// All of it, as JSON.
    pub json: String,
}

/// An event of the log, for listeners.
pub fn live(entry: &FeedEntry) -> LiveEvent {
    let event = &entry.logged.event;
    let mut data = data(event);
    let own = data
        .remove("type")
        .and_then(|kind| kind.as_str().map(capitalised))
        .unwrap_or_default();
    let kind = contract_name(event).map_or_else(|| own.clone(), str::to_owned);
    let found = |key: &str| {
        let places = [
            data.get(key),
            inner(&data, "key", key),
            inner(&data, "plan", key),
            inner(&data, "request", key),
        ];
        places
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .map(str::to_owned)
    };
    let module = found("module").or_else(|| entry.module.clone());
    let environment = found("environment").or_else(|| entry.target.clone());
    let node = found("node");
    let mut told = json!({
        "seq": entry.logged.seq,
        "time": rfc3339(entry.logged.wall),
        "type": kind,
        "event": own,
        "message": sentence(event).unwrap_or_default(),
    });
    if let Event::DeploymentFinished { status, .. } = event {
        told["status"] = status_name(*status).into();
    }
    let about = [
        ("executionId", entry.deployment.map(|id| id.to_string())),
        ("moduleName", module.clone()),
        ("version", entry.version.clone()),
        ("environment", environment.clone()),
        ("nodeId", node.clone()),
    ];
    for (key, value) in about {
        if let Some(value) = value {
            told[key] = value.into();
        }
    }
    told["data"] = Value::Object(data);
    LiveEvent {
        seq: entry.logged.seq,
        kind,
        deployment: entry.deployment,
        module,
        environment,
        node,
        json: told.to_string(),
    }
}

/// The contract's names for what most listeners wait for.
fn contract_name(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::DeploymentRequested { .. } | Event::ReversalRequested { .. } => "DeploymentStarted",
        Event::StageStarted { .. } | Event::StageFinished { .. } => "DeploymentProgress",
        Event::DeploymentFinished { status, .. } if *status == DeploymentStatus::Succeeded => {
            "DeploymentCompleted"
        }
        Event::DeploymentFinished { .. } => "DeploymentFailed",
        _ => return None,
    })
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn inner<'a>(data: &'a Map<String, Value>, outer: &str, key: &str) -> Option<&'a Value> {
    data.get(outer)?.get(key)
}

/// The event's own fields, without what fills pages: whole rosters, and histograms, which the analysis has.
fn data(event: &Event) -> Map<String, Value> {
    let mut data = match serde_json::to_value(event) {
        Ok(Value::Object(data)) => data,
        _ => Map::new(),
    };
    match event {
        Event::RolloutStarted { plan } => {
            if let Some(Value::Object(told)) = data.get_mut("plan") {
                told.remove("order");
                told.insert("nodes".to_owned(), plan.order.len().into());
            }
        }
        Event::EvidenceRecorded { block, .. } => {
            data.retain(|key, _| matches!(key.as_str(), "type" | "key" | "step" | "soak"));
            if let Some(block) = block {
                data.insert("counted".to_owned(), counted(block));
            }
        }
        _ => {}
    }
    data
}

fn counted(block: &Block) -> Value {
    let arm = |arm: &hotswap_core::analysis::ArmCounts| {
        json!({
            "requests": arm.requests, "errors": arm.errors,
            "probes": arm.probes, "probeErrors": arm.probe_errors,
        })
    };
    json!({ "candidate": arm(&block.candidate), "control": arm(&block.control) })
}
