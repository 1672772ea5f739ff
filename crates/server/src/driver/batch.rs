//! Events that become durable together, and what belongs to them.

use std::collections::BTreeMap;

use hotswap_core::apply::apply;
use hotswap_core::event::{Event, Logged, RolloutKey};
use hotswap_core::ids::{DeploymentId, NodeId};
use hotswap_core::stage::Deployment;
use hotswap_core::state::State;
use hotswap_core::time::Now;

use crate::audit::AuditEntry;
use crate::store::{Batch, Entry, FirstAnswer};

/// A batch in the making, on top of the working State.
#[derive(Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    deployments: BTreeMap<DeploymentId, Option<Deployment>>,
    undone: Vec<DeploymentId>,
    pub(super) answers: Vec<FirstAnswer>,
    /// Entries of the commands.
    pub(super) audit: Vec<AuditEntry>,
    /// Nodes whose own record changed.
    pub(super) nodes: Vec<NodeId>,
    /// Nodes that were removed from the fleet.
    pub(super) removed: Vec<NodeId>,
    /// Whether checks may have become due.
    pub(super) checks_due: bool,
}

impl Draft {
    /// Numbers, folds and keeps an event.
    pub(super) fn add(&mut self, state: &mut State, epoch: u64, event: Event, now: Now) {
        let deployment = deployment_of(state, &event);
        let logged = Logged {
            seq: state.seq + 1,
            epoch,
            at: now.core,
            wall: now.wall,
            event,
        };
        apply(state, &logged);
        self.note(state, &logged.event, deployment);
        self.entries.push(Entry { logged, deployment });
    }

    fn note(&mut self, state: &State, event: &Event, deployment: Option<DeploymentId>) {
        match event {
            Event::NodeRegistered { node, .. }
            | Event::NodeMoved { node, .. }
            | Event::NodeDrained { node }
            | Event::NodeUndrained { node, .. } => self.nodes.push(node.clone()),
            // What these change of a node's spec, their node alone is told.
            Event::NodeExcluded { node, .. }
            | Event::NodeExcused { node, .. }
            | Event::ExceptionRecorded { node, .. } => {
                self.nodes.push(node.clone());
                self.checks_due = true;
            }
            Event::NodeRemoved { node, .. } => self.removed.push(node.clone()),
            Event::NodeDescribed { .. } | Event::EvidenceRecorded { .. } => return,
            _ => self.checks_due = true,
        }
        let Some(id) = deployment else { return };
        let finished = matches!(
            event,
            Event::DeploymentFinished { .. } | Event::DeploymentRolledBack { .. }
        );
        match state.deployment(&id) {
            // A finished one may leave State before the batch ends: its record is taken at once.
            Some(record) if finished => drop(self.deployments.insert(id, Some(record.clone()))),
            Some(_) => drop(self.deployments.insert(id, None)),
            None if finished => self.undone.push(id),
            None => {}
        }
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Logged> {
        self.entries.iter().map(|entry| &entry.logged)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.answers.is_empty() && self.audit.is_empty()
    }

    pub(super) fn events_len(&self) -> usize {
        self.entries.len()
    }

    /// What the store gets.
    pub(super) fn batch(&self, state: &State, epoch: u64) -> Batch {
        let record = |(id, taken): (&DeploymentId, &Option<Deployment>)| {
            taken.clone().or_else(|| state.deployment(id).cloned())
        };
        Batch {
            epoch,
            epoch_after: state.epoch,
            events: self.entries.clone(),
            deployments: self.deployments.iter().filter_map(record).collect(),
            undone: self.undone.clone(),
            answers: self.answers.clone(),
            audit: self.audit.clone(),
            forget_answers_before: None,
        }
    }
}

/// Whose decisions an event belongs to; asked before it is folded, so that an ending rollout is still there.
fn deployment_of(state: &State, event: &Event) -> Option<DeploymentId> {
    match event {
        Event::DeploymentRequested { request, .. } => Some(request.id),
        Event::RolloutStarted { plan } => Some(plan.deployment),
        Event::ReversalRequested { deployment, .. }
        | Event::ApprovalGiven { deployment, .. }
        | Event::ApprovalDecided { deployment, .. }
        | Event::DeploymentFrozen { deployment, .. }
        | Event::ApprovalExpired { deployment }
        | Event::StageStarted { deployment, .. }
        | Event::StageFinished { deployment, .. }
        | Event::DeploymentFinished { deployment, .. }
        | Event::DeploymentRolledBack { deployment, .. }
        | Event::RolloutPaused { deployment, .. }
        | Event::RolloutResumed { deployment, .. }
        | Event::StableSet { deployment, .. } => Some(*deployment),
        Event::StepStarted { key, .. }
        | Event::StepCompleted { key, .. }
        | Event::NodeEntered { key, .. }
        | Event::NodeExcluded { key, .. }
        | Event::NodeExcused { key, .. }
        | Event::EvidenceRecorded { key, .. }
        | Event::RolloutHeld { key, .. }
        | Event::RolloutReleased { key }
        | Event::RolloutPromoted { key, .. }
        | Event::ValidationStarted { key }
        | Event::BackStarted { key, .. }
        | Event::RolloutEnded { key, .. } => deployment_of_rollout(state, key),
        Event::ExceptionRecorded {
            environment,
            module,
            rollout,
            ..
        } => {
            let (environment, module) = (environment.clone(), module.clone());
            deployment_of_rollout(
                state,
                &RolloutKey {
                    environment,
                    module,
                    rollout: *rollout,
                },
            )
        }
        Event::FleetCreated { .. }
        | Event::EnvironmentsConfigured { .. }
        | Event::EpochStarted { .. }
        | Event::FleetAdopted { .. }
        | Event::ReleasePushed { .. }
        | Event::ReleaseHeld { .. }
        | Event::ReleaseHoldLifted { .. }
        | Event::ReleaseRevoked { .. }
        | Event::MinimumVersionSet { .. }
        | Event::ReleaseYanked { .. }
        | Event::ValuesSet { .. }
        | Event::ReleaseUnyanked { .. }
        | Event::NodeLabelsSet { .. }
        | Event::NodeDrainRequested { .. }
        | Event::NodeDrained { .. }
        | Event::NodeUndrained { .. }
        | Event::NodeRegistered { .. }
        | Event::NodeDescribed { .. }
        | Event::NodeMoved { .. }
        | Event::NodeRemoved { .. } => None,
    }
}

fn deployment_of_rollout(state: &State, key: &RolloutKey) -> Option<DeploymentId> {
    let rollout = state
        .env_module(&key.environment, &key.module)?
        .rollout
        .as_deref()?;
    (rollout.plan.id == key.rollout).then_some(rollout.plan.deployment)
}
