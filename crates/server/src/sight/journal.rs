//! What is decided about deployments, in the log for people: each line with its deployment's trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotswap_core::event::Event;
use hotswap_core::ids::DeploymentId;
use tokio_util::sync::CancellationToken;

use super::follow::Follower;
use crate::driver::World;
use crate::store::Store;
use crate::views::sentence::{environment, sentence};

/// Deployments whose trace is remembered.
const TRACES_KEPT_MAX: usize = 256;

/// Writes a line for each decision about a deployment from now on, until the server ends.
pub(crate) async fn journal(store: Arc<dyn Store>, world: Arc<World>, shutdown: CancellationToken) {
    let now = world.state().seq;
    let mut entries = Follower::after(now, &store, &world, &shutdown);
    let mut traces: BTreeMap<DeploymentId, String> = BTreeMap::new();
    while let Some(next) = entries.next().await {
        for entry in next {
            let event = &entry.logged.event;
            let (Some(id), Some(words)) = (entry.deployment, sentence(event)) else {
                continue;
            };
            if !traces.contains_key(&id)
                && let Ok(Some(record)) = store.deployment(id).await
            {
                while traces.len() >= TRACES_KEPT_MAX {
                    traces.pop_first();
                }
                traces.insert(id, record.trace_id);
            }
            let trace_id = traces.get(&id).map_or("", String::as_str);
            let environment = environment(event).map(ToString::to_string).unwrap_or_default();
            let seq = entry.logged.seq;
            if matches!(
                event,
                Event::BackStarted { .. } | Event::NodeExcluded { .. } | Event::RolloutHeld { .. }
            ) {
                tracing::warn!(trace_id, deployment = %id, environment, seq, "{words}");
            } else {
                tracing::info!(trace_id, deployment = %id, environment, seq, "{words}");
            }
        }
    }
}
