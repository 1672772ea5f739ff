//! How far a node is from what a rollout wants of it.

use std::fmt;

use crate::ids::Digest;
use crate::observe::{ModuleObs, Presence, Seen};
use crate::report::{REASON_LEN_MAX, ReleaseStatus, beginning};
use crate::rollout::Rollout;
use crate::spec::ModuleSpec;
use crate::time::{CoreTime, Millis};

/// How a node stands to what its spec wants of the rollout's module.
pub(super) enum Standing<'a> {
    /// It does what the spec wants, and settled.
    Settled,
    /// It does not, or not for long enough.
    Lacking(Lack<'a>),
    /// Smoke checks failed on it.
    SmokeFailed(&'a [String]),
}

/// What a node lacks of what its spec wants. It is put into words only where somebody reads them.
#[derive(Clone, Copy)]
pub(super) enum Lack<'a> {
    Silent(Millis),
    NotBegun,
    Fetching,
    Loading,
    Prefetched,
    Unhealthy(&'a str),
    Failed(&'a str),
    OldSpec,
    NotSwitched,
    NoPreview,
    SmokeRunning,
    SmokeFailed,
    Young { healthy: Millis, settle: Millis },
}

impl fmt::Display for Lack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(silent_for) => write!(f, "silent for {silent_for}"),
            Self::NotBegun => f.write_str("has not begun"),
            Self::Fetching => f.write_str("fetching"),
            Self::Loading => f.write_str("loading"),
            Self::Prefetched => f.write_str("prefetched, not loaded yet"),
            Self::Unhealthy(reason) => write!(f, "unhealthy: {reason}"),
            Self::Failed(reason) => write!(f, "can't load: {}", beginning(reason, REASON_LEN_MAX)),
            Self::OldSpec => f.write_str("has not taken its new spec over"),
            Self::NotSwitched => f.write_str("has not switched"),
            Self::NoPreview => f.write_str("does not hold the preview"),
            Self::SmokeRunning => f.write_str("smoke checks are running"),
            Self::SmokeFailed => f.write_str("smoke checks failed"),
            Self::Young { healthy, settle } => write!(f, "healthy for {healthy} of {settle}"),
        }
    }
}

impl Lack<'_> {
    /// All that the node said of it.
    pub(super) fn in_full(&self) -> String {
        match self {
            Self::Failed(reason) => format!("can't load: {reason}"),
            lack => lack.to_string(),
        }
    }
}

/// How a node stands to what its cohort is told.
pub(super) fn standing<'a>(
    seen: &Seen<'a>,
    rollout: &Rollout,
    spec: &ModuleSpec,
    now: CoreTime,
) -> Standing<'a> {
    if let Presence::Silent { silent_for } = seen.presence {
        return Standing::Lacking(Lack::Silent(silent_for));
    }
    let Some(module) = seen.module(&rollout.plan.module) else {
        return Standing::Lacking(Lack::NotBegun);
    };
    if let Some(lack) = content_lack(spec, module) {
        return Standing::Lacking(lack);
    }
    if let Some(run) = spec.smoke {
        match module.status.smoke.as_ref().filter(|outcome| outcome.run == run) {
            None => return Standing::Lacking(Lack::SmokeRunning),
            Some(outcome) if !outcome.failures.is_empty() => {
                return Standing::SmokeFailed(&outcome.failures);
            }
            Some(_) => {}
        }
    }
    let ready = spec
        .primary()
        .and_then(|release| module.ready_since.get(&release.id()));
    let since = ready.copied().unwrap_or(now).max(module.content_since);
    let healthy = now.since(since);
    if healthy < spec.settle {
        return Standing::Lacking(Lack::Young {
            healthy,
            settle: spec.settle,
        });
    }
    Standing::Settled
}

/// What a node's report lacks of what its spec wants.
fn content_lack<'a>(spec: &ModuleSpec, module: &'a ModuleObs) -> Option<Lack<'a>> {
    let status = &module.status;
    let primary = spec.primary()?;
    match status.releases.get(&primary.id()) {
        None => return Some(Lack::NotBegun),
        Some(ReleaseStatus::Ready { .. }) => {}
        Some(ReleaseStatus::Fetching) => return Some(Lack::Fetching),
        Some(ReleaseStatus::Loading) => return Some(Lack::Loading),
        Some(ReleaseStatus::Prefetched) => return Some(Lack::Prefetched),
        Some(ReleaseStatus::Unhealthy { reason }) => return Some(Lack::Unhealthy(reason)),
        Some(ReleaseStatus::Failed { reason }) => return Some(Lack::Failed(reason)),
    }
    if status.rollout != spec.rollout {
        return Some(Lack::OldSpec);
    }
    if !same_routes(&status.routes, &spec.routes) {
        return Some(Lack::NotSwitched);
    }
    if status.preview != spec.preview {
        return Some(Lack::NoPreview);
    }
    None
}

/// Routes are a set: their order says nothing.
pub(super) fn same_routes(a: &[(Digest, u8)], b: &[(Digest, u8)]) -> bool {
    a.len() == b.len() && a.iter().all(|route| b.contains(route))
}

/// What a node lacks of being back on the routes that it is wanted to have at rest; `None`: nothing.
pub(super) fn back_lack(wanted: Option<&[(Digest, u8)]>, module: Option<&ModuleObs>) -> Option<&'static str> {
    match (wanted, module) {
        (None, None) => None,
        (None, Some(module)) => (!module.status.routes.is_empty()).then_some("not unloaded yet"),
        (Some(_), None) => Some("has not begun"),
        (Some(wanted), Some(module)) => {
            (!same_routes(&module.status.routes, wanted)).then_some("not switched back yet")
        }
    }
}

/// Whether a node has been away for longer than counts as a restart of anything.
pub(super) fn is_unavailable(presence: Presence, grace: Millis) -> bool {
    matches!(presence, Presence::Silent { silent_for } if silent_for >= grace)
}

/// Whether a node may be on its way to be known: neither known nor away for long.
pub(super) fn is_unknown(presence: Presence, grace: Millis) -> bool {
    matches!(presence, Presence::Silent { silent_for } if silent_for < grace)
}
