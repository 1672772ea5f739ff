//! How far a node is from what a rollout wants of it.

use crate::desired::desired_module;
use crate::ids::{Digest, NodeId};
use crate::observe::{ModuleObs, Observations, Presence};
use crate::report::ReleaseStatus;
use crate::rollout::Rollout;
use crate::spec::ModuleSpec;
use crate::state::State;
use crate::time::{CoreTime, Millis};

/// How a node stands to what its spec wants of the rollout's module.
pub(super) enum Standing {
    /// It does what the spec wants, and settled.
    Settled,
    /// It does not, or not for long enough.
    Lacking(String),
    /// Smoke checks failed on it.
    SmokeFailed(Vec<String>),
}

/// How a node stands to what its cohort is told.
pub(super) fn standing(
    obs: &Observations,
    rollout: &Rollout,
    spec: &ModuleSpec,
    node: &NodeId,
    now: CoreTime,
) -> Standing {
    if let Presence::Silent { silent_for } = obs.presence(node, now) {
        return Standing::Lacking(format!("silent for {silent_for}"));
    }
    let Some(module) = obs.module(node, &rollout.plan.module, now) else {
        return Standing::Lacking("has not begun".to_owned());
    };
    if let Some(lack) = content_lack(spec, module) {
        return Standing::Lacking(lack);
    }
    if let Some(run) = spec.smoke {
        match module.status.smoke.as_ref().filter(|outcome| outcome.run == run) {
            None => return Standing::Lacking("smoke checks are running".to_owned()),
            Some(outcome) if !outcome.failures.is_empty() => {
                return Standing::SmokeFailed(outcome.failures.clone());
            }
            Some(_) => {}
        }
    }
    let ready = spec
        .primary()
        .and_then(|release| module.ready_since.get(&release.id()));
    let since = ready.copied().unwrap_or(now).max(module.content_since);
    if now.since(since) < spec.settle {
        return Standing::Lacking(format!("healthy for {} of {}", now.since(since), spec.settle));
    }
    Standing::Settled
}

/// What a node's report lacks of what its spec wants.
fn content_lack(spec: &ModuleSpec, module: &ModuleObs) -> Option<String> {
    let status = &module.status;
    let primary = spec.primary()?;
    match status.releases.get(&primary.id()) {
        None => return Some("has not begun".to_owned()),
        Some(ReleaseStatus::Ready { .. }) => {}
        Some(ReleaseStatus::Fetching) => return Some("fetching".to_owned()),
        Some(ReleaseStatus::Loading) => return Some("loading".to_owned()),
        Some(ReleaseStatus::Prefetched) => return Some("prefetched, not loaded yet".to_owned()),
        Some(ReleaseStatus::Unhealthy { reason }) => return Some(format!("unhealthy: {reason}")),
        Some(ReleaseStatus::Failed { reason }) => return Some(format!("can't load: {reason}")),
    }
    if status.rollout != spec.rollout {
        return Some("has not taken its new spec over".to_owned());
    }
    if !same_routes(&status.routes, &spec.routes) {
        return Some("has not switched".to_owned());
    }
    if status.preview != spec.preview {
        return Some("does not hold the preview".to_owned());
    }
    None
}

/// Routes are a set: their order says nothing.
pub(super) fn same_routes(a: &[(Digest, u8)], b: &[(Digest, u8)]) -> bool {
    a.len() == b.len() && a.iter().all(|route| b.contains(route))
}

/// What a node lacks of being back on what its spec wants at rest; `None`: nothing.
pub(super) fn back_lack(
    state: &State,
    obs: &Observations,
    rollout: &Rollout,
    node: &NodeId,
    now: CoreTime,
) -> Option<String> {
    let spec = desired_module(state, node, &rollout.plan.module);
    let module = obs.module(node, &rollout.plan.module, now);
    match (spec.filter(|spec| !spec.routes.is_empty()), module) {
        (None, None) => None,
        (None, Some(module)) => (!module.status.routes.is_empty()).then(|| "not unloaded yet".to_owned()),
        (Some(_), None) => Some("has not begun".to_owned()),
        (Some(spec), Some(module)) => {
            (!same_routes(&module.status.routes, &spec.routes)).then(|| "not switched back yet".to_owned())
        }
    }
}

/// Whether a node has been away for longer than counts as a restart of anything.
pub(super) fn is_unavailable(obs: &Observations, node: &NodeId, grace: Millis, now: CoreTime) -> bool {
    matches!(obs.presence(node, now), Presence::Silent { silent_for } if silent_for >= grace)
}

/// Whether a node may be on its way to be known: neither known nor away for long.
pub(super) fn is_unknown(obs: &Observations, node: &NodeId, grace: Millis, now: CoreTime) -> bool {
    matches!(obs.presence(node, now), Presence::Silent { silent_for } if silent_for < grace)
}
