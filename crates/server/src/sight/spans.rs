//! A deployment's spans: a function of its events, so that a restart loses none and makes none twice.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::RolloutId;
use hotswap_core::rollout::{RolloutPlan, StepPass};
use hotswap_core::stage::{Deployment, DeploymentStatus, StageKind, StageStatus};
use hotswap_core::time::WallTime;
use hotswap_core::trace::{Part, span_of, trace_id};
use hotswap_telemetry::otlp::{Kind, Span};

use crate::views::deployment::{status_name, version_of};

/// A span, and the event that ended it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) seq: u64,
    pub(crate) span: Span,
}

/// Whether an event may end a span.
pub(crate) fn ends_some(event: &Event) -> bool {
    matches!(
        event,
        Event::StageFinished { .. }
            | Event::StepCompleted { .. }
            | Event::BackStarted { .. }
            | Event::RolloutEnded { .. }
            | Event::DeploymentFinished { .. }
    )
}

/// All spans of a deployment that have ended, in the order of their ends. `events` are all of its events so far.
pub(crate) fn spans(deployment: &Deployment, events: &[Logged]) -> Vec<Ended> {
    let Some(trace_id) = trace_id(&deployment.trace_id) else {
        return Vec::new();
    };
    let mut made = Made {
        deployment,
        trace_id,
        open: BTreeMap::new(),
        plans: BTreeMap::new(),
        ended: Vec::new(),
    };
    for logged in events {
        made.take(logged);
    }
    made.ended
}

/// The order of parts, so that open ones are closed from the inside out.
type Key = (u8, u64, u64);

struct Open {
    part: Part,
    parent: Option<Part>,
    name: String,
    start: WallTime,
    attributes: Vec<(&'static str, String)>,
}

struct Made<'a> {
    deployment: &'a Deployment,
    trace_id: u128,
    open: BTreeMap<Key, Open>,
    plans: BTreeMap<RolloutId, &'a RolloutPlan>,
    ended: Vec<Ended>,
}

fn key(part: Part) -> Key {
    match part {
        Part::Step(rollout, step) => (0, rollout.0, u64::from(step)),
        Part::Validation(rollout) => (1, rollout.0, 0),
        Part::Back(rollout) => (2, rollout.0, 0),
        Part::Rollout(rollout) => (3, rollout.0, 0),
        Part::Stage(stage) => (4, u64::from(stage), 0),
        Part::Deployment => (5, 0, 0),
    }
}

impl<'a> Made<'a> {
    fn begin(
        &mut self,
        part: Part,
        parent: Option<Part>,
        name: impl Into<String>,
        at: &Logged,
        attributes: Vec<(&'static str, String)>,
    ) {
        let open = Open {
            part,
            parent,
            name: name.into(),
            start: at.wall,
            attributes,
        };
        self.open.insert(key(part), open);
    }

    fn end(&mut self, part: Part, at: &Logged, more: Vec<(&'static str, String)>, error: Option<String>) {
        let Some(open) = self.open.remove(&key(part)) else {
            return;
        };
        let mut attributes = open.attributes;
        attributes.push(("hotswap.deployment", self.deployment.id.to_string()));
        attributes.extend(more);
        let span = Span {
            trace_id: self.trace_id,
            span_id: span_of(self.trace_id, open.part),
            parent: open.parent.map(|parent| span_of(self.trace_id, parent)),
            parent_is_remote: false,
            name: open.name.into(),
            kind: Kind::Internal,
            start: time(open.start),
            end: time(at.wall),
            attributes,
            error,
        };
        self.ended.push(Ended { seq: at.seq, span });
    }

    fn take(&mut self, logged: &'a Logged) {
        match &logged.event {
            Event::DeploymentRequested { .. } | Event::ReversalRequested { .. } => {
                let attributes = vec![
                    ("hotswap.module", self.deployment.module.to_string()),
                    ("hotswap.version", version_of(self.deployment)),
                    ("hotswap.target", self.deployment.target.to_string()),
                ];
                self.begin(Part::Deployment, None, "deployment", logged, attributes);
            }
            Event::StageStarted { stage, attempt, .. } => {
                let Some(kind) = self.kind(*stage) else { return };
                let name = format!("stage.{}", kind.name());
                let attributes = vec![("hotswap.attempt", attempt.to_string())];
                self.begin(
                    Part::Stage(*stage),
                    Some(Part::Deployment),
                    name,
                    logged,
                    attributes,
                );
            }
            Event::StageFinished {
                stage,
                status,
                message,
                nodes_deployed,
                nodes_failed,
                ..
            } => {
                let failed = (*status == StageStatus::Failed).then(|| message.clone());
                let mut more = vec![("hotswap.message", message.clone())];
                if matches!(self.kind(*stage), Some(StageKind::Deploy(_))) {
                    more.push(("hotswap.nodes_deployed", nodes_deployed.to_string()));
                    more.push(("hotswap.nodes_failed", nodes_failed.to_string()));
                }
                self.end(Part::Stage(*stage), logged, more, failed);
            }
            Event::DeploymentFinished { status, message, .. } => self.finish(logged, *status, message),
            _ => self.take_of_rollout(logged),
        }
    }

    fn take_of_rollout(&mut self, logged: &'a Logged) {
        match &logged.event {
            Event::RolloutStarted { plan } => {
                self.plans.insert(plan.id, plan);
                let name = if plan.reverse { "rollback" } else { "rollout" };
                let stage = self
                    .deployment
                    .stage_index(&StageKind::Deploy(plan.environment.clone()));
                let parent = stage.map_or(Part::Deployment, Part::Stage);
                let attributes = vec![
                    ("hotswap.environment", plan.environment.to_string()),
                    ("hotswap.strategy", plan.strategy.clone()),
                    ("hotswap.nodes", plan.order.len().to_string()),
                ];
                self.begin(Part::Rollout(plan.id), Some(parent), name, logged, attributes);
            }
            Event::StepStarted { key, step, joins } => {
                let gate = self
                    .plans
                    .get(&key.rollout)
                    .and_then(|plan| plan.steps.get(*step as usize))
                    .map(|step| format!("{:?}", step.gate));
                let attributes = vec![
                    ("hotswap.environment", key.environment.to_string()),
                    ("hotswap.step", (step + 1).to_string()),
                    ("hotswap.nodes_joined", joins.len().to_string()),
                    ("hotswap.gate", gate.unwrap_or_default()),
                ];
                let parent = Some(Part::Rollout(key.rollout));
                self.begin(
                    Part::Step(key.rollout, *step),
                    parent,
                    "health.check",
                    logged,
                    attributes,
                );
            }
            Event::StepCompleted { key, step, pass } => {
                let passed = match pass {
                    StepPass::Gate { detail } | StepPass::Inconclusive { detail } => detail.clone(),
                    StepPass::Override { who } => format!("by the word of {who}"),
                    StepPass::Empty => "nobody left to wait for".to_owned(),
                };
                let more = vec![("hotswap.passed", passed)];
                self.end(Part::Step(key.rollout, *step), logged, more, None);
            }
            Event::ValidationStarted { key } => {
                let attributes = vec![("hotswap.environment", key.environment.to_string())];
                let parent = Some(Part::Rollout(key.rollout));
                self.begin(
                    Part::Validation(key.rollout),
                    parent,
                    "health.check",
                    logged,
                    attributes,
                );
            }
            Event::BackStarted { key, reason } => {
                let why = reason.to_string();
                self.end_checks(key.rollout, logged, Some(&why));
                let attributes = vec![
                    ("hotswap.environment", key.environment.to_string()),
                    ("hotswap.reason", why),
                ];
                let parent = Some(Part::Rollout(key.rollout));
                self.begin(Part::Back(key.rollout), parent, "rollback", logged, attributes);
            }
            Event::RolloutEnded { key, kept, missing } => {
                self.end_checks(key.rollout, logged, None);
                let missing = vec![("hotswap.nodes_missing", missing.len().to_string())];
                self.end(Part::Back(key.rollout), logged, missing.clone(), None);
                let is_back = self.plans.get(&key.rollout).is_some_and(|plan| plan.reverse);
                let error = (!kept && !is_back).then(|| "the release did not stay".to_owned());
                self.end(Part::Rollout(key.rollout), logged, missing, error);
            }
            _ => {}
        }
    }

    /// Ends a rollout's checks that are still waited for.
    fn end_checks(&mut self, rollout: RolloutId, at: &Logged, error: Option<&String>) {
        let open = self.open.values().map(|open| open.part);
        let checks: Vec<Part> = open
            .filter(|part| match part {
                Part::Step(of, _) | Part::Validation(of) => *of == rollout,
                _ => false,
            })
            .collect();
        for part in checks {
            self.end(part, at, Vec::new(), error.cloned());
        }
    }

    fn finish(&mut self, logged: &Logged, status: DeploymentStatus, message: &str) {
        let well = status == DeploymentStatus::Succeeded;
        let inner: Vec<Part> = self.open.values().map(|open| open.part).collect();
        for part in inner.into_iter().filter(|part| *part != Part::Deployment) {
            self.end(part, logged, Vec::new(), None);
        }
        let more = vec![
            ("hotswap.status", status_name(status).to_owned()),
            ("hotswap.message", message.to_owned()),
        ];
        let error = (!well).then(|| message.to_owned());
        self.end(Part::Deployment, logged, more, error);
    }

    fn kind(&self, stage: u32) -> Option<&StageKind> {
        self.deployment
            .stages
            .get(stage as usize)
            .map(|stage| &stage.kind)
    }
}

fn time(at: WallTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
}
