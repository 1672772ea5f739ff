//! How a rollout ends: validated, kept, or with nobody left.

use super::Engine;
use crate::event::Event;
use crate::explain::{Wait, nodes};
use crate::report::{REASON_LEN_MAX, beginning};
use crate::rollout::{Excuse, Rollout};
use crate::stage::{DeploymentStatus, StageKind, StageStatus};

/// Most exclusions that a reason tells.
const EXCLUSIONS_TOLD_MAX: usize = 3;

impl Engine<'_> {
    pub(super) fn ended_empty(&self) -> Vec<Event> {
        let rollout = self.rollout;
        let kind = StageKind::Deploy(rollout.plan.environment.clone());
        let status = if rollout.plan.validates {
            StageStatus::Failed
        } else {
            StageStatus::Skipped
        };
        let mut events: Vec<Event> = self
            .stage(&kind)
            .into_iter()
            .map(|stage| Event::StageFinished {
                deployment: rollout.plan.deployment,
                stage,
                status,
                message: "no node is left here to run it".to_owned(),
                nodes_deployed: 0,
                nodes_failed: 0,
            })
            .collect();
        events.push(Event::RolloutEnded {
            key: rollout.key(),
            kept: false,
            missing: Vec::new(),
        });
        if rollout.plan.validates {
            events.push(Event::DeploymentFinished {
                deployment: rollout.plan.deployment,
                status: DeploymentStatus::Failed,
                message: format!("no node is left in {}", rollout.plan.environment),
            });
        }
        events
    }

    /// Every node that is not excused reports the release active and healthy, and its ingress answers.
    pub(super) fn validate(&self) -> Result<Vec<Event>, Wait> {
        self.settled()?;
        let mut events = self.stage_finished(&StageKind::Validation, StageStatus::Succeeded);
        events.extend(self.kept());
        let release = self.rollout.plan.candidate.as_ref();
        events.push(Event::DeploymentFinished {
            deployment: self.rollout.plan.deployment,
            status: DeploymentStatus::Succeeded,
            message: release.map_or_else(String::new, |release| {
                format!(
                    "{} {release} is stable in {}",
                    self.rollout.plan.module, self.rollout.plan.environment
                )
            }),
        });
        Ok(events)
    }

    pub(super) fn kept(&self) -> Vec<Event> {
        let key = self.rollout.key();
        let missing = self
            .rollout
            .excused
            .iter()
            .filter(|(_, why)| **why == Excuse::UnavailableBefore);
        vec![
            Event::StableSet {
                key: key.clone(),
                deployment: self.rollout.plan.deployment,
                release: self.rollout.plan.candidate.clone(),
            },
            Event::RolloutEnded {
                key,
                kept: true,
                missing: missing.map(|(node, _)| node.clone()).collect(),
            },
        ]
    }

    pub(super) fn stage(&self, kind: &StageKind) -> Option<u32> {
        self.state
            .deployments
            .get(&self.rollout.plan.deployment)?
            .stage_index(kind)
    }

    pub(super) fn stage_finished(&self, kind: &StageKind, status: StageStatus) -> Vec<Event> {
        let rollout = self.rollout;
        let Some(stage) = self.stage(kind) else {
            return Vec::new();
        };
        let count = |n: usize| u32::try_from(n).expect("nodes are bounded by NODES_MAX");
        let (deployed, failed) = (count(rollout.counting().count()), count(rollout.excluded.len()));
        let nodes = nodes(deployed);
        let run = if deployed == 1 { "runs" } else { "run" };
        let message = match (kind, rollout.excluded.is_empty()) {
            (StageKind::Validation, true) => format!("smoke checks passed through the ingress of {nodes}"),
            (_, true) => format!("{nodes} {run} the release"),
            (_, false) => format!("{nodes} {run} the release; {}", exclusions_told(rollout)),
        };
        vec![Event::StageFinished {
            deployment: rollout.plan.deployment,
            stage,
            status,
            message,
            nodes_deployed: deployed,
            nodes_failed: failed,
        }]
    }
}

/// The first few nodes that failed, and why.
pub(super) fn exclusions_told(rollout: &Rollout) -> String {
    let told: Vec<String> = rollout
        .excluded
        .iter()
        .take(EXCLUSIONS_TOLD_MAX)
        .map(|(node, why)| format!("{node} {}", beginning(&why.to_string(), REASON_LEN_MAX)))
        .collect();
    let more = rollout.excluded.len().saturating_sub(EXCLUSIONS_TOLD_MAX);
    if more > 0 {
        format!("{}; and {more} more", told.join("; "))
    } else {
        told.join("; ")
    }
}
